"""A recipe with all that it leaves to other things filled in: the profile's content, what its start decides, paths that mean the same
from any folder. What is launched, rehearsed and compared is this form. Starts nothing and reads no data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine import endpoints, models, profiles, starts
from engine.recipe import Recipe
from engine.store import Store


def settle(store: Store, owner: str, recipe: Recipe) -> Recipe:
    """Raises NotFound, RecipeError and ModelError."""
    recipe = starts.settle(store, owner, profiles.settle(store, owner, recipe))
    spec = recipe.data
    given = {name: _absolute(path) for name in ("path", "held_out_path") if (path := getattr(spec, name))}
    changes: dict[str, Any] = {"data": given}
    if spec.mix:
        changes["data"]["mix"] = [mixed.model_dump() | ({"path": _absolute(mixed.path)} if mixed.path else {}) for mixed in spec.mix]
    if recipe.then:
        changes["then"] = [_absolute_stage(said) for said in recipe.then]
    if endpoints.kind(recipe.endpoint, owner).weights and not models.is_hub_id(recipe.base_model):
        folder = models.resolve(recipe.base_model)
        changes["base_model"] = "nano" if folder.resolve() == models.nano_folder().resolve() else str(folder.resolve())
    return recipe.merged(changes)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve())


def _absolute_stage(said: dict[str, Any]) -> dict[str, Any]:
    spec = said.get("data")
    if not isinstance(spec, dict):
        return said
    files = {name: _absolute(spec[name]) for name in ("path", "held_out_path") if spec.get(name)}
    mix = [part | ({"path": _absolute(part["path"])} if part.get("path") else {}) for part in spec.get("mix") or ()]
    return {**said, "data": {**spec, **files, **({"mix": mix} if mix else {})}}
