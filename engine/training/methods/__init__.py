"""The methods by name. A method is one file: a class that turns examples into batches and replies into metrics."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from engine.data.examples import DataSet
from engine.errors import RecipeError
from engine.recipe import Recipe
from engine.rendering import Renderer

_METHODS = {"sft": "engine.training.methods.sft:SFT"}


class Method(Protocol):
    """What the loop asks of a method. Steps are 0-based here."""

    loss_fn: str
    rows: int
    notes: list[str]

    def batch(self, step: int) -> tuple[list[Any], dict[str, float]]:
        """-> the step's datums, and {"tokens": real tokens, "targets": tokens learned from}."""

    def metrics(self, reply: Any, counts: dict[str, float]) -> dict[str, float]:
        """The step's numbers from the reply to forward_backward."""

    def held_out(self) -> list[Any]:
        """Datums to measure the held-out loss on; empty if there are none."""

    def held_out_metrics(self, reply: Any) -> dict[str, float]:
        """The held-out numbers from the reply to forward."""


def make_method(recipe: Recipe, data: DataSet, renderer: Renderer, context: int) -> Method:
    """The recipe's method over its data. Raises RecipeError for an unknown name, DataError where nothing can be learned."""
    if recipe.method not in _METHODS:
        raise RecipeError(f"there is no method {recipe.method!r}", f"Use one of: {', '.join(_METHODS)}.", where="recipe method")
    module, name = _METHODS[recipe.method].split(":")
    return getattr(import_module(module), name)(recipe, data, renderer, context)
