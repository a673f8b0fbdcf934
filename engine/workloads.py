"""What a stage of a recipe has to go through, in tokens: learned from, only read, and drawn. Pure arithmetic on a recipe and the figures
of its data; knows no speed and no store."""

from __future__ import annotations

from typing import Any

from engine.estimates import Workload
from engine.recipe import Recipe


def of_stage(recipe: Recipe, figures: dict[str, Any], steps: int, speeds: dict[str, Any]) -> Workload:
    """One stage. `figures` are those of its data (engine.planning), `speeds` what is known of methods (engine.knowledge)."""
    known = speeds.get("methods", {}).get(recipe.method, {})
    t, rows = recipe.training, figures["train"]
    answers = 0
    if recipe.evaluation.proof:
        answers = figures["held_out"] + (figures["skills"] if recipe.evaluation.skills else 0)
    longest = min(figures["longest"], figures["max_length"] or figures["longest"])
    usual = min(figures["answer_mean"], recipe.evaluation.max_new_tokens)
    length, at_once, read, drawn = figures["mean"], t.batch_size, 0.0, 0.0
    if known.get("reference"):
        read = known["reference"] * min(rows, steps * t.batch_size) * length
    if tries := _tries(recipe):
        most = recipe.rl.max_new_tokens if recipe.method == "rl" else recipe.distill.max_new_tokens
        # Where nothing is known of how long answers are, half of what they may have.
        answer = min(most, figures["answer_mean"] or most / 2)
        length, longest, usual = figures["mean"] + answer, longest + most, min(answer, recipe.evaluation.max_new_tokens)
        if recipe.method == "distill" and recipe.distill.kind != "on_policy":
            drawn = min(rows, steps * t.batch_size) * tries * answer
        else:
            at_once *= tries
            drawn = steps * at_once * answer
            read = drawn if recipe.method == "distill" or recipe.rl.kl else 0.0
    return Workload(rows, length, longest, at_once, steps, answers, usual, known.get("token", 1.0), read, drawn)


def _tries(recipe: Recipe) -> int:
    """How many answers are drawn to each prompt."""
    if recipe.method == "rl":
        return recipe.rl.group_size
    if recipe.method == "distill":
        return recipe.distill.group_size if recipe.distill.kind == "on_policy" else recipe.distill.samples
    return 0
