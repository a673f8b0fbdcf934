"""What a server that speaks the Tinker API can do besides training adapters: asked over plain HTTP, which costs nothing.

Losses and full fine-tuning no such server tells, but ours: `trial` tries those out. Nothing here raises for what a server lacks.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from engine.endpoints import named, remote
from engine.endpoints.remote import Address

_CHATS = ("oai/api/v1", "v1")
_NAMES = {"checkpoints": "Checkpoint list", "chat": "Chat (OpenAI's API)", "losses": "Losses", "full": "Training all weights"}


@dataclass(frozen=True)
class Ability:
    """One line of what it can do. `has` is None where that isn't known."""

    name: str
    title: str
    has: bool | None
    told: str


def look(where: Address, owner: str) -> dict[str, Any]:
    """{models: [{name, context}], checkpoints, chat (path), losses, full, at}; None for what can't be told without trying.

    Raises KeyNeeded, PaymentNeeded and EndpointError where it doesn't answer at all.
    """
    key = where.key(owner)
    offers = remote.offers(where.name, owner)
    status = _json(where, "thinker/status", key)
    return {
        "models": [{"name": offer.name, "context": offer.context} for offer in offers if offer.trainable],
        "checkpoints": "checkpoints" in _json(where, "checkpoints?limit=1", key),
        "chat": next((path for path in _CHATS if _speaks(where, path, key)), ""),
        "losses": status.get("losses"),
        "full": status.get("full"),
        "at": time.time(),
    }


def told(found: Mapping[str, Any]) -> list[Ability]:
    """What was found, in words; nothing before it was looked at."""
    if not found:
        return []
    losses, full = found.get("losses"), found.get("full")
    unknown = "not known; it can be tried out"
    lines = {
        "checkpoints": (bool(found.get("checkpoints")), "listed, published and deleted by name", "it keeps no list of them"),
        "chat": (bool(found.get("chat")), f"at /{found.get('chat')}", "it doesn't speak it, so the Playground can't reach models there"),
        "losses": (None if losses is None else bool(losses), ", ".join(losses or ()), "none were taken" if losses is not None else unknown),
        "full": (full, "it can", "adapters (LoRA) only" if full is False else unknown),
    }
    return [Ability(name, _NAMES[name], has, yes if has else no) for name, (has, yes, no) in lines.items()]


def _json(where: Address, what: str, key: str) -> dict[str, Any]:
    try:
        reply = remote.get(where.url, what, key)
        body = reply.json() if reply.status_code == 200 else {}
    except (httpx.HTTPError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _speaks(where: Address, path: str, key: str) -> bool:
    """Tinker's key is the chat's key too."""
    trust = not named.nearby(where.host)
    try:
        with httpx.Client(timeout=remote.ANSWER_SECONDS, trust_env=trust) as client:
            reply = client.get(f"{where.url}/{path}/models", headers={"Authorization": f"Bearer {key}"})
            return reply.status_code == 200 and isinstance(reply.json().get("data"), list)
    except (httpx.HTTPError, ValueError, AttributeError):
        return False
