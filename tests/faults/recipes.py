"""Small runs of several methods for those who disturb them, and what has to be the same in them whatever happened.

Knows nothing of what is done to them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.recipe import Recipe

WORDS = [f"word{i}" for i in range(40)]


@dataclass(frozen=True)
class Kind:
    """`curves`: the numbers that are held against those of a run that nothing disturbed, the first of them one a step. `exact`: they are
    the same to the last digits; of answers drawn ahead only the order of the rows and the count of the steps are."""

    method: str
    curves: tuple[str, ...]
    changes: dict[str, Any]
    exact: bool = True


# With a KL penalty no step is without an update, however alike the answers are.
_RL = {"rl": {"group_size": 4, "max_new_tokens": 8, "kl": 0.05}, "training": {"batch_size": 2, "learning_rate": 1e-3}}
_AHEAD = {**_RL, "rl": {**_RL["rl"], "ahead": True}}

KINDS = {
    "sft": Kind("sft", ("train_loss", "held_out_loss"), {}),
    "dpo": Kind("dpo", ("preference_loss", "reward_margin", "held_out_preference_accuracy"), {}),
    "kto": Kind("kto", ("preference_loss", "held_out_preference_accuracy"), {}),
    "rl": Kind("rl", ("reward", "held_out_reward"), _RL),
    "ahead": Kind("rl", ("reward", "held_out_reward"), _AHEAD, exact=False),
}


def rows(method: str) -> list[dict[str, Any]]:
    """One small task in the shape that the method learns from."""
    if method == "dpo":
        return [{"prompt": f"Shout {word}", "chosen": f"{word.upper()}!", "rejected": f"{word}."} for word in WORDS]
    if method == "kto":
        said = [(word, text, good) for word in WORDS for text, good in ((f"{word.upper()}!", True), (f"{word}.", False))]
        return [{"prompt": f"Shout {word}", "completion": text, "label": good} for word, text, good in said]
    if method == "rl":
        return [{"prompt": f"Reverse {word}", "answer": word[::-1]} for word in WORDS]
    return [{"prompt": f"Shout {word}", "completion": f"{word.upper()}!"} for word in WORDS]


def small(folder: Path, kind: str, steps: int, **changes: Any) -> Recipe:
    """Small steps with all that a run does between them: held-out numbers, samples, checkpoints, and a proof at the end."""
    about = KINDS[kind]
    file = folder / f"{about.method}.jsonl"
    if not file.exists():
        file.write_text("".join(json.dumps(row) + "\n" for row in rows(about.method)), encoding="utf-8")
    whole = {
        "name": kind,
        "method": about.method,
        "data": {"path": str(file)},
        "lora": {"rank": 8},
        "training": {"steps": steps, "batch_size": 8, "learning_rate": 2e-3},
        "evaluation": {"eval_every": 10, "samples_every": 20, "skills": False, "max_new_tokens": 16},
        "checkpoints": {"every_steps": 5, "every_seconds": 0},
    }
    return Recipe.make(whole).merged(about.changes).merged(changes)
