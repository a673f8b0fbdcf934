"""Data sets that ship with Thinker, by name. The rows are files, so that people can look at them; the generators beside
them write exactly these files. Knows nothing of how they are trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine import knowledge
from engine.data.examples import Shape
from engine.errors import DataError

_HERE = Path(__file__).parent
SKILLS_FILE = _HERE / "skills.jsonl"


@dataclass(frozen=True)
class Demo:
    """Where a demo's rows are."""

    name: str
    train: Path
    held_out: Path


def names() -> list[str]:
    """The demos that there are."""
    return sorted(path.name.removesuffix(".train.jsonl") for path in _HERE.glob("*.train.jsonl"))


def find(name: str, shape: Shape = "answers") -> Demo:
    """The demo of that name, where its rows of that shape are: pairs serve labels too. Raises DataError."""
    others = knowledge.sets()
    if name not in names() and name not in others:
        raise DataError(f"there is no demo called {name!r}", f"The demos are: {', '.join(names())}.", where="data.demo")
    known = knowledge.pairs()
    # What pairs are made for is asked of their prompts too.
    if name in others and (shape == "answers" or name not in known):
        return Demo(name, *(_HERE / others[name]["files"][part] for part in ("train", "held_out")))
    if shape in ("answers", "prompts") and name not in others:
        return Demo(name, _HERE / f"{name}.train.jsonl", _HERE / f"{name}.held_out.jsonl")
    if name not in known:
        advice = f"Demos with pairs: {', '.join(known)}. Or bring pairs of your own."
        raise DataError(f"the demo {name} has no pairs of a better and a worse answer", advice, where="data.demo")
    return Demo(name, *(_HERE / known[name]["files"][part] for part in ("train", "held_out")))
