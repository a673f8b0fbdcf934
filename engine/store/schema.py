"""The tables as queries see them. `migrations` makes them; a test holds the two together.

JSON is kept as text, so that both databases give back exactly what was written.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, MetaData, Table, TypeDecorator
from sqlalchemy import Text as PlainText

metadata = MetaData()


class Text(TypeDecorator):
    """Text of which the databases can keep every character: lone surrogates and, for PostgreSQL, NUL are replaced.

    Both come from prompts in people's files and from what models write.
    """

    impl = PlainText
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """What is written."""
        return value.replace("\0", "\ufffd").encode("utf-8", "replace").decode() if isinstance(value, str) else value


_Id = BigInteger().with_variant(Integer, "sqlite")

migrations = Table("migrations", metadata, Column("name", Text, primary_key=True), Column("at", Double))

jobs = Table(
    "jobs",
    metadata,
    Column("id", Text, primary_key=True),
    *(Column(name, Text) for name in ("owner", "name", "method", "base_model", "endpoint", "recipe", "state", "stage")),
    Column("step", Integer),
    Column("total_steps", Integer),
    Column("attempt", Integer),
    Column("tokens", BigInteger),
    *(Column(name, Double) for name in ("training_seconds", "created_at", "started_at", "finished_at", "heartbeat_at")),
    Column("lease_owner", Text),
    Column("lease_until", Double),
    *(Column(name, Text) for name in ("control", "error", "result", "token")),
    Column("skips", Text, default=""),
)

attempts = Table(
    "attempts",
    metadata,
    Column("job_id", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("start_step", Integer),
    Column("end_step", Integer),
    Column("started_at", Double),
    Column("ended_at", Double),
    Column("why", Text),
    Column("ended", Text),
)


def _of_a_job(name: str, *columns: Column) -> Table:
    return Table(
        name,
        metadata,
        Column("id", _Id, primary_key=True),
        Column("job_id", Text),
        Column("attempt", Integer),
        *columns,
    )


metrics = _of_a_job("metrics", Column("step", Integer), Column("name", Text), Column("value", Double), Column("at", Double))

samples = _of_a_job(
    "samples",
    Column("step", Integer),
    Column("position", Integer),
    *(Column(name, Text) for name in ("prompt", "expected", "answer")),
    Column("correct", Boolean),
)

checkpoints = _of_a_job(
    "checkpoints",
    Column("step", Integer),
    *(Column(name, Text) for name in ("kind", "path", "reason", "loop_state", "renderer")),
    Column("at", Double),
    Column("pinned", Boolean, default=False),
    Column("bytes", BigInteger),
)

events = _of_a_job("events", Column("at", Double), Column("kind", Text), Column("text", Text))

datasets = Table(
    "datasets",
    metadata,
    Column("id", Text, primary_key=True),
    *(Column(name, Text) for name in ("owner", "name", "file", "digest", "format", "mapping", "state", "stats", "error")),
    Column("bytes", BigInteger),
    Column("created_at", Double),
)

_MODEL_TEXTS = ("base_model", "endpoint", "sampler_path", "weights_path", "renderer", "system_prompt", "stop", "proof")
models = Table(
    "models",
    metadata,
    Column("id", Text, primary_key=True),
    *(Column(name, Text) for name in ("owner", "name", "job_id", *_MODEL_TEXTS)),
    Column("created_at", Double),
    *(Column(name, Text, default="") for name in ("notes", "parent")),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", Text, primary_key=True),
    *(Column(name, Text) for name in ("owner", "title", "setup")),
    *(Column(name, Double) for name in ("created_at", "updated_at")),
)

turns = Table(
    "turns",
    metadata,
    Column("id", _Id, primary_key=True),
    *(Column(name, Text) for name in ("conversation_id", "prompt", "answers")),
    Column("at", Double),
)

lessons = Table(
    "lessons",
    metadata,
    Column("id", Text, primary_key=True),
    *(Column(name, Text) for name in ("owner", "conversation_id", "job_id", "taught", "learned", "state", "cases", "error")),
    *(Column(name, Double) for name in ("created_at", "ended_at")),
)

corrections = Table(
    "corrections",
    metadata,
    Column("id", Text, primary_key=True),
    *(Column(name, Text) for name in ("owner", "conversation_id")),
    Column("turn_id", BigInteger),
    Column("side", Integer),
    *(Column(name, Text) for name in ("speaker", "messages", "answer", "correction", "lesson_id")),
    *(Column(name, Double) for name in ("created_at", "updated_at")),
)

ratings = Table(
    "ratings",
    metadata,
    Column("id", Text, primary_key=True),
    *(Column(name, Text) for name in ("owner", "conversation_id")),
    Column("turn_id", BigInteger),
    Column("side", Integer),
    *(Column(name, Text) for name in ("speaker", "messages", "answer")),
    Column("good", Boolean),
    *(Column(name, Double) for name in ("created_at", "updated_at")),
)

drafts = Table("drafts", metadata, Column("owner", Text, primary_key=True), Column("content", Text), Column("updated_at", Double))

presets = Table(
    "presets",
    metadata,
    Column("id", Text, primary_key=True),
    *(Column(name, Text) for name in ("owner", "name", "changes")),
    Column("created_at", Double),
)

settings = Table("settings", metadata, *(Column(name, Text, primary_key=True) for name in ("owner", "name")), Column("value", Text))

talks = Table(
    "talks",
    metadata,
    Column("id", Text, primary_key=True),
    *(Column(name, Text) for name in ("owner", "title", "state", "turns")),
    *(Column(name, Double) for name in ("created_at", "updated_at")),
)

rehearsals = Table(
    "rehearsals",
    metadata,
    Column("id", Text, primary_key=True),
    *(Column(name, Text) for name in ("owner", "name", "digest", "files", "recipe", "state", "process", "report")),
    *(Column(name, Double) for name in ("created_at", "ended_at")),
)
