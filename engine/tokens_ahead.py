"""What a run will ask of its endpoint in tokens of each kind, before it begins. Pure arithmetic over a recipe and its data's lengths.

Where nothing is known of a length, the longest that the recipe allows is taken, so that the figure is rather too high than too low.
Knows no prices.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from engine.recipe import Recipe
from engine.training.schedule import total_steps

PAIRED = ("dpo", "reward_model")
SAMPLED = ("rl", "distill")
WATCHED_PROMPTS = 64
"""Held-out prompts that RL answers at each measurement."""


def expect(recipe: Recipe, figures: Mapping[str, Any], of_stages: Sequence[Mapping[str, Any]] = ()) -> Counter[str]:
    """{prefill, sample, train}: tokens of the whole run, proof and samples included. `figures`: train, epoch, held_out, skills (rows),
    mean, answer_mean (tokens a row; of a pair, `mean` is both answers'); `of_stages` has those of each stage's data where they differ."""
    found: Counter[str] = Counter()
    stages = recipe.stages()
    each = of_stages or [figures] * len(stages)
    for stage, own in zip(stages, each, strict=True):
        steps = total_steps(stage.recipe.training, max(1, own["epoch"]))
        found += learning(stage.recipe, own, steps)
        found += watching(stage.recipe, own, steps)
    return found + proving(stages[-1].recipe, each[-1])


def learning(recipe: Recipe, figures: Mapping[str, Any], steps: int) -> Counter[str]:
    """The updates themselves, with what a method and a curriculum ask for beside them."""
    return _ranking(recipe, figures, steps) + _learning(recipe, figures, steps)


def _ranking(recipe: Recipe, figures: Mapping[str, Any], steps: int) -> Counter[str]:
    if recipe.data.curriculum != "loss":
        return _counted()
    return _counted(prefill=min(steps * recipe.training.batch_size, figures["epoch"]) * figures["mean"])


def _learning(recipe: Recipe, figures: Mapping[str, Any], steps: int) -> Counter[str]:
    drawn, mean, prompt = steps * recipe.training.batch_size, figures["mean"], _prompt(recipe, figures)
    used = min(drawn, figures["train"])
    if recipe.method == "dpo":
        reference = 0 if recipe.dpo.variant == "simpo" else used
        return _counted(prefill=(drawn + reference) * mean, train=drawn * mean)
    if recipe.method == "reward_model":
        return _counted(prefill=drawn * mean, train=drawn * mean)
    if recipe.method == "kto":
        return _counted(prefill=2 * (drawn + used) * mean, train=drawn * mean)
    if recipe.method == "own_loss":
        return _counted(prefill=drawn * mean, train=drawn * mean)
    if recipe.method == "rl":
        answers, length = drawn * recipe.rl.group_size, recipe.rl.max_new_tokens
        whole = answers * (prompt + length)
        return _counted(prefill=drawn * prompt + (whole if recipe.rl.kl else 0), sample=answers * length, train=whole)
    if recipe.method == "distill":
        about, length = recipe.distill, recipe.distill.max_new_tokens
        if about.kind == "on_policy":
            answers = drawn * about.group_size
            whole = answers * (prompt + length)
            return _counted(prefill=drawn * prompt + (0 if about.teacher_url else whole), sample=answers * length, train=whole)
        taught = _counted() if about.teacher_url else _counted(prefill=used * prompt, sample=used * about.samples * length)
        return taught + _counted(train=drawn * (prompt + length))
    return _counted(train=drawn * mean)


def watching(recipe: Recipe, figures: Mapping[str, Any], steps: int) -> Counter[str]:
    """Held-out numbers and samples on the way."""
    evaluation = recipe.evaluation
    times = 1 + math.ceil(steps / evaluation.eval_every) if evaluation.eval_every else 1
    found = _counted(prefill=times * figures["held_out"] * figures["mean"])
    if recipe.method == "rl":
        # It is answers to held-out prompts that are measured, not how likely the right ones are.
        asked = times * min(figures["held_out"], WATCHED_PROMPTS)
        found = _counted(prefill=asked * _prompt(recipe, figures), sample=asked * recipe.rl.max_new_tokens)
    if evaluation.samples_every and evaluation.samples:
        asked = (1 + math.ceil(steps / evaluation.samples_every)) * min(evaluation.samples, figures["held_out"])
        found += _counted(prefill=asked * _prompt(recipe, figures), sample=asked * _answer(recipe, figures))
    return found


def proving(recipe: Recipe, figures: Mapping[str, Any]) -> Counter[str]:
    """The proof: before training, when answers may go on to the longest allowed, and after it."""
    evaluation = recipe.evaluation
    if not evaluation.proof:
        return _counted()
    asked = figures["held_out"] + (min(figures["skills"], evaluation.skills_max) if evaluation.skills else 0)
    read = 2 * (asked * _prompt(recipe, figures) + figures["held_out"] * figures["mean"])
    return _counted(prefill=read, sample=asked * (_answer(recipe, figures) + evaluation.max_new_tokens))


def _prompt(recipe: Recipe, figures: Mapping[str, Any]) -> float:
    if recipe.method in SAMPLED and figures.get("shape") == "prompts":
        return figures["mean"]
    sides = 2 if recipe.method in PAIRED and figures.get("shape") != "labels" else 1
    return max(0.0, figures["mean"] / sides - figures["answer_mean"])


def _answer(recipe: Recipe, figures: Mapping[str, Any]) -> float:
    return min(figures["answer_mean"] or recipe.evaluation.max_new_tokens, recipe.evaluation.max_new_tokens)


def _counted(**tokens: float) -> Counter[str]:
    return Counter({kind: round(count) for kind, count in tokens.items() if count})
