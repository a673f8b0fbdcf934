"""`engine.defaults`: what a person wants new trainings on their own data to start from, in place of what is recommended.

A few fields of a recipe, kept as settings; a demo keeps what was measured for it. Knows what fits a recipe; starts nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine import guard, models
from engine.errors import NotFound
from engine.recipe import Recipe
from engine.settings import Settings

if TYPE_CHECKING:
    from engine.store import Store

FIELDS = {
    "base_model": "default_base_model",
    "training.batch_size": "default_batch_size",
    "training.max_length": "default_max_length",
}
"""The fields that can have one, and the settings that keep them."""


class Defaults:
    """One owner's."""

    def __init__(self, store: Store, owner: str):
        self._settings, self._owner = Settings(store, owner), owner

    def get(self) -> dict[str, Any]:
        """{field: value} of those that were chosen."""
        found = {field: self._settings.get(setting) for field, setting in FIELDS.items()}
        return {field: value for field, value in found.items() if value}

    def set(self, field: str, value: Any) -> None:
        """None or nothing goes back to what is recommended. Raises NotFound, RecipeError for a value that no recipe can have, and
        ModelError for a model that can't be found."""
        if field not in FIELDS:
            raise NotFound(f"there is no default for {field!r}", f"There are: {', '.join(FIELDS)}.")
        value = value.strip() if isinstance(value, str) else value
        if value in (None, "") or (field == "base_model" and value == "nano"):
            self._settings.reset(FIELDS[field])
            return
        part, _, leaf = field.rpartition(".")
        Recipe.make({part: {leaf: value}} if part else {leaf: value})
        if field == "base_model":
            guard.model(self._owner, value, endpoint="")
            models.resolve(value, weights=False)
        self._settings.set(FIELDS[field], value)
