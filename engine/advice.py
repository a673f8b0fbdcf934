"""Warnings that matter before a run: what is likely to go wrong, and what to do about it. Pure functions of a recipe and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from engine.amounts import dollars
from engine.estimates import Estimate
from engine.knowledge.pricing import Price
from engine.recipe import Recipe, RewardPart

PRESUPPOSING = ("dpo", "kto", "rl", "rlhf")
"""The methods that improve what a model can do already."""


@dataclass(frozen=True)
class Concern:
    """`stop`: it would fail or teach nothing. `care`: it may disappoint. `field` is the recipe's field to look at."""

    level: Literal["stop", "care"]
    text: str
    action: str
    field: str

    def of_stage(self, number: int) -> Concern:
        """The same, said of one of several stages."""
        return replace(self, text=f"Stage {number}: {self.text[:1].lower()}{self.text[1:]}")


def warnings(
    recipe: Recipe,
    figures: dict[str, Any],
    recommended: dict[str, dict[str, Any]],
    steps: int,
    hidden: int,
    memory: Estimate | None,
    free: int,
) -> list[Concern]:
    """`figures`: train, held_out (examples), truncated, without_any_answer (rows), max_length (tokens). Most serious first."""
    found: list[Concern] = []
    t, rows = recipe.training, figures["train"]
    if rows < 50:
        text = f"There are only {rows:,} examples to learn from; fewer than 50 seldom teach more than themselves."
        found.append(Concern("care", text, "Add examples if you can; a few hundred do well for most tasks.", "data"))
    if not figures["held_out"]:
        text = "No examples are kept aside, so nothing can be proven afterwards."
        found.append(Concern("care", text, "Add examples, or raise the share that is held out.", "data.held_out_fraction"))
    rate = recommended["training.learning_rate"]["value"]
    if t.learning_rate > 4 * rate:
        text = f"The learning rate is {t.learning_rate / rate:.0f} times what suits this model; the loss may jump and stay up."
        found.append(Concern("care", text, f"Set it to about {rate:.2g}.", "training.learning_rate"))
    elif t.learning_rate < rate / 10:
        text = f"The learning rate is less than a tenth of what is recommended for this model ({rate:.2g}); it may hardly learn."
        found.append(Concern("care", text, f"Set it to about {rate:.2g}.", "training.learning_rate"))
    if memory and memory.value > free:
        action = "Choose a smaller model, a shorter longest example, or train an adapter (LoRA) instead of all weights."
        found.append(Concern("stop", f"The memory won't suffice: {memory.text}.", action, "full" if recipe.full else "base_model"))
    if lost := figures["without_any_answer"]:
        text = f"Of {lost:,} examples nothing of the answer is within {figures['max_length']:,} tokens: they teach nothing."
        found.append(
            Concern("stop" if lost >= rows else "care", text, "Shorten them, or raise the longest example.", "training.max_length")
        )
    elif cut := figures["truncated"]:
        text = f"{cut:,} examples are longer than {figures['max_length']:,} tokens and will be cut off at the end."
        found.append(Concern("care", text, "Shorten them, or raise the longest example.", "training.max_length"))
    if not recipe.full and hidden and recipe.lora.rank > hidden:
        text = f"The rank {recipe.lora.rank} is larger than the model's width ({hidden:,}); the adapter can't use it."
        found.append(Concern("care", text, f"Set it to {recommended['lora.rank']['value']}.", "lora.rank"))
    elif not recipe.full and recipe.lora.rank > 128 and rows < 10_000:
        text = f"A rank of {recipe.lora.rank} is far more than {rows:,} examples fill; it costs memory and time."
        found.append(Concern("care", text, f"Set it to {recommended['lora.rank']['value']}.", "lora.rank"))
    passes = steps * t.batch_size / rows if rows else 0
    if passes > 20:
        text = f"Every example is gone through {passes:,.0f} times; the model will know them by heart and little else."
        found.append(Concern("care", text, "Train fewer steps, or add examples.", "training.steps"))
    found += _of_method(recipe, figures)
    return sorted(found, key=lambda warning: warning.level != "stop")


def unprepared(recipe: Recipe) -> list[Concern]:
    """A first stage from a bare base model that presupposes that the model can do the task already."""
    if recipe.base_model != "nano" or recipe.method not in PRESUPPOSING:
        return []
    text = "nano can do next to nothing by itself, and this method improves what a model can do already."
    action = "Go on from a model that you trained on examples, or put a stage before this one that learns from examples (sft)."
    return [Concern("care", text, action, "method")]


def _of_method(recipe: Recipe, figures: dict[str, Any]) -> list[Concern]:
    found = []
    if recipe.method == "kto" and (good := figures.get("good")) in (0, figures["train"]):
        kind = "good" if good else "bad"
        text = f"All answers were found {kind}; there is nothing to compare them with."
        found.append(Concern("stop", text, "Add answers with the other verdict.", "data"))
    if recipe.method == "rl" and not figures.get("expected", 1) and any(map(_compares, recipe.reward.parts)):
        text = "The score compares answers with what is expected, and no prompt says what that is."
        found.append(Concern("stop", text, "Add the right answers to the data, or choose another score.", "reward.parts"))
    if recipe.method == "own_loss" and not recipe.own_loss.code.strip():
        found.append(Concern("stop", "There is no function yet.", "Write def loss(logprobs, weights, row).", "own_loss.code"))
    if recipe.method == "distill":
        spec = recipe.distill
        if spec.kind == "prompt" and not spec.teacher_prompt:
            text = "The student is to do without a prompt, and none is given."
            found.append(Concern("stop", text, "Write what the teacher is told.", "distill.teacher_prompt"))
        elif not (spec.teacher or spec.teacher_prompt):
            text = "The teacher would be the student itself."
            found.append(Concern("stop", text, "Name a teacher, or give it a prompt.", "distill.teacher"))
    return found


def _compares(part: RewardPart) -> bool:
    return not part.expected and (part.kind in ("exact", "normalised", "numeric") or (part.kind == "contains" and not part.texts))


def limits(recipe: Recipe, tokens: Mapping[str, float], price: Price | None) -> list[Concern]:
    """What the run's own limits will do to it. `tokens`: what it is expected to ask for, by kind."""
    budget, found = recipe.budget, []
    everything = sum(tokens.values())
    if budget.max_dollars is not None and price is None:
        text = f"What {recipe.base_model} costs there isn't known, so the limit of {dollars(budget.max_dollars)} can't be kept to."
        found.append(Concern("care", text, "Give its price in the settings, or set a limit in tokens.", "budget.max_dollars"))
    elif budget.max_dollars is not None and price is not None and (cost := price.dollars(tokens)) > budget.max_dollars:
        text = f"It is expected to cost {dollars(cost)}, more than its limit of {dollars(budget.max_dollars)}: it will stop before its end."
        found.append(Concern("care", text, "Raise the limit, or train fewer steps.", "budget.max_dollars"))
    if budget.max_tokens is not None and everything > budget.max_tokens:
        text = f"It is expected to take {everything:,.0f} tokens, more than its limit of {budget.max_tokens:,}: it will stop early."
        found.append(Concern("care", text, "Raise the limit, or train fewer steps.", "budget.max_tokens"))
    return found
