"""Answers that are programs, held against tests; and a person's own function. Both run shut off from everything (engine.sandbox)."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from engine.errors import RecipeError
from engine.recipe.methods import RewardPart
from engine.sandbox import Limits, Outcome, Program, Sandbox, Task
from engine.training.rewards import Grade, Rollout, Tools, references

FUNCTION = "reward"
ENTRY = "entry_point"
_FENCE = re.compile(r"```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
_PYTHON = ("python", "py", "python3", "")


class CodeTests:
    """The share of its row's tests that the answer's code passes, or 1 for all of them."""

    def __init__(self, part: RewardPart, tools: Tools | None):
        self._part, self._sandbox = part, Sandbox(limits=Limits(seconds=part.seconds))
        self._sandbox.start()

    def grade(self, rollouts: Sequence[Rollout]) -> list[Grade]:
        found: list[Grade | None] = [None] * len(rollouts)
        tasks: dict[int, Task] = {}
        cases: dict[int, list[tuple[str, str]]] = {}
        for place, rollout in enumerate(rollouts):
            code, tests = code_of(rollout.answer), self._tests(rollout)
            if isinstance(tests, Grade):
                found[place] = tests
            elif not code.strip():
                found[place] = Grade(0.0, "the answer holds no code")
            elif isinstance(tests, str):
                tasks[place] = Task(code, tests, str(rollout.columns.get(ENTRY) or ""))
            else:
                cases[place] = tests
        for place, outcome in zip(tasks, self._sandbox.test(list(tasks.values())), strict=True):
            found[place] = self._of_tests(outcome)
        self._put_to(cases, rollouts, found)
        return [grade or Grade(0.0) for grade in found]

    def close(self) -> None:
        self._sandbox.close()

    def _put_to(self, cases: dict[int, list[tuple[str, str]]], rollouts: Sequence[Rollout], found: list[Grade | None]) -> None:
        """Runs each program once for each of its inputs, and compares what it prints."""
        runs = [(place, Program(code_of(rollouts[place].answer), given)) for place, known in cases.items() for given, _ in known]
        outcomes = iter(self._sandbox.run([program for _, program in runs]))
        for place, known in cases.items():
            passed, note = 0, ""
            for number, (_, expected) in enumerate(known, 1):
                outcome = next(outcomes)
                right = outcome.fine and _lines(outcome.out) == _lines(expected)
                passed += right
                if not right and not note:
                    note = f"case {number}: " + (
                        outcome.problem or f"prints {outcome.out.strip()[:60]!r}, expected {expected.strip()[:60]!r}"
                    )
            found[place] = self._share(passed, len(known), note)

    def _tests(self, rollout: Rollout) -> str | list[tuple[str, str]] | Grade:
        """Python, or (input, output) pairs."""
        name = self._part.tests
        value = rollout.columns.get(name)
        if not value:
            known = ", ".join(map(str, rollout.columns)) or "none"
            return Grade(0.0, f"the row has no tests in a column {name!r} (it has: {known})", failed=True)
        if isinstance(value, str) and value.lstrip()[:1] in "[{":
            try:
                value = json.loads(value)
            except ValueError:
                pass
        if isinstance(value, dict) and {"inputs", "outputs"} <= value.keys():
            value = [{"input": given, "output": out} for given, out in zip(value["inputs"], value["outputs"], strict=False)]
        if isinstance(value, list) and value and all(isinstance(one, dict) and {"input", "output"} <= one.keys() for one in value):
            return [(_text(one["input"]), _text(one["output"])) for one in value]
        text = "\n".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
        try:
            compile(text, "<tests>", "exec")
        except (SyntaxError, ValueError) as error:
            return Grade(0.0, f"the row's tests aren't Python: {error}", failed=True)
        return text

    def _of_tests(self, outcome: Outcome) -> Grade:
        if not outcome.total and outcome.fine:
            return Grade(0.0, f"the row's {self._part.tests!r} hold no test: no assert, no function test_...", failed=True)
        return self._share(outcome.passed, outcome.total, outcome.problem)

    def _share(self, passed: int, total: int, note: str) -> Grade:
        if not total:
            return Grade(0.0, note)
        if passed < total:
            note = f"{passed} of {total} tests pass; {note}"
        return Grade(float(passed == total) if self._part.every_test else passed / total, note)


class Function:
    """Whatever number the person's own `def reward(prompt, answer, expected, row)` gives back.

    `expected` is the row's answer, or its column as it is; `row` holds the row's columns, and `messages`, `tokens` and `cut_off` of this
    answer.
    """

    def __init__(self, part: RewardPart, tools: Tools | None):
        try:
            compile(part.code, "<your function>", "exec")
        except (SyntaxError, ValueError) as error:
            line = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
            message = error.msg if isinstance(error, SyntaxError) else str(error)
            raise RecipeError(f"your function can't be read: {line}{message}", "Correct that line.", where="code") from error
        self._part, self._sandbox = part, Sandbox(limits=Limits(seconds=part.seconds))
        self._sandbox.start()

    def grade(self, rollouts: Sequence[Rollout]) -> list[Grade]:
        known = zip(rollouts, references(rollouts, self._part), strict=True)
        calls = [[one.question, one.answer, _plain(expected), self._row(one)] for one, expected in known]
        return [self._graded(outcome) for outcome in self._sandbox.call(self._part.code, FUNCTION, calls)]

    def close(self) -> None:
        self._sandbox.close()

    def _row(self, rollout: Rollout) -> dict[str, Any]:
        about = {"messages": list(rollout.prompt), "tokens": rollout.tokens, "cut_off": rollout.cut_off}
        return _plain({**{str(name): value for name, value in rollout.columns.items()}, **about})

    def _graded(self, outcome: Outcome) -> Grade:
        if not outcome.fine:
            return Grade(0.0, f"your function failed: {outcome.problem}", failed=True)
        if not isinstance(outcome.value, (bool, int, float)):
            said = "nothing (is there a return?)" if outcome.value is None else repr(outcome.value)[:60]
            return Grade(0.0, f"your function gave back {said}, not a number", failed=True)
        return Grade(float(outcome.value), outcome.out.strip()[:200])


def code_of(answer: str) -> str:
    """The code in an answer: the last fence of Python, else the last fence at all, else all of it."""
    fences = _FENCE.findall(answer)
    python = [code for language, code in fences if language.lower() in _PYTHON]
    return (python or [code for _, code in fences] or [answer])[-1]


def _plain(value: Any) -> Any:
    """As JSON has it; what it can't hold becomes text."""
    return json.loads(json.dumps(value, default=str))


def _lines(text: str) -> list[str]:
    """What is compared of a program's output: blanks at the ends of lines and of the whole don't matter."""
    return [line.rstrip() for line in text.strip().splitlines()]


def _text(value: Any) -> str:
    """Inputs are text, or lists of lines."""
    return "\n".join(map(str, value)) + "\n" if isinstance(value, (list, tuple)) else str(value)
