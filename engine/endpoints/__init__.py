"""What can answer the Tinker API: the registry of endpoints. The only place that knows one from another.

An endpoint is started, then connected to; what comes out is an `Endpoint` that names its URL and says whether it still
lives. Everything else in the engine speaks to it through the official SDK (`client.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

from engine.errors import RecipeError
from engine.keys import Need

TINKER_KEY = Need("tinker", "Tinker", "TINKER_API_KEY", "tml-", "https://tinker.thinkingmachines.ai/keys")


@dataclass(frozen=True)
class Kind:
    """One kind of endpoint: where it is started, what it is called, what it needs and can.

    `weights`: the model's files have to be here, and this machine does the work. `full`: it trains all weights, not adapters alone.
    """

    start: str
    title: str
    key: Need | None = None
    weights: bool = True
    full: bool = True


_KINDS = {
    "local": Kind("engine.endpoints.local:start", "this machine"),
    "tinker": Kind("engine.endpoints.tinker_cloud:start", "Tinker", TINKER_KEY, weights=False, full=False),
}


class Endpoint(Protocol):
    """Something that answers, or will soon."""

    url: str
    base_model: str

    @property
    def chat_url(self) -> str:
        """Where it speaks OpenAI's API: what comes before /chat/completions."""

    def ready(self, say: Callable[[str], None]) -> None:
        """Returns when requests are answered; tells the stages. Raises EndpointError."""

    def alive(self) -> bool:
        """Whether the same life of the server still answers."""

    def key(self) -> str:
        """The API key; never stored anywhere else."""


def names() -> list[str]:
    """The endpoints that exist."""
    return list(_KINDS)


def kind(name: str) -> Kind:
    """What it is. Raises RecipeError for an unknown name."""
    if name not in _KINDS:
        raise RecipeError(f"there is no endpoint {name!r}", f"Use one of: {', '.join(_KINDS)}.", where="recipe endpoint")
    return _KINDS[name]


def needs() -> list[Need]:
    """The keys that endpoints need, each once."""
    return list(dict.fromkeys(known.key for known in _KINDS.values() if known.key))


def start(name: str, base_model: str, model_folder: Path, owner: str = "local") -> Endpoint:
    """Begins to bring the endpoint up and returns at once; a key that it needs is the owner's. Raises EngineError."""
    module, function = kind(name).start.split(":")
    return getattr(import_module(module), function)(base_model, model_folder, owner)


def storage(name: str, owner: str) -> str:
    """What the endpoint keeps checkpoints in, by a name that is the same for all who keep them there; empty where that can't be told.

    Raises EngineError where it has to be asked and can't be.
    """
    told = getattr(import_module(kind(name).start.partition(":")[0]), "storage", None)
    return told(owner) if told else ""
