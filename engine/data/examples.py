"""What the data package deals in: an Example, a Problem with a row, the Report on a file. Knows nothing of files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Message = dict[str, str]
Kind = Literal["task", "replay"]


@dataclass
class Example:
    """A conversation that ends in the assistant's answer; `row` is where it stood in its file, counted from 1."""

    messages: list[Message]
    row: int
    kind: Kind = "task"
    rejected: str | None = None
    """A worse answer to the same prompt."""
    good: bool | None = None
    """Whether people found the answer good, where they were asked."""
    columns: dict[str, Any] = field(default_factory=dict)
    """The row's other columns."""

    @property
    def prompt(self) -> list[Message]:
        """All messages before the last answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The last answer."""
        return self.messages[-1]["content"]

    def prompts(self) -> Iterator[tuple[tuple[str, str], ...]]:
        """What precedes each assistant turn, in a form that can be compared and hashed."""
        said = tuple((message["role"], message["content"]) for message in self.messages)
        for place, (role, _) in enumerate(said):
            if role == "assistant":
                yield said[:place]


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


def with_system(messages: list[Message], system_prompt: str) -> list[Message]:
    """The messages, led by the system prompt unless they have a system message of their own."""
    if not system_prompt or any(message["role"] == "system" for message in messages):
        return messages
    return [{"role": "system", "content": system_prompt}, *messages]
