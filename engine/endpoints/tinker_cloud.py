"""The Tinker cloud: where it is, and where its console shows what lies there. Asks nothing; `remote` speaks to it."""

from __future__ import annotations

import os
from urllib.parse import quote

DEFAULT_URL = "https://tinker.thinkingmachines.dev/services/tinker-prod"  # as the SDK has it
URL_VARIABLE = "TINKER_BASE_URL"
CONSOLE = "https://tinker.thinkingmachines.ai"  # as the SDK has it


def url() -> str:
    """Where it is, or what stands in for it."""
    return (os.environ.get(URL_VARIABLE, "").strip() or DEFAULT_URL).rstrip("/")


def is_the_cloud() -> bool:
    """Whether it is Tinker's own, so that its console knows what is there."""
    return url() == DEFAULT_URL


def run_page(run_id: str) -> str:
    """A training run in the console."""
    return f"{CONSOLE}/training_runs/{quote(run_id, safe=':')}"


def checkpoint_page(run_id: str, checkpoint_id: str) -> str:
    """A checkpoint in the console."""
    return f"{CONSOLE}/checkpoints/{quote(run_id, safe='')}/{quote(checkpoint_id, safe='')}"
