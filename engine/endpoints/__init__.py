"""What can answer the Tinker API: the registry of endpoints. The only place that knows one from another.

An endpoint is started, then connected to; what comes out is an `Endpoint` that names its URL and says whether it still
lives. Everything else in the engine speaks to it through the official SDK (`client.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol

from engine.errors import RecipeError

_KINDS = {"local": "engine.endpoints.local:start"}


class Endpoint(Protocol):
    """Something that answers, or will soon."""

    url: str
    base_model: str

    def ready(self, say: Callable[[str], None]) -> None:
        """Returns when requests are answered; tells the stages. Raises EndpointError."""

    def alive(self) -> bool:
        """Whether the same life of the server still answers."""

    def key(self) -> str:
        """The API key; never stored anywhere else."""


def names() -> list[str]:
    """The endpoints that exist."""
    return list(_KINDS)


def start(name: str, base_model: str, model_folder: Path) -> Endpoint:
    """Begins to bring the endpoint up and returns at once. Raises RecipeError for an unknown name, else EndpointError."""
    if name not in _KINDS:
        raise RecipeError(f"there is no endpoint {name!r}", f"Use one of: {', '.join(_KINDS)}.", where="recipe endpoint")
    module, function = _KINDS[name].split(":")
    return getattr(import_module(module), function)(base_model, model_folder)
