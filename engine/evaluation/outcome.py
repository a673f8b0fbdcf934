"""What a proof says, number by number, whatever the method: before, after, and whether that is better. Reads results as they are stored;
knows no method by name and no screen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine import knowledge
from engine.amounts import measure
from engine.errors import NotFound
from engine.evaluation.winrate import WinRate

FIRST = ("exact_match", "reward", "preference_accuracy", "held_out_preference_accuracy", "agreement")
"""What a proof is first of all judged by, where it has it."""
LEFT_OUT = frozenset({"count", "exact_match_low", "exact_match_high", "loss"})
CLOSE = {"share": 0.005}
"""Differences below this are none; of anything but shares, below a two-hundredth."""


@dataclass(frozen=True)
class Measured:
    """One number of the proof. `before` is None for what could only be measured after; `better` is up, down or neither."""

    name: str
    title: str
    unit: str
    better: str
    before: float | None
    after: float

    @property
    def gain(self) -> float | None:
        """By how much it got better, in its own unit: below 0 it got worse. None where that can't be said."""
        if self.before is None or self.better == "neither":
            return None
        return self.after - self.before if self.better == "up" else self.before - self.after

    @property
    def called(self) -> str:
        """Its name within a sentence."""
        return "right answers" if self.name == "exact_match" else self.title.lower()

    @property
    def was(self) -> str:
        """Before, in words."""
        return "–" if self.before is None else measure(self.before, self.unit)

    @property
    def now(self) -> str:
        """After, in words."""
        return measure(self.after, self.unit)

    @property
    def changed(self) -> bool:
        """Whether before and after are apart by more than can be told from nothing."""
        return self.gain is not None and abs(self.gain) >= CLOSE.get(self.unit, 0.005 * max(abs(self.before or 0.0), 1e-9))


def numbers(result: Mapping[str, Any] | None) -> list[Measured]:
    """All numbers of a proof on held-out prompts, the most telling first; none where nothing was proven."""
    held_out = (result or {}).get("held_out") or {}
    before, after = held_out.get("before") or {}, held_out.get("after") or {}
    kept = {name: value for name, value in after.items() if name not in LEFT_OUT and _number(value)}
    ahead = [name for name in FIRST if name in kept]
    found = []
    for name in [*ahead, *(name for name in kept if name not in ahead)]:
        old = before.get(name)
        found.append(measured(name, old if _number(old) else None, kept[name]))
    return found


def measured(name: str, before: float | None, after: float) -> Measured:
    """One number by its metric's name; of what nobody described neither way is better."""
    return Measured(name, *_about(name), before, after)


def headline(result: Mapping[str, Any] | None) -> Measured | None:
    """The one number that says whether it got better: right answers where there are any to compare with, else the method's own score."""
    found = [one for one in numbers(result) if one.gain is not None]
    # Where the right answers are known but nothing is ever exactly right, a score of the method's own tells more.
    if len(found) > 1 and found[0].name == "exact_match" and found[1].name in FIRST and found[0].after == found[0].before == 0:
        return found[1]
    return next((one for one in found if one.name in FIRST), found[0] if found else None)


def count(result: Mapping[str, Any] | None) -> int:
    """How many held-out prompts were answered; 0 where that isn't known."""
    held_out = (result or {}).get("held_out") or {}
    return int((held_out.get("after") or {}).get("count") or (result or {}).get("asked") or 0)


def wins(result: Mapping[str, Any] | None) -> WinRate | None:
    """How often its answers are better than those of what its last stage began with; None where nobody judged."""
    found = (result or {}).get("win_rate") or {}
    return WinRate.of(found) if found.get("count") else None


def judged(result: Mapping[str, Any] | None) -> WinRate | None:
    """The same by a judge alone: by right answers it says nothing that their share doesn't."""
    exact = ((result or {}).get("win_rate") or {}).get("judge") in (None, [], ["exact"])
    return None if exact else wins(result)


def short(result: Mapping[str, Any] | None) -> str:
    """The proof in a few words: "right answers 0 % → 96.5 %", "score 0.24 → 0.88, wins 74 %"; empty without one."""
    found, won = headline(result), judged(result)
    said = [f"{found.called} {found.was} → {found.now}"] if found else []
    return ", ".join(said + ([f"wins {100 * won.rate:.0f} %"] if won else []))


def wins_sentence(result: Mapping[str, Any] | None) -> str:
    """The same in words: how often, what is sure, by which judge. Says why where the judge failed; empty where there was none."""
    about = (result or {}).get("win_rate") or {}
    if problem := about.get("problem"):
        return f"Which answers are better couldn't be told: {problem}"
    found = wins(result)
    if found is None:
        return ""
    low, high = math.floor(100 * found.low), math.ceil(100 * found.high)
    sure = {
        "better": f"surely more than {low} %",
        "worse": f"surely less than {high} %, so it got worse",
        "open": f"which may be chance: {low} to {high} %",
    }[found.surely]
    other = "the model that its last stage began with" if about.get("against") == "stage" else "the start model"
    judge = " + ".join(about.get("judge") or ["exact"])
    unjudged = f"; of {left:,} more an answer couldn't be scored" if (left := about.get("unjudged")) else ""
    return (
        f"Wins {100 * found.rate:.0f} % against {other} by {judge}, {sure} "
        f"({found.wins:,} answers better, {found.ties:,} as good, {found.losses:,} worse; those as good count half{unjudged})."
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _about(name: str) -> tuple[str, str, str]:
    try:
        known = knowledge.metric(name)
    except NotFound:
        return name.replace("_", " ").replace("/", " · "), "", "neither"
    return known["title"], known["unit"], known["better"]
