"""A recipe's stages: what follows one another in one run. Pure; knows nothing of how a stage is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import RecipeError

if TYPE_CHECKING:
    from engine.recipe.recipe import Recipe

MAY_CHANGE = ("method", "data", "training", "dpo", "kto", "rl", "reward", "reward_model", "distill", "own_loss")
"""What a later stage may say anew; the model, the place and how it is spoken to stay."""
ALWAYS_SAID = ("steps", "epochs", "batch_size", "learning_rate")
"""Of a later stage's training, so that it stays as it is when the stage before changes."""
BLANK_DATA = {
    "demo": "", "path": "", "dataset": "", "format": "auto", "mapping": {}, "held_out_path": "",
    "curriculum": "none", "curriculum_column": "", "mix": [],
}  # fmt: skip
"""What is said of a stage's data and can't hold for other data: a path beside an old demo would clash, an order by a column be lost."""
OF_STAGE = "stage:"
"""As a model's name, with a stage's number after it (the first is 0): what that stage of the same run trained."""


@dataclass(frozen=True)
class Stage:
    """One stage as a recipe of its own. `begins`: the stage whose weights it goes on from; -1 is what the run starts from."""

    recipe: Recipe
    begins: int = -1


def stages(recipe: Recipe) -> list[Stage]:
    """The recipe's stages in order, at least one. Raises RecipeError for a stage that can't be."""
    found: list[Stage] = []
    for one in written(recipe):
        _add(found, one)
    return found


def written(recipe: Recipe) -> list[Recipe]:
    """The recipe and each of its followers, whole and without followers of its own: what people put one after the other. Raises
    RecipeError for one that can't be."""
    one = recipe.model_copy(update={"then": ()})
    found = [one]
    for number, changes in enumerate(recipe.then, 2):
        where = f"recipe then, stage {number}"
        if unknown := sorted(set(changes) - set(MAY_CHANGE)):
            raise RecipeError(f"a later stage can't say {unknown[0]!r} anew", f"It may say: {', '.join(MAY_CHANGE)}.", where=where)
        if found[-1].method == "reward_model":
            raise RecipeError("nothing can follow a reward model", "Make it the last, or choose rlhf, which goes on with it.", where=where)
        try:
            one = one.merged(_renewed(changes))
        except RecipeError as error:
            raise RecipeError(error.message, error.next_step, where=f"{where}: {error.where}") from error
        found.append(one)
    return found


def follower(before: Recipe, after: Recipe) -> dict[str, Any]:
    """What `then` has to say of a stage, so that it is `after` behind `before`: what differs, and always what people look at first."""
    old, new = before.model_dump(mode="json"), after.model_dump(mode="json")
    said: dict[str, Any] = {"method": after.method}
    if new["data"] != old["data"]:
        said["data"] = after.data.model_dump(mode="json", exclude_defaults=True)
    for part in MAY_CHANGE[2:]:
        always = ALWAYS_SAID if part == "training" else ()
        if changed := {name: value for name, value in new[part].items() if name in always or value != old[part][name]}:
            said[part] = changed
    return said


def _add(found: list[Stage], recipe: Recipe) -> None:
    """RLHF is a reward model and then reinforcement learning against it, both from the same beginning."""
    last = len(found) - 1
    if recipe.method != "rlhf":
        found.append(Stage(recipe, last))
        return
    values, about = recipe.model_dump(mode="json"), recipe.reward_model
    own = {**values["training"], "steps": about.steps, "epochs": 1.0, "learning_rate": about.learning_rate or recipe.training.learning_rate}
    scored = {"parts": [{"kind": "reward_model", "model": f"{OF_STAGE}{len(found)}"}]}
    found.append(Stage(type(recipe).make({**values, "method": "reward_model", "training": own}), last))
    found.append(Stage(type(recipe).make({**values, "method": "rl", "reward": scored}), last))


def _renewed(changes: dict[str, Any]) -> dict[str, Any]:
    """New data replaces the old whole."""
    data = changes.get("data")
    if not isinstance(data, dict) or not {"demo", "path", "dataset"} & set(data):
        return changes
    return {**changes, "data": {**BLANK_DATA, **data}}
