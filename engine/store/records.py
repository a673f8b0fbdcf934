"""What the store gives back: plain frozen records, detached from the database.

Times are unix seconds, UTC. Knows nothing of SQL.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from engine import paths
from engine.recipe import Recipe


class _Record:
    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Job(_Record):
    """One run of a recipe, and where it has got to."""

    id: str
    owner: str
    name: str
    method: str
    base_model: str
    endpoint: str
    recipe_json: str
    state: str
    stage: str
    step: int
    total_steps: int
    attempt: int
    tokens: int
    training_seconds: float
    created_at: float
    started_at: float | None
    finished_at: float | None
    heartbeat_at: float | None
    lease_owner: str | None
    lease_until: float | None
    control: str | None
    error: dict[str, Any] | None
    result: dict[str, Any] | None
    skips: str = ""
    """What it does just now that can be skipped; empty while there is nothing."""

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe it was launched with. Raises RecipeError if this version can't read it."""
        return Recipe.make(json.loads(self.recipe_json))

    @property
    def folder(self) -> Path:
        """The job's own folder."""
        return paths.job_folder(self.id)

    @property
    def fraction(self) -> float:
        """The share of its steps that is done, 0 to 1."""
        return min(1.0, self.step / self.total_steps) if self.total_steps else 0.0

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, the recipe as an object."""
        values = dataclasses.asdict(self)
        values["recipe"] = json.loads(values.pop("recipe_json"))
        return values


@dataclass(frozen=True)
class Attempt(_Record):
    """One stretch of a job in one runner's hands.

    `why` it began: start, resume (a person asked), recovery (its runner was gone), restart (its endpoint was gone).
    `ended`: the state it ended in, or lost when nobody was left to say so; None while it lasts.
    """

    job_id: str
    attempt: int
    start_step: int
    end_step: int | None
    started_at: float
    ended_at: float | None
    why: str
    ended: str | None


@dataclass(frozen=True)
class Metric(_Record):
    """One number of one step. `value` is nan where the run reported nan."""

    id: int
    job_id: str
    attempt: int
    step: int
    name: str
    value: float
    at: float


@dataclass(frozen=True)
class Sample(_Record):
    """What the model answered to a fixed prompt at some step."""

    id: int
    job_id: str
    attempt: int
    step: int
    position: int
    prompt: str
    expected: str | None
    answer: str
    correct: bool | None


@dataclass(frozen=True)
class Checkpoint(_Record):
    """A saved state: kind `weights` is for going on, `sampler_weights` for use. `loop_state` is the training loop's own.

    `pinned`: a person wants to keep it. `bytes`: what it takes where it lies; None where that isn't known.
    """

    id: int
    job_id: str
    attempt: int
    step: int
    kind: str
    path: str
    reason: str
    loop_state: dict[str, Any]
    renderer: str
    at: float
    pinned: bool = False
    bytes: int | None = None


@dataclass(frozen=True)
class Event(_Record):
    """A change of state or stage, in words."""

    id: int
    job_id: str
    attempt: int
    at: float
    kind: str
    text: str


@dataclass(frozen=True)
class Model(_Record):
    """A tuned model: where its weights are and how it wants to be spoken to."""

    id: str
    owner: str
    name: str
    job_id: str | None
    base_model: str
    endpoint: str
    sampler_path: str
    weights_path: str
    renderer: str
    system_prompt: str
    stop: list[str] = field(default_factory=list)
    proof: dict[str, Any] | None = None
    created_at: float = 0.0
    notes: str = ""
    parent: str = ""
    """What its run went on from: a model's id, JOB@STEP or a tinker:// path; empty where that was the bare base model."""


@dataclass(frozen=True)
class Conversation(_Record):
    """A chat that is kept. `setup` says with whom and how: it belongs to who chats."""

    id: str
    owner: str
    title: str
    setup: dict[str, Any]
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class Turn(_Record):
    """One prompt, and an answer by each who was asked: {speaker, name, text, finish, ...}."""

    id: int
    conversation_id: str
    prompt: str
    answers: list[dict[str, Any]]
    at: float


@dataclass(frozen=True)
class Correction(_Record):
    """An answer that a person corrected: what was asked (`messages`), what was said, and what should have been said.

    `lesson_id` is the lesson that taught it; None while it waits for one.
    """

    id: str
    owner: str
    conversation_id: str
    turn_id: int
    side: int
    speaker: str
    messages: list[dict[str, str]]
    answer: str
    correction: str
    lesson_id: str | None
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class Lesson(_Record):
    """Corrections taught to a model. `taught` answered before it, `learned` is the model that came of it.

    `state`: preparing, learning, learned, undone, failed. `cases`: {correction_id, messages, answer, correction, before, after}.
    """

    id: str
    owner: str
    conversation_id: str
    job_id: str
    taught: str
    learned: str
    state: str
    cases: list[dict[str, Any]]
    error: dict[str, Any] | None
    created_at: float
    ended_at: float | None


@dataclass(frozen=True)
class Preset(_Record):
    """Settings under a name: what to change in a recipe's recommended values."""

    id: str
    owner: str
    name: str
    changes: dict[str, Any]
    created_at: float


@dataclass(frozen=True)
class Rating(_Record):
    """An answer that a person found good or bad: what was asked (`messages`), what was said, and by whom (`speaker`)."""

    id: str
    owner: str
    conversation_id: str
    turn_id: int
    side: int
    speaker: str
    messages: list[dict[str, str]]
    answer: str
    good: bool
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class LibrarySet(_Record):
    """A data set that is kept. `state`: ready; check, as long as nobody has agreed to leave out the rows that can't be used; unmapped,
    where it isn't known which column is which (`error` says so). `stats` are the reader's counts."""

    id: str
    owner: str
    name: str
    file: str
    bytes: int
    digest: str
    format: str
    mapping: dict[str, str]
    state: str
    stats: dict[str, Any]
    error: dict[str, Any] | None
    created_at: float
    ships: bool = False
    """It comes with Thinker, and can't be changed."""

    @property
    def shape(self) -> Any:
        """What its rows say: answers, pairs, labels or prompts."""
        return self.stats.get("shape", "answers")

    @property
    def examples(self) -> int:
        """How many rows can be learned from."""
        return self.stats.get("examples", 0)

    @property
    def left_out(self) -> int:
        """How many can't."""
        return self.stats.get("problems", 0)


@dataclass(frozen=True)
class Talk(_Record):
    """A conversation with the assistant: its turns [{role, text, ...}] and what the assistant has understood so far."""

    id: str
    owner: str
    title: str
    state: dict[str, Any]
    turns: list[dict[str, Any]]
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class Rehearsal(_Record):
    """A recipe that was tried out small. `digest` is of the recipe, `files` of the state its files were in; `state` is running, passed
    (the stamp), checked (in order as far as could be told without learning), failed, stopped or lost; `process` is who does it:
    {pid, started_at}; `report` is engine.rehearsing.report's."""

    id: str
    owner: str
    name: str
    digest: str
    files: str
    recipe_json: str
    state: str
    process: dict[str, Any]
    report: dict[str, Any]
    created_at: float
    ended_at: float | None

    @cached_property
    def recipe(self) -> Recipe:
        """What was tried. Raises RecipeError if this version can't read it."""
        return Recipe.make(json.loads(self.recipe_json))

    @property
    def over(self) -> bool:
        """Whether it has come to an end."""
        return self.state != "running"
