"""Sandbox: programs, tests and functions in, outcomes out. Knows what is asked and how it ended; nothing of how it is shut off."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.errors import StateError
from engine.sandbox.process import Died, Process

End = Literal["done", "error", "time", "memory", "output", "died"]
_MOST_AT_ONCE = 8
# A function that overruns so often in a row will go on doing so.
_PATIENCE = 3
_WORDS = {
    "time": "it took longer than {seconds:g} seconds",
    "memory": "it needed more than {memory} MB of memory",
    "output": "it wrote more than {output} characters",
    "died": "the interpreter broke down",
}


@dataclass(frozen=True)
class Limits:
    """`seconds` of time for each program or call; bytes of memory, of what it writes, and of what it gives back."""

    seconds: float = 5.0
    memory: int = 1 << 30
    output: int = 1 << 16
    reply: int = 1 << 24


@dataclass(frozen=True)
class Program:
    """Run as a script; `stdin` is what it can read."""

    source: str
    stdin: str = ""


@dataclass(frozen=True)
class Task:
    """A program and its tests: Python with assert, functions test_..., a TestCase, or `def check(candidate)`, to which `entry` is
    handed unless the tests call it themselves."""

    source: str
    tests: str
    entry: str = ""


@dataclass(frozen=True)
class Outcome:
    """How it ended. `problem` says in words what went wrong, empty for `done`; `line` is the program's own, 0 if none is known.

    `value` is what a call gave back. `total` counts a task's tests, `passed` those that held; `failed` is the first that didn't.
    """

    end: End
    problem: str = ""
    line: int = 0
    value: Any = None
    out: str = ""
    err: str = ""
    seconds: float = 0.0
    total: int = 0
    passed: int = 0
    failed: str = ""

    @property
    def fine(self) -> bool:
        return self.end == "done"


@dataclass
class Sandbox:
    """Starts at the first use. `mechanism` picks one by name; by default the first of this machine that holds."""

    mechanism: str | None = None
    limits: Limits = field(default_factory=Limits)
    at_once: int = field(default_factory=lambda: max(1, min(_MOST_AT_ONCE, os.cpu_count() or 1)))

    def __post_init__(self) -> None:
        self._process: Process | None = None
        self._lock = threading.Lock()
        self._ids = itertools.count(1)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> str:
        """Brings it up if it isn't. -> the mechanism's name. Raises StateError where the machine has none."""
        with self._lock:
            return self._started().mechanism

    def run(self, programs: Sequence[Program], limits: Limits | None = None) -> list[Outcome]:
        """Each as a script of its own. Raises StateError where the machine has no sandbox."""
        limits = limits or self.limits
        jobs = [{"kind": "program", "source": program.source, "stdin": program.stdin} for program in programs]
        return [self._outcome(told, limits) for told in self._all(jobs, limits)]

    def test(self, tasks: Sequence[Task], limits: Limits | None = None) -> list[Outcome]:
        """Each with its tests. Raises StateError where the machine has no sandbox."""
        limits = limits or self.limits
        jobs = [{"kind": "tests", "source": task.source, "tests": task.tests, "entry": task.entry} for task in tasks]
        return [self._tested(told, limits) for told in self._all(jobs, limits)]

    def call(self, source: str, function: str, calls: Sequence[Sequence[Any]], limits: Limits | None = None) -> list[Outcome]:
        """What the function of this source gives back for each list of (JSON-ready) arguments; the source is run once for many calls.

        Calls know nothing of one another for certain: how many share a process isn't promised. Raises StateError.
        """
        limits = limits or self.limits
        found: list[Outcome | None] = [None] * len(calls)
        size = max(1, -(-len(calls) // self.at_once))
        open_ones = [list(range(at, min(at + size, len(calls)))) for at in range(0, len(calls), size)]
        overran = 0
        while open_ones:
            common = {"kind": "calls", "source": source, "function": function}
            told = self._all([{**common, "calls": [list(calls[place]) for place in places]} for places in open_ones], limits)
            left = []
            for places, one in zip(open_ones, told, strict=True):
                rest = self._called(places, one, limits, found)
                overran = overran + 1 if rest else 0
                left += [rest] if rest else []
            if overran >= _PATIENCE:
                for place in itertools.chain(*left):
                    found[place] = Outcome("time", f"not tried, for the function overran {overran} times in a row")
                left = []
            open_ones = left
        return [outcome for outcome in found if outcome is not None]

    def close(self) -> None:
        """Ends what runs. It starts anew if it is used again."""
        with self._lock:
            if self._process is not None:
                self._process.close()
                self._process = None

    def _started(self) -> Process:
        if self._process is None:
            self._process = Process(self.mechanism, self.at_once)
        return self._process

    def _all(self, jobs: Sequence[dict[str, Any]], limits: Limits) -> list[dict[str, Any]]:
        common = {"seconds": limits.seconds, "memory": limits.memory, "output": limits.output, "reply": limits.reply}
        asked = [{**job, **common, "id": next(self._ids)} for job in jobs]
        longest = limits.seconds * max((len(job.get("calls", ())) for job in jobs), default=1)
        found: dict[Any, dict[str, Any]] = {}
        with self._lock:
            for attempt in (1, 2):
                left = [job for job in asked if job["id"] not in found]
                if not left:
                    break
                try:
                    found |= self._started().ask(left, max(limits.seconds, longest))
                except Died as error:
                    # The machine may have run out of memory: once more, with what is still open.
                    found |= error.args[1]
                    self._process = None
                    if attempt == 2:
                        advice = "Give programs less memory or time, or the machine more."
                        raise StateError("the sandbox broke down twice over the same programs", advice, where="sandbox") from error
        return [found[job["id"]] for job in asked]

    def _outcome(self, told: dict[str, Any], limits: Limits, line: dict[str, Any] | None = None) -> Outcome:
        """How a process ended, or where `line` is given, what that says."""
        lines = told["lines"] if line is None else [line]
        common = {"out": told["out"], "err": told["err"], "seconds": told["seconds"]}
        if line and "value" in line:
            # It came before whatever ended the process.
            return Outcome("done", value=line["value"], **common)
        error = next((one["error"] for one in lines if "error" in one), None)
        if error and error["type"] == "MemoryError":
            return Outcome("memory", self._words("memory", limits), error["line"], **common)
        if error:
            message = f"{error['type']}: {error['message']}".rstrip(": ")
            return Outcome("error", f"line {error['line']}: {message}" if error["line"] else message, error["line"], **common)
        if told["end"] != "ended":
            return Outcome(told["end"], self._words(told["end"], limits), **common)
        if not lines:
            # It left without a word, by os._exit or the like.
            return Outcome("died", "it ended before it was done", **common)
        return Outcome("done", value=lines[-1].get("value"), **common)

    def _tested(self, told: dict[str, Any], limits: Limits) -> Outcome:
        lines = told["lines"]
        total = next((line["tests"] for line in lines if "tests" in line), 0)
        results = [line for line in lines if "passed" in line]
        passed = sum(bool(line["passed"]) for line in results)
        wrong = next((line for line in results if not line["passed"]), None)
        outcome = self._outcome(told, limits, next((line for line in lines if "error" in line and "passed" not in line), {}))
        common = {"out": outcome.out, "err": outcome.err, "seconds": outcome.seconds, "total": total, "passed": min(passed, total)}
        if wrong is not None:
            error = wrong["error"]
            said = f"{error['type']}: {error['message']}".rstrip(": ")
            problem = f"failed: {wrong['text']}" + ("" if said == "AssertionError" else f" ({said})")
            return Outcome("error", problem, error["line"], failed=wrong["text"], **common)
        if outcome.fine and len(results) < total:
            return Outcome("died", "it ended before its tests were done", **common)
        return Outcome(outcome.end, outcome.problem, outcome.line, **common)

    def _called(self, places: list[int], told: dict[str, Any], limits: Limits, found: list[Outcome | None]) -> list[int]:
        """Enters what came of these calls. -> those that are still to be made, for the one before them ended the process."""
        answered = {line["call"]: line for line in told["lines"] if "call" in line}
        if not answered and any("error" in line for line in told["lines"]):
            # The source itself, or the function's absence: the same for every call.
            for place in places:
                found[place] = self._outcome(told, limits)
            return []
        for number, place in enumerate(places):
            if number not in answered:
                found[place] = self._outcome({**told, "lines": []}, limits)
                return places[number + 1 :]
            found[place] = self._outcome(told, limits, answered[number])
        return []

    def _words(self, end: str, limits: Limits) -> str:
        return _WORDS[end].format(seconds=limits.seconds, memory=limits.memory >> 20, output=limits.output)


def available() -> str:
    """The mechanism that programs are shut off with here. Raises StateError, which says what to install, where there is none."""
    with Sandbox(at_once=1) as sandbox:
        return sandbox.start()
