"""Whether a recipe asks for no more tokens at once than a model takes where it is trained. Pure; asks nobody."""

from __future__ import annotations

from engine.errors import RecipeError
from engine.recipe import Recipe


def fits(asked: Recipe, context: int | None) -> None:
    """No more tokens at once than the model takes there. Raises RecipeError."""
    longest, where = asked.training.max_length, "recipe training.max_length"
    if asked.method in ("rl", "rlhf", "distill"):
        part = asked.distill if asked.method == "distill" else asked.rl
        if context is not None and part.max_new_tokens >= context:
            longest, where = part.max_new_tokens, f"recipe {asked.method if asked.method == 'distill' else 'rl'}.max_new_tokens"
    if context is not None and longest is not None and longest > context:
        told = f"{asked.base_model} takes {context:,} tokens at once there, and {longest:,} are asked for"
        raise RecipeError(told, f"Set it to {context:,} at most.", where=where)
    if context is not None and asked.evaluation.max_new_tokens >= context:
        told = f"{asked.base_model} takes {context:,} tokens at once there, and answers alone may be {asked.evaluation.max_new_tokens:,}"
        raise RecipeError(told, "Shorten the longest answer.", where="recipe evaluation.max_new_tokens")
