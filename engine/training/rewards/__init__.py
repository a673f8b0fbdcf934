"""Rewards: what answers are scored by. One kind is one class that grades many answers at once; a Reward is the weighted sum of some.

    reward = make_reward(recipe.reward, tools)
    scores = reward.score(rollouts)      # Score(value, parts, note), one for each rollout
    reward.close()

Grading is never silent about what went wrong: an answer that a kind can't grade is marked `failed` and says why, and where that holds for
every answer it is an error. Knows neither the SDK nor torch; models are reached through `tools`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from engine import recipe
from engine.errors import RecipeError
from engine.recipe.methods import RewardPart

Message = dict[str, str]

_KINDS = {
    "exact": "matching:Exact",
    "normalised": "matching:Normalised",
    "contains": "matching:Contains",
    "regex": "matching:Regex",
    "numeric": "numbers:Numeric",
    "json_schema": "shape:JsonSchema",
    "length": "shape:Length",
    "code_tests": "programs:CodeTests",
    "python": "programs:Function",
    "judge": "judging:Judge",
    "reward_model": "judging:RewardModel",
}
ASKING = ("judge", "reward_model")
RUNNING = ("code_tests", "python")


@dataclass(frozen=True)
class Rollout:
    """An answer that was tried. `expected` is the row's own answer, `columns` what else it says; `cut_off`: it hit the length limit."""

    prompt: list[Message]
    answer: str
    expected: str = ""
    columns: dict[str, Any] = field(default_factory=dict)
    tokens: int = 0
    cut_off: bool = False

    @property
    def question(self) -> str:
        """What was said last before the answer."""
        return self.prompt[-1]["content"] if self.prompt else ""


@dataclass(frozen=True)
class Grade:
    """What one kind says of one answer. `failed`: it couldn't be graded, and counts 0."""

    value: float
    note: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Score:
    """`value` is the weighted sum, `parts` what each part said before its weight, `note` why."""

    value: float
    parts: dict[str, float]
    note: str = ""
    failed: bool = False


class Reward(Protocol):
    """What scores answers."""

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """One for each, in order. Raises EngineError."""

    def close(self) -> None:
        """Lets go of what it holds."""


class Tools(Protocol):
    """How models are reached: see asking.py."""

    def ask(self, model: str, url: str, prompts: Sequence[Sequence[Message]], *, max_tokens: int, temperature: float = 0.0) -> list[str]:
        """What the model says to each. Raises EngineError."""

    def odds(self, model: str, conversations: Sequence[Sequence[Message]], question: str) -> list[float]:
        """What a model thinks of the last answer of each conversation: the log-odds of yes (nats). A reward model is asked the question
        that it was trained with. Raises EngineError."""


class Kind(Protocol):
    """One way of grading. Made with (part, tools); says what is wrong with the part by a RecipeError."""

    def grade(self, rollouts: Sequence[Rollout]) -> list[Grade]:
        """One for each, in order. Raises EngineError."""

    def close(self) -> None:
        """Lets go of what it holds."""


class Plain:
    """A kind that looks at one answer at a time and holds nothing."""

    def __init__(self, part: RewardPart, tools: Tools | None):
        self.part = part

    def grade(self, rollouts: Sequence[Rollout]) -> list[Grade]:
        return [self.one(rollout) for rollout in rollouts]

    def one(self, rollout: Rollout) -> Grade:
        raise NotImplementedError

    def close(self) -> None:
        pass


class WeightedSum:
    """The parts of a recipe's reward."""

    def __init__(self, spec: recipe.Reward, tools: Tools | None, where: str = "recipe reward.parts"):
        self.labels = labels(spec.parts)
        self._weights = [part.weight for part in spec.parts]
        self._kinds: list[Kind] = []
        try:
            for number, part in enumerate(spec.parts):
                self._kinds.append(_made(part, tools, f"{where}.{number}"))
        except BaseException:
            self.close()
            raise

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        if not rollouts:
            return []
        graded = [kind.grade(rollouts) for kind in self._kinds]
        for label, grades in zip(self.labels, graded, strict=True):
            if all(grade.failed for grade in grades):
                raise RecipeError(
                    f"not one of {len(grades):,} answers could be scored: {grades[0].note}",
                    "Correct that part, or the column it reads, and test-run the reward.",
                    where=f"reward {label}",
                )
        return [self._sum([grades[place] for grades in graded]) for place in range(len(rollouts))]

    def close(self) -> None:
        for kind in self._kinds:
            kind.close()

    def _sum(self, grades: list[Grade]) -> Score:
        parts = {label: grade.value for label, grade in zip(self.labels, grades, strict=True)}
        value = sum(weight * grade.value for weight, grade in zip(self._weights, grades, strict=True))
        alone = len(grades) == 1
        notes = [grade.note if alone else f"{label}: {grade.note}" for label, grade in zip(self.labels, grades, strict=True) if grade.note]
        return Score(value, parts, "; ".join(notes), any(grade.failed for grade in grades))


def make_reward(spec: recipe.Reward, tools: Tools | None, where: str = "recipe reward.parts") -> WeightedSum:
    """The recipe's reward; without `tools` one that asks no model. `where` names the field that has the parts. Raises RecipeError where a
    part can't be used as it stands, StateError without what it needs of this machine."""
    if tools is None and needs_endpoint(spec):
        raise RecipeError("this reward asks other models, which can't be reached from here", "Leave those parts out.", where=where)
    return WeightedSum(spec, tools, where)


def needs_endpoint(spec: recipe.Reward) -> bool:
    """Whether it asks other models."""
    return any(part.kind in ASKING for part in spec.parts)


def needs_sandbox(spec: recipe.Reward) -> bool:
    """Whether it runs programs."""
    return any(part.kind in RUNNING for part in spec.parts)


def labels(parts: Sequence[RewardPart]) -> list[str]:
    """What each part is called in charts: its name, else its kind; numbered where that isn't enough."""
    found: list[str] = []
    for part in parts:
        wanted = label = part.name or part.kind
        number = 1
        while label in found:
            number += 1
            label = f"{wanted} {number}"
        found.append(label)
    return found


def wanted(rollout: Rollout, part: RewardPart) -> list[str] | Grade:
    """What is expected: the row's answer or its column, a list there being as many right answers. A failed grade where there is none."""
    value: Any = rollout.expected
    if part.expected:
        if part.expected not in rollout.columns:
            known = ", ".join(map(str, rollout.columns)) or "none"
            return Grade(0.0, f"the row has no column {part.expected!r} (it has: {known})", failed=True)
        value = rollout.columns[part.expected]
    found = [str(one) for one in value] if isinstance(value, (list, tuple)) else [str(value)]
    found = [one for one in found if one.strip()] if value is not None else []
    where = f"the row's {part.expected!r}" if part.expected else "the row's own answer"
    return found or Grade(0.0, f"nothing is expected: {where} is empty", failed=True)


def references(rollouts: Sequence[Rollout], part: RewardPart) -> list[Any]:
    """What is expected of each answer, as the row's answer or its column has it; None where a row has none. Raises RecipeError where no row
    has the column."""
    if not part.expected:
        return [rollout.expected for rollout in rollouts]
    if rollouts and not any(part.expected in rollout.columns for rollout in rollouts):
        known = ", ".join(map(str, rollouts[0].columns)) or "none"
        advice = f"The rows have: {known}. Choose one of them, or leave it empty."
        raise RecipeError(f"no row has a column {part.expected!r}", advice, where=f"reward {part.name or part.kind}")
    return [rollout.columns.get(part.expected) for rollout in rollouts]


def _made(part: RewardPart, tools: Tools | None, place: str) -> Kind:
    module, name = _KINDS[part.kind].split(":")
    try:
        return getattr(import_module(f"engine.training.rewards.{module}"), name)(part, tools)
    except RecipeError as error:
        raise RecipeError(error.message, error.next_step, where=f"{place}.{error.where}") from error
