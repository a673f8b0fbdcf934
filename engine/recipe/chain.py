"""A recipe's stages: what follows one another in one run. Pure; knows nothing of how a stage is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import RecipeError

if TYPE_CHECKING:
    from engine.recipe.recipe import Recipe

MAY_CHANGE = ("method", "data", "training", "dpo", "kto", "rl", "reward", "reward_model", "distill", "own_loss")
"""What a later stage may say anew; the model, the place and how it is spoken to stay."""
STAGE_ZERO = "stage:0"
"""As the model of a reward: the one that the run's first stage trained."""


@dataclass(frozen=True)
class Stage:
    """One stage as a recipe of its own. `afresh`: it begins where the run began, not where the stage before it ended."""

    recipe: Recipe
    afresh: bool = False


def stages(recipe: Recipe) -> list[Stage]:
    """The recipe's stages in order, at least one. Raises RecipeError for a stage that can't be."""
    one = recipe.model_copy(update={"then": ()})
    found = _whole(one)
    for number, changes in enumerate(recipe.then, 2):
        where = f"recipe then, stage {number}"
        if unknown := sorted(set(changes) - set(MAY_CHANGE)):
            raise RecipeError(f"a later stage can't say {unknown[0]!r} anew", f"It may say: {', '.join(MAY_CHANGE)}.", where=where)
        try:
            one = one.merged(_renewed(changes))
        except RecipeError as error:
            raise RecipeError(error.message, error.next_step, where=f"{where}: {error.where}") from error
        if one.method in ("rlhf", "reward_model"):
            raise RecipeError(f"{one.method} can't be a later stage", "Make it a run of its own, or the first stage.", where=where)
        found += _whole(one)
    return found


def _renewed(changes: dict[str, Any]) -> dict[str, Any]:
    """New data replaces the old whole: a path beside an old demo would clash."""
    data = changes.get("data")
    if not isinstance(data, dict) or not {"demo", "path", "dataset"} & set(data):
        return changes
    return {**changes, "data": {"demo": "", "path": "", "dataset": "", "mapping": {}, "held_out_path": "", **data}}


def _whole(recipe: Recipe) -> list[Stage]:
    """RLHF is a reward model and then reinforcement learning against it, which begins where the run began."""
    if recipe.method != "rlhf":
        return [Stage(recipe)]
    about = recipe.reward_model
    values = recipe.model_dump(mode="json")
    own = {**values["training"], "steps": about.steps, "epochs": 1.0 if about.steps is None else values["training"]["epochs"]}
    own["learning_rate"] = about.learning_rate or recipe.training.learning_rate
    first = type(recipe).make({**values, "method": "reward_model", "training": own})
    scored = {"parts": [{"kind": "reward_model", "model": STAGE_ZERO}]}
    return [Stage(first), Stage(type(recipe).make({**values, "method": "rl", "reward": scored}), afresh=True)]
