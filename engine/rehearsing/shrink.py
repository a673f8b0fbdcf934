"""A recipe made small: few updates, few and short rows, a small model on this machine. Pure but for looking at what model is here.

What says how the run behaves stays: methods, losses, schedules, rewards, stages, renderer where the model is the recipe's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine import estimates, models
from engine.data.examples import DataSet, Example, Message
from engine.recipe import OF_STAGE, Recipe

STEPS = 3
BATCH = 4
TRIES = 4  # answers to each prompt
ANSWER = 16  # tokens of an answer
LARGEST = 60e6  # parameters of a model that is small enough to be the recipe's own stand-in
_ROWS, _HELD_OUT, _SKILLS = 8, 4, 4
_LONGEST = 1200  # bytes of a row; a token is a byte at worst


def stand_in(recipe: Recipe) -> str:
    """The recipe's own base model where it is here and small, else nano."""
    folder = models.at_hand(recipe.base_model)
    if folder is not None:
        size = estimates.model_size(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        if size is not None and size.parameters <= LARGEST:
            return recipe.base_model
    return "nano"


def shrunk(recipe: Recipe, base_model: str, *, start: bool, teacher: bool) -> Recipe:
    """The recipe on `base_model` here. `start`: what it goes on from can be loaded; `teacher`: a named teacher can be asked for real."""
    values = recipe.model_dump(mode="json")
    own = base_model == recipe.base_model
    values |= {
        "name": f"Rehearsal of {recipe.name or 'a recipe'}"[:120],
        "endpoint": "local",
        "base_model": base_model,
        "profile": "",
        "budget": {},
    }
    if not own:
        values |= {"renderer": "auto"}
    if not start:
        values["start"] = {}
        values["lora"] |= {"rank": min(8, recipe.lora.rank)}
    evaluation = recipe.evaluation
    values["evaluation"] |= {
        "eval_every": min(1, evaluation.eval_every),
        "samples_every": min(1, evaluation.samples_every),
        "samples": min(2, evaluation.samples),
        "skills_max": _SKILLS,
        "max_new_tokens": min(ANSWER, evaluation.max_new_tokens),
        "previews": [{**one.model_dump(), "prompt": clipped(one.prompt, 200)} for one in evaluation.previews[:4]],
        "preview_endpoint": "",
    }
    values["checkpoints"] |= {"every_steps": 1, "every_seconds": 0, "keep_last": None, "max_gb": None}
    small = _small(recipe)
    for part, changes in small.items():
        values[part] |= changes
    values["distill"] |= _taught(recipe, teacher)
    # Later stages take over what the first says.
    values["then"] = [_without(changes, small, teacher) for changes in recipe.then]
    return Recipe.make(values)


def reader(load: Callable[[Recipe], DataSet], base_model: str) -> Callable[[Recipe], DataSet]:
    """Reads a stage's data as `load` does, and gives some short rows of it."""
    context = models.context_length(models.resolve(base_model))
    longest = min(_LONGEST, context // 2)

    def read(recipe: Recipe) -> DataSet:
        whole = load(recipe)
        tried = whole.shape == "prompts"
        sources = sorted({example.source for example in whole.train})
        each = max(2, _ROWS // max(1, len(sources)))
        train = [example for source in sources for example in _some(whole.train, source, each)]
        held_out = whole.held_out[:_HELD_OUT]
        return replace(
            whole,
            train=[_short(example, longest, tried) for example in train],
            held_out=[_short(example, longest, tried) for example in held_out],
            problems=[],
            skills=whole.skills[:_SKILLS],
            notes=[],
        )

    return read


def clipped(text: str, most: int) -> str:
    """At most so many bytes."""
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def _small(recipe: Recipe) -> dict[str, dict[str, Any]]:
    training, rl, distill = recipe.training, recipe.rl, recipe.distill
    rates = {"patience": None, "plateau": None, "max_length": None}
    return {
        "training": {"steps": STEPS, "epochs": 1.0, "batch_size": min(BATCH, training.batch_size), **rates},
        "rl": {
            "group_size": min(TRIES, rl.group_size), "max_new_tokens": min(ANSWER, rl.max_new_tokens), "updates": min(2, rl.updates)
        },
        "reward_model": {"steps": STEPS, "go_on": True},
        "distill": {"samples": 1, "group_size": min(TRIES, distill.group_size), "max_new_tokens": min(ANSWER, distill.max_new_tokens)},
    }  # fmt: skip


def _taught(recipe: Recipe, real: bool) -> dict[str, Any]:
    """A teacher that isn't here is stood in for by the small model itself, which then needs something to be told."""
    distill = recipe.distill
    told = clipped(distill.teacher_prompt, 200)
    if real or distill.teacher_url or not distill.teacher:
        return {"teacher_prompt": told}
    return {"teacher": "", "teacher_prompt": told or "Answer."}


def _without(changes: dict[str, Any], small: dict[str, dict[str, Any]], teacher: bool) -> dict[str, Any]:
    """A later stage's changes, less what is made small."""
    kept = dict(changes)
    for part, fields in small.items():
        if isinstance(kept.get(part), dict):
            kept[part] = {name: value for name, value in kept[part].items() if name not in fields}
    if isinstance(kept.get("distill"), dict):
        distill = dict(kept["distill"])
        if "teacher_prompt" in distill:
            distill["teacher_prompt"] = clipped(str(distill["teacher_prompt"]), 200)
        if not teacher and not distill.get("teacher_url") and not str(distill.get("teacher", "")).startswith(OF_STAGE):
            distill["teacher"] = ""
            distill["teacher_prompt"] = distill.get("teacher_prompt") or "Answer."
        kept["distill"] = distill
    return kept


def _some(examples: list[Example], source: int, most: int) -> list[Example]:
    """The first few of a source, a few older skills among them."""
    mine = [example for example in examples if example.source == source]
    tasks = [example for example in mine if example.kind == "task"]
    return tasks[:most] + [example for example in mine if example.kind == "replay"][:2] if tasks else mine[:most]


def _short(example: Example, longest: int, tried: bool) -> Example:
    """The row with its texts cut so that it fits; what is only expected stays whole, for rewards look at it."""
    messages = _last(example.messages)
    each = longest // (len(messages) + (example.rejected is not None))
    whole = {len(messages) - 1} if tried and example.answered else set()
    if whole:
        each = longest // max(1, len(messages) - 1)
    short = [message if place in whole else _cut(message, each) for place, message in enumerate(messages)]
    rejected = None if example.rejected is None else clipped(example.rejected, each) or "-"
    if rejected is not None and rejected == short[-1]["content"]:
        # Answers that differ only further on would be the same.
        rejected += "-"
    return replace(example, messages=short, rejected=rejected)


def _last(messages: list[Message]) -> list[Message]:
    """The system message and what was said last."""
    system = [message for message in messages[:1] if message["role"] == "system"]
    rest = messages[len(system) :]
    start = max(0, len(rest) - 4)
    while start < len(rest) - 1 and rest[start]["role"] != "user":
        start += 1
    return [*system, *rest[start:]]


def _cut(message: Message, most: int) -> Message:
    return {**message, "content": clipped(message["content"], most)}
