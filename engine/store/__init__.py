"""The database and the artefact files: what is true about jobs and models.

`Store` is the way in. `schema` names the tables, `migrations` makes them, `records` are what comes out;
`artefacts` writes files that are either whole or absent. Knows nothing of training, servers or screens.
"""

from __future__ import annotations

from engine.store.conversations import ConversationQueries
from engine.store.datasets import DatasetQueries
from engine.store.jobs import JobQueries
from engine.store.lifecycle import LeaseLost
from engine.store.models import ModelQueries
from engine.store.overview import Overview
from engine.store.personal import PersonalQueries
from engine.store.ratings import RatingQueries
from engine.store.records import (
    Attempt,
    Checkpoint,
    Conversation,
    Correction,
    Event,
    Job,
    Lesson,
    LibrarySet,
    Metric,
    Model,
    Preset,
    Rating,
    Rehearsal,
    Sample,
    Talk,
    Turn,
)
from engine.store.rehearsals import RehearsalQueries
from engine.store.teaching import TeachingQueries
from engine.store.workbench import WorkbenchQueries


class Store(
    JobQueries,
    Overview,
    ModelQueries,
    ConversationQueries,
    WorkbenchQueries,
    DatasetQueries,
    PersonalQueries,
    TeachingQueries,
    RatingQueries,
    RehearsalQueries,
):
    """Everything that is remembered: SQLite at `paths.home()/thinker.db`, or PostgreSQL by `THINKER_DATABASE_URL`.

    Threads write, pages read; one Store may be shared by all threads of a process. Methods that a person's request
    reaches take `owner` and raise NotFound for what belongs to somebody else; `owner=None` means whoever's.
    Methods that a run calls take `attempt`, which changes with every claim: a run whose job was given to another gets
    LeaseLost and can't write any more. Every database failure is a StorageError.
    """


__all__ = [
    "Attempt",
    "Checkpoint",
    "Conversation",
    "Correction",
    "Event",
    "Job",
    "LeaseLost",
    "Lesson",
    "LibrarySet",
    "Metric",
    "Model",
    "Preset",
    "Rating",
    "Rehearsal",
    "Sample",
    "Store",
    "Talk",
    "Turn",
]
