"""A data directory with some of everything in it, made by doing it for real: runs that went well, badly and not at all, a data set, a chat.

For the tests that look at every page, and for the pictures in the documentation.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine import Engine
from engine.engine import Result
from engine.errors import EngineError
from engine.playground import Settings


@dataclass(frozen=True)
class Furniture:
    """The ids of what is there."""

    good: str
    model: str
    bad: str
    failed: str
    dataset: str
    conversation: str

    def addresses(self) -> dict[str, str]:
        """Pages of single things, by what they show."""
        return {
            "run": f"training?job={self.good}",
            "poor run": f"training?job={self.bad}",
            "failed run": f"training?job={self.failed}",
            "model": f"models?model={self.model}",
            "data set": f"datasets?set={self.dataset}",
            "chat": f"playground?chat={self.conversation}",
            "comparison": f"analytics?runs={self.good},{self.bad}",
        }


def furnish(folder: Path, steps: int = 100, say: Callable[[str], None] = lambda text: None) -> Furniture:
    """Into THINKER_HOME; `folder` is for files that come from elsewhere."""
    with Engine() as engine:
        say("training")
        evaluation = {"eval_every": max(1, steps // 10), "samples_every": max(1, steps // 4)}
        good = engine.run(engine.demo_recipe("piglatin", {"training": {"steps": steps}, "evaluation": evaluation}))
        say("training, too boldly")
        wild = {
            "name": "Too bold",
            "training": {"steps": 20, "learning_rate": 0.5},
            "evaluation": {"skills_max": 8},
            "data": {"held_out_max": 16},
        }
        bad = engine.run(engine.demo_recipe("piglatin", wild))
        say("failing")
        failed = _failing(engine, folder / "gone.jsonl")
        say("adding a data set")
        file = folder / "support questions.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in _questions()), encoding="utf-8")
        dataset = engine.datasets.add(file.name, file)
        say("talking")
        conversation = _talk(engine, good, ["pig latin: lantern", "pig latin: whisper"])
        [model] = engine.models(good.job_id)
    return Furniture(good.job_id, model.id, bad.job_id, failed, dataset.id, conversation)


def _failing(engine: Engine, file: Path) -> str:
    """A run whose file is gone when its turn comes."""
    file.write_text("".join(json.dumps({"prompt": f"Shout {n}", "completion": f"{n}!"}) + "\n" for n in range(20)), encoding="utf-8")
    recipe = engine.file_recipe(file, {"name": "Moved away"})
    made: list[str] = []

    def lose(job) -> None:
        made.append(job.id)
        file.unlink(missing_ok=True)

    try:
        engine.run(recipe, on_start=lose)
    except EngineError:
        pass
    return made[0]


def _talk(engine: Engine, run: Result, prompts: list[str]) -> str:
    playground = engine.playground
    who, settings = [playground.speaker(run.job_id)], Settings()
    conversation = playground.begin(prompts[0], who, settings)
    for prompt in prompts:
        turns = playground.turns(conversation.id)
        asking = playground.ask(who, [playground.messages(turns, 0, prompt, settings)], settings)
        exchange = playground.exchange(conversation.id, prompt, asking)
        asking.wait()
        exchange.settle()
    return conversation.id


def _questions() -> list[dict[str, str]]:
    things = ("invoice", "password", "order", "refund", "address", "delivery", "subscription", "account")
    wishes = {
        "change": "Open Settings, choose {0}, and press Change.",
        "find": "Look under {0} in the menu.",
        "delete": "Write to us about your {0}.",
    }
    asked = [(thing, wish) for thing in things for wish in wishes]
    return [{"prompt": f"How do I {wish} my {thing}?", "completion": wishes[wish].format(thing)} for thing, wish in asked]
