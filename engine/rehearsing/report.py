"""What a rehearsal looked at, one by one: ticks, warnings, failures; told to whoever listens. Knows nothing of what is looked at."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from engine.errors import EngineError

State = Literal["ok", "care", "failed", "skipped", "running"]


@dataclass(frozen=True)
class Check:
    """One thing. `text` is what was found, `advice` what to do, `where` the field or row; `stage` counts from 1, 0 is the whole recipe."""

    name: str
    title: str
    state: State
    text: str = ""
    advice: str = ""
    where: str = ""
    stage: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Found:
    """What came of a look."""

    text: str
    state: State = "ok"
    advice: str = ""
    where: str = ""


class Stopped(Exception):
    """Somebody doesn't want it any more."""


@dataclass
class Report:
    """`rendered`: rows as the recipe's own model is shown them; `steps`: tokens and seconds an update; `rewards`: what tries scored.

    `told` is given the whole after each change, as plain values; what it raises ends the rehearsal.
    """

    told: Callable[[dict[str, Any]], None] = lambda values: None
    model: str = ""
    checks: list[Check] = field(default_factory=list)
    rendered: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    rewards: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failures(self) -> list[Check]:
        """What would keep the run from doing what it should."""
        return [check for check in self.checks if check.state == "failed"]

    def look(self, name: str, title: str, work: Callable[[], Found], stage: int = 0) -> bool:
        """Does one look and notes what came of it. -> whether it may go on from there."""
        check = Check(name, title, "running", stage=stage)
        self._put(check)
        began = time.monotonic()
        try:
            found = work()
        except Stopped:
            raise
        except EngineError as error:
            found = Found(error.message, "failed", error.next_step, error.where)
        except Exception as error:
            found = Found(f"{type(error).__name__}: {error}", "failed", "This wasn't expected; the log has the whole story.")
        self._put(_with(check, found, time.monotonic() - began))
        return found.state != "failed"

    def note(self, name: str, title: str, found: Found, stage: int = 0, seconds: float = 0.0) -> None:
        """Something that is known already."""
        self._put(_with(Check(name, title, found.state, stage=stage), found, seconds))

    def tell(self) -> None:
        """Says how things stand."""
        self.told(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        parts = {name: getattr(self, name) for name in ("model", "rendered", "steps", "rewards", "answers")}
        return parts | {"checks": [asdict(check) for check in self.checks]}

    def _put(self, check: Check) -> None:
        places = [place for place, known in enumerate(self.checks) if (known.name, known.stage) == (check.name, check.stage)]
        if places:
            self.checks[places[0]] = check
        else:
            self.checks.append(check)
        self.tell()


def checks(report: dict[str, Any]) -> list[Check]:
    """Those of a report that was kept."""
    return [Check(**values) for values in report.get("checks", [])]


def _with(check: Check, found: Found, seconds: float) -> Check:
    return replace(check, state=found.state, text=found.text, advice=found.advice, where=found.where, seconds=round(seconds, 2))
