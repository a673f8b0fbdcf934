"""Presets: settings under a name, to load into any later run. They hold no data and no name of a run, which differ each time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.errors import RecipeError
from engine.recipe import Recipe

if TYPE_CHECKING:
    from engine.store import Preset, Store

_OF_ONE_RUN = ("data", "name")


class Presets:
    """One owner's. Names are unique among them."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    def save(self, name: str, recipe: Recipe) -> Preset:
        """Keeps the recipe's settings; a preset of the same name is replaced. Raises RecipeError without a name."""
        values = {part: value for part, value in recipe.model_dump(mode="json").items() if part not in _OF_ONE_RUN}
        values["then"] = [{part: value for part, value in stage.items() if part not in _OF_ONE_RUN} for stage in recipe.then]
        return self._store.save_preset(_named(name), values, self._owner)

    def list(self) -> list[Preset]:
        """By name."""
        return self._store.presets(self._owner)

    def load(self, preset: str) -> dict[str, Any]:
        """What it changes in a recipe, by id or name. Raises NotFound, and RecipeError where this version can't read it."""
        changes = self._store.preset(preset, self._owner).changes
        Recipe.make(changes)
        return changes

    def rename(self, preset: str, name: str) -> Preset:
        """Raises NotFound, RecipeError without a name, and StateError if it is taken."""
        return self._store.rename_preset(preset, _named(name), self._owner)

    def delete(self, preset: str) -> None:
        """Raises NotFound."""
        self._store.delete_preset(preset, self._owner)


def _named(name: str) -> str:
    name = " ".join(name.split())
    if not name or len(name) > 80:
        raise RecipeError("a preset needs a name of at most 80 characters", "Give it one that says what it is good for.", where="preset")
    return name
