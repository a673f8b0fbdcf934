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

LOCAL, TINKER = "local", "tinker"
TINKER_KEY = Need(TINKER, "Tinker", "TINKER_API_KEY", "tml-", "https://tinker.thinkingmachines.ai/keys")
_REMOTE = "engine.endpoints.remote:start"


@dataclass(frozen=True)
class Kind:
    """One endpoint: where it is started, what it is called, what it needs and can.

    `weights`: the model's files have to be here, and this machine does the work. `full`: it trains all weights, not adapters alone.
    """

    start: str
    title: str
    key: Need | None = None
    weights: bool = True
    full: bool = True


_KINDS = {
    LOCAL: Kind("engine.endpoints.local:start", "this machine"),
    TINKER: Kind(_REMOTE, "Tinker", TINKER_KEY, weights=False, full=False),
}


class Endpoint(Protocol):
    """Something that answers, or will soon."""

    url: str
    base_model: str

    @property
    def chat_url(self) -> str:
        """Where it speaks OpenAI's API: what comes before /chat/completions."""

    def ready(self, say: Callable[[str], None], heed: Callable[[], object] | None = None) -> None:
        """Returns when requests are answered; tells the stages. `heed` is called several times a second meanwhile, and ends the waiting by
        raising. Raises EndpointError."""

    def alive(self) -> bool:
        """Whether the same life of the server still answers."""

    def context(self, heed: Callable[[], object] | None = None) -> int | None:
        """The most tokens that the model takes at once there; None where only the model itself says. `heed` as in `ready`. Raises
        EngineError."""

    def key(self) -> str:
        """The API key; never stored anywhere else."""


def names(owner: str = "") -> list[str]:
    """The endpoints that exist; with an owner, also the servers that they named."""
    from engine.endpoints import named

    return [*_KINDS, *(known.name for known in named.listed(owner) if owner)]


def kind(name: str, owner: str = "local") -> Kind:
    """What it is; `owner` is whose servers by URL are meant. Raises RecipeError for an unknown name."""
    from engine.endpoints import named

    if name in _KINDS:
        return _KINDS[name]
    found = named.find(owner, name)
    if found is None:
        raise RecipeError(f"there is no endpoint {name[:60]!r}", f"Use one of: {', '.join(names(owner))}.", where="recipe endpoint")
    return Kind(_REMOTE, name, found.need, weights=False, full=bool(found.found.get("full")))


def needs(owner: str = "") -> list[Need]:
    """The keys that endpoints need, each once."""
    return list(dict.fromkeys(known.key for name in names(owner) if (known := kind(name, owner)).key))


def start(name: str, base_model: str, model_folder: Path, owner: str = "local") -> Endpoint:
    """Begins to bring the endpoint up and returns at once; a key that it needs is the owner's. Raises EngineError."""
    module, function = kind(name, owner).start.split(":")
    return getattr(import_module(module), function)(base_model, model_folder, owner, name)


def storage(name: str, owner: str) -> str:
    """What the endpoint keeps checkpoints in, by a name that is the same for all who keep them there. Raises EngineError where it has to
    be asked and can't be."""
    return import_module(kind(name, owner).start.partition(":")[0]).storage(name, owner)
