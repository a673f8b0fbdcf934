"""The methods by name. A method is one file: a class that turns examples into updates and replies into numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from engine.data.examples import DataSet, Example
from engine.errors import RecipeError
from engine.recipe import Recipe
from engine.rendering import Renderer
from engine.training.desk import Desk
from engine.training.schedule import Order

_METHODS = {
    "sft": "engine.training.methods.sft:SFT",
    "dpo": "engine.training.methods.dpo:DPO",
    "kto": "engine.training.methods.kto:KTO",
    "rl": "engine.training.methods.rl:RL",
    "distill": "engine.training.methods.distill:make",
    "own_loss": "engine.training.methods.own_loss:OwnLoss",
    "reward_model": "engine.training.methods.reward_model:make",
}


@dataclass
class Ticket:
    """A step that was sent off. `counts`: {"tokens": real tokens, "targets": tokens learned from, ...}; `known` are numbers that it has,
    `kept` is what the method wants to see again at the end."""

    gradients: list[Any]
    updates: list[Any]
    counts: dict[str, float]
    known: dict[str, float] = field(default_factory=dict)
    kept: Any = None


class Method(Protocol):
    """What the loop asks of a method. Steps are those of its stage, 0-based.

    `order` says which rows come when. `watched` is the held-out number that says whether it gets better, and `better` which way: "down" or
    "up". `speaks`: what it trains answers people; a reward model doesn't.
    """

    order: Order
    rows: int
    notes: list[str]
    watched: str
    better: str
    speaks: bool

    def attach(self, desk: Desk, step: int) -> None:
        """Takes its place before the first update of an attempt, which is `step`; fetches here what it needs of where it starts from."""

    def submit(self, step: int, rate: float) -> Ticket:
        """Sends the step's requests, one update at least. What has to be waited for in between is waited for here."""

    def settle(self, ticket: Ticket) -> dict[str, float]:
        """Waits for the step's end. -> its numbers."""

    def measure(self) -> dict[str, float]:
        """The held-out numbers with the weights as they are; empty where there is nothing to measure on."""

    def score(self, examples: list[Example], answers: list[str]) -> dict[str, float]:
        """What the method itself thinks of greedy answers to held-out prompts, for the proof; empty where it has no opinion."""

    def doubt(self) -> str:
        """A reason to ask the person before what follows this stage begins; empty where there is none."""

    def state(self) -> dict[str, Any]:
        """What has to be kept with a checkpoint, JSON-ready."""

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from that."""

    def close(self) -> None:
        """Lets go of what it holds."""


class Base:
    """What most methods have in common."""

    watched = ""
    better = "down"
    speaks = True

    def attach(self, desk: Desk, step: int) -> None:
        self._desk = desk

    def settle(self, ticket: Ticket) -> dict[str, float]:
        replies = [self._desk.wait(future, "learning") for future in ticket.gradients]
        updates = [self._desk.wait(future, "learning").metrics or {} for future in ticket.updates]
        norms = [update["grad_norm:mean"] for update in updates if "grad_norm:mean" in update]
        found = self.metrics(replies, ticket) | ticket.known
        return found | ({"grad_norm": sum(norms) / len(norms)} if norms else {})

    def metrics(self, replies: list[Any], ticket: Ticket) -> dict[str, float]:
        """The step's numbers from the replies to forward_backward."""
        return {}

    def measure(self) -> dict[str, float]:
        return {}

    def score(self, examples: list[Example], answers: list[str]) -> dict[str, float]:
        return {}

    def doubt(self) -> str:
        return ""

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


class Asking(Base):
    """What asks for its rows' log-probabilities before it sends a gradient. Those of the next step are asked for as soon as this step's
    update is on its way, so that no time goes by with waiting."""

    order: Order

    def attach(self, desk: Desk, step: int) -> None:
        super().attach(desk, step)
        self._ahead: dict[int, Any] = {}

    def _forward(self, rows: Sequence[int]) -> Any:
        """A future of the rows' log-probabilities with the weights as they are."""
        raise NotImplementedError

    def _of_step(self, step: int, rows: Sequence[int]) -> Any:
        """The same for the rows of a step, which may have been asked for already."""
        return self._ahead.pop(step, None) or self._forward(rows)

    def _ask_ahead(self, step: int) -> None:
        """This step's update was sent."""
        if self._desk.ahead and step + 1 < self._desk.total:
            self._ahead = {step + 1: self._forward(self.order.of_step(step + 1))}


def make_method(recipe: Recipe, data: DataSet, renderer: Renderer, context: int) -> Method:
    """The recipe's method over its data. Raises RecipeError for an unknown name, DataError where nothing can be learned."""
    if recipe.method not in _METHODS:
        raise RecipeError(f"there is no method {recipe.method!r}", f"Use one of: {', '.join(_METHODS)}.", where="recipe method")
    module, name = _METHODS[recipe.method].split(":")
    return getattr(import_module(module), name)(recipe, data, renderer, context)
