"""What the data package deals in: an Example, a Problem with a row, the Report on a file. Knows nothing of files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Message = dict[str, str]
Kind = Literal["task", "replay"]
Shape = Literal["answers", "pairs", "labels", "prompts", "preferences"]
"""What rows say: an answer to learn, a better and a worse answer, an answer found good or bad, a prompt to be tried. What can be wanted
besides: preferences, which are pairs or labels."""
SHAPES: tuple[Shape, ...] = ("answers", "pairs", "labels", "prompts", "preferences")


@dataclass
class Example:
    """A conversation that ends in the assistant's answer, or in the prompt where there is none; `row` is where it stood in its file,
    counted from 1. In pairs the answer is the better one, in prompts what is expected, if it is known."""

    messages: list[Message]
    row: int
    kind: Kind = "task"
    rejected: str | None = None
    """A worse answer to the same prompt."""
    good: bool | None = None
    """Whether the answer was found good."""
    columns: dict[str, Any] = field(default_factory=dict)
    """What else the row said, by the names of its columns."""
    source: int = 0
    """Which of the recipe's sources it is from: 0 is the main one, the others are mixed in."""

    @property
    def answered(self) -> bool:
        """Whether there is an answer."""
        return self.messages[-1]["role"] == "assistant"

    @property
    def prompt(self) -> list[Message]:
        """All messages before the last answer."""
        return self.messages[:-1] if self.answered else self.messages

    @property
    def answer(self) -> str:
        """The last answer; empty where there is none."""
        return self.messages[-1]["content"] if self.answered else ""

    @property
    def expected(self) -> str:
        """The right answer, as far as it is known; empty where it isn't: an answer that was found bad is none."""
        return "" if self.good is False else self.answer

    def conversations(self) -> list[list[Message]]:
        """What a model is shown of it: one conversation, or of a pair both, the better one first."""
        if self.rejected is None:
            return [self.messages]
        return [self.messages, [*self.prompt, {"role": "assistant", "content": self.rejected}]]

    def prompts(self) -> Iterator[tuple[tuple[str, str], ...]]:
        """What precedes each assistant turn, in a form that can be compared and hashed; last the prompt itself."""
        said = tuple((message["role"], message["content"]) for message in self.messages)
        for place, (role, _) in enumerate(said):
            if role == "assistant":
                yield said[:place]
        if not self.answered:
            yield said


@dataclass
class Problem:
    """Why a row can't be used, and what to do. `unit` is what `row` counts: line (JSONL), item (JSON) or row (CSV)."""

    row: int
    field: str
    message: str
    fix: str
    unit: str = "line"

    @property
    def place(self) -> str:
        """Such as 'line 17, completion'."""
        return f"{self.unit} {self.row}" + (f", {self.field}" if self.field else "")

    def __str__(self) -> str:
        return f"{self.place}: {self.message}. {self.fix}"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return asdict(self)


@dataclass
class Report:
    """What a file holds: usable examples and, for every other row, the problem with it."""

    format: str
    examples: list[Example]
    problems: list[Problem]
    stats: dict[str, Any]
    mapping: dict[str, str] = field(default_factory=dict)
    """The column that was read for each standard field."""
    shape: Shape = "answers"
    notes: list[str] = field(default_factory=list)
    """How rows of another shape were read so that they serve."""


@dataclass
class DataSet:
    """What a run learns from and is proven on."""

    name: str
    train: list[Example]
    held_out: list[Example]
    problems: list[Problem]
    replay_count: int
    """How many of `train` are there so that older skills aren't forgotten."""
    skills: list[Example]
    """General skills that the base model has, to measure forgetting; empty where none are known for it."""
    shape: Shape = "answers"
    notes: list[str] = field(default_factory=list)
    """What people should know of how it was read."""
    shares: tuple[float, ...] = (1.0,)
    """How much of what is drawn comes from each source, the main one first."""

    @property
    def epoch(self) -> int:
        """How many rows are drawn until the main source has been gone through once."""
        counts = [0] * len(self.shares)
        for example in self.train:
            counts[example.source] += 1
        return sum(draws(counts, self.shares))


def draws(counts: Sequence[int], shares: Sequence[float]) -> list[int]:
    """How many rows of each source are drawn while the first is gone through once. A source without rows gives none."""
    main = counts[0]
    others = [max(1, round(main * share / shares[0])) if count and main else 0 for count, share in zip(counts, shares, strict=True)]
    return [main, *others[1:]]


def with_system(messages: list[Message], system_prompt: str) -> list[Message]:
    """The messages, led by the system prompt unless they have a system message of their own."""
    if not system_prompt or any(message["role"] == "system" for message in messages):
        return messages
    return [{"role": "system", "content": system_prompt}, *messages]
