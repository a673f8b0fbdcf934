"""How the database came to its present shape: named functions, run once each, in order, and recorded.

A migration that has been released is never changed; a new one is added below it. Knows only DDL and the two dialects.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from sqlalchemy import Connection, inspect, select

from engine.errors import StorageError
from engine.store import schema

# Any number does, as long as every process that migrates the same PostgreSQL database uses the same.
_ADVISORY_LOCK = 7_465_616_368


def m001_first_tables(connection: Connection) -> None:
    """Jobs with their attempts, metrics, samples, checkpoints and events; models."""
    row_id = "BIGSERIAL PRIMARY KEY" if connection.dialect.name == "postgresql" else "INTEGER PRIMARY KEY"
    of_a_job = f"id {row_id}, job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, attempt INTEGER NOT NULL"
    number = "DOUBLE PRECISION"
    _run(
        connection,
        f"""CREATE TABLE jobs (
            id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, method TEXT NOT NULL, base_model TEXT NOT NULL,
            endpoint TEXT NOT NULL, recipe TEXT NOT NULL, state TEXT NOT NULL, stage TEXT NOT NULL DEFAULT '',
            step INTEGER NOT NULL DEFAULT 0, total_steps INTEGER NOT NULL DEFAULT 0, attempt INTEGER NOT NULL DEFAULT 1,
            tokens BIGINT NOT NULL DEFAULT 0, training_seconds {number} NOT NULL DEFAULT 0, created_at {number} NOT NULL,
            started_at {number}, finished_at {number}, heartbeat_at {number}, lease_owner TEXT, lease_until {number},
            control TEXT, error TEXT, result TEXT)""",
        "CREATE INDEX jobs_newest ON jobs (owner, created_at)",
        "CREATE INDEX jobs_state ON jobs (state, created_at)",
        f"""CREATE TABLE attempts (
            job_id TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE, attempt INTEGER NOT NULL, start_step INTEGER NOT NULL,
            end_step INTEGER, started_at {number} NOT NULL, ended_at {number}, why TEXT NOT NULL, ended TEXT,
            PRIMARY KEY (job_id, attempt))""",
        f"CREATE TABLE metrics ({of_a_job}, step INTEGER NOT NULL, name TEXT NOT NULL, value {number}, at {number} NOT NULL)",
        "CREATE UNIQUE INDEX metrics_once ON metrics (job_id, name, step, attempt)",
        "CREATE INDEX metrics_newest ON metrics (job_id, id)",
        f"""CREATE TABLE samples ({of_a_job}, step INTEGER NOT NULL, position INTEGER NOT NULL, prompt TEXT NOT NULL,
            expected TEXT, answer TEXT NOT NULL, correct BOOLEAN)""",
        "CREATE UNIQUE INDEX samples_once ON samples (job_id, step, position, attempt)",
        f"""CREATE TABLE checkpoints ({of_a_job}, step INTEGER NOT NULL, kind TEXT NOT NULL, path TEXT NOT NULL,
            reason TEXT NOT NULL, loop_state TEXT NOT NULL, renderer TEXT NOT NULL, at {number} NOT NULL)""",
        "CREATE INDEX checkpoints_newest ON checkpoints (job_id, kind, id)",
        f"CREATE TABLE events ({of_a_job}, at {number} NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL)",
        "CREATE INDEX events_newest ON events (job_id, id)",
        f"""CREATE TABLE models (
            id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, job_id TEXT REFERENCES jobs(id) ON DELETE SET NULL,
            base_model TEXT NOT NULL, endpoint TEXT NOT NULL, sampler_path TEXT NOT NULL, weights_path TEXT NOT NULL,
            renderer TEXT NOT NULL, system_prompt TEXT NOT NULL, stop TEXT NOT NULL, proof TEXT, created_at {number} NOT NULL)""",
        "CREATE UNIQUE INDEX models_name ON models (owner, name)",
        "CREATE INDEX models_job ON models (job_id)",
    )


def m002_conversations_and_notes(connection: Connection) -> None:
    """Chats of the Playground with their turns; what people note of a model."""
    row_id = "BIGSERIAL PRIMARY KEY" if connection.dialect.name == "postgresql" else "INTEGER PRIMARY KEY"
    _run(
        connection,
        """CREATE TABLE conversations (
            id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, setup TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL, updated_at DOUBLE PRECISION NOT NULL)""",
        "CREATE INDEX conversations_newest ON conversations (owner, updated_at)",
        f"""CREATE TABLE turns (
            id {row_id}, conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
            prompt TEXT NOT NULL, answers TEXT NOT NULL, at DOUBLE PRECISION NOT NULL)""",
        "CREATE INDEX turns_of ON turns (conversation_id, id)",
        "ALTER TABLE models ADD COLUMN notes TEXT NOT NULL DEFAULT ''",
    )


def m003_drafts_and_presets(connection: Connection) -> None:
    """What the wizard keeps until it is launched, and named settings."""
    number = "DOUBLE PRECISION"
    _run(
        connection,
        f"CREATE TABLE drafts (owner TEXT PRIMARY KEY, content TEXT NOT NULL, updated_at {number} NOT NULL)",
        f"""CREATE TABLE presets (
            id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, changes TEXT NOT NULL, created_at {number} NOT NULL)""",
        "CREATE UNIQUE INDEX presets_name ON presets (owner, name)",
    )


def m004_data_library(connection: Connection) -> None:
    """Data sets that people keep."""
    _run(
        connection,
        """CREATE TABLE datasets (
            id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, file TEXT NOT NULL, digest TEXT NOT NULL,
            format TEXT NOT NULL, mapping TEXT NOT NULL, state TEXT NOT NULL, stats TEXT NOT NULL, error TEXT,
            bytes BIGINT NOT NULL, created_at DOUBLE PRECISION NOT NULL)""",
        "CREATE UNIQUE INDEX datasets_name ON datasets (owner, name)",
        "CREATE INDEX datasets_digest ON datasets (owner, digest)",
    )


def m005_settings_and_talks(connection: Connection) -> None:
    """What each person chose or saw, by name; conversations with the assistant, as JSON."""
    _run(
        connection,
        "CREATE TABLE settings (owner TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (owner, name))",
        """CREATE TABLE talks (
            id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, state TEXT NOT NULL, turns TEXT NOT NULL,
            created_at DOUBLE PRECISION NOT NULL, updated_at DOUBLE PRECISION NOT NULL)""",
        "CREATE INDEX talks_newest ON talks (owner, updated_at)",
    )


def m006_corrections(connection: Connection) -> None:
    """What a model's run went on from; answers that people corrected, and the lessons that models were given of them."""
    number = "DOUBLE PRECISION"
    chat = "conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE"
    _run(
        connection,
        "ALTER TABLE models ADD COLUMN parent TEXT NOT NULL DEFAULT ''",
        f"""CREATE TABLE lessons (
            id TEXT PRIMARY KEY, owner TEXT NOT NULL, {chat}, job_id TEXT NOT NULL, taught TEXT NOT NULL, learned TEXT NOT NULL,
            state TEXT NOT NULL, cases TEXT NOT NULL, error TEXT, created_at {number} NOT NULL, ended_at {number})""",
        "CREATE INDEX lessons_of ON lessons (conversation_id, created_at)",
        f"""CREATE TABLE corrections (
            id TEXT PRIMARY KEY, owner TEXT NOT NULL, {chat}, turn_id BIGINT NOT NULL, side INTEGER NOT NULL, speaker TEXT NOT NULL,
            messages TEXT NOT NULL, answer TEXT NOT NULL, correction TEXT NOT NULL, lesson_id TEXT, created_at {number} NOT NULL,
            updated_at {number} NOT NULL)""",
        "CREATE INDEX corrections_of ON corrections (conversation_id, created_at)",
    )


def m007_ratings(connection: Connection) -> None:
    """Answers that people found good or bad."""
    number = "DOUBLE PRECISION"
    _run(
        connection,
        f"""CREATE TABLE ratings (
            id TEXT PRIMARY KEY, owner TEXT NOT NULL,
            conversation_id TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE, turn_id BIGINT NOT NULL, side INTEGER NOT NULL,
            speaker TEXT NOT NULL, messages TEXT NOT NULL, answer TEXT NOT NULL, good BOOLEAN NOT NULL, created_at {number} NOT NULL,
            updated_at {number} NOT NULL)""",
        "CREATE INDEX ratings_of ON ratings (conversation_id, turn_id, side)",
        "CREATE INDEX ratings_newest ON ratings (owner, updated_at)",
    )


def m008_launch_tokens(connection: Connection) -> None:
    """What a run was launched from, so that the same proposal or draft becomes one run only; NULL for all that came from nothing such."""
    _run(
        connection,
        "ALTER TABLE jobs ADD COLUMN token TEXT",
        "CREATE UNIQUE INDEX jobs_token ON jobs (owner, token)",
    )


def m009_rehearsals(connection: Connection) -> None:
    """Recipes that were tried out small, and what came of it."""
    number = "DOUBLE PRECISION"
    _run(
        connection,
        f"""CREATE TABLE rehearsals (
            id TEXT PRIMARY KEY, owner TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL, files TEXT NOT NULL, recipe TEXT NOT NULL,
            state TEXT NOT NULL, process TEXT NOT NULL, report TEXT NOT NULL, created_at {number} NOT NULL, ended_at {number})""",
        "CREATE INDEX rehearsals_of ON rehearsals (owner, digest, created_at)",
        "CREATE INDEX rehearsals_newest ON rehearsals (owner, created_at)",
    )


def m010_keeping(connection: Connection) -> None:
    """Which checkpoints are kept for good, how big they are; what a run does just now that can be skipped."""
    _run(
        connection,
        "ALTER TABLE checkpoints ADD COLUMN pinned BOOLEAN NOT NULL DEFAULT FALSE",
        "ALTER TABLE checkpoints ADD COLUMN bytes BIGINT",
        "ALTER TABLE jobs ADD COLUMN skips TEXT NOT NULL DEFAULT ''",
    )


MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    m001_first_tables,
    m002_conversations_and_notes,
    m003_drafts_and_presets,
    m004_data_library,
    m005_settings_and_talks,
    m006_corrections,
    m007_ratings,
    m008_launch_tokens,
    m009_rehearsals,
    m010_keeping,
)


def pending(connection: Connection) -> list[Callable[[Connection], None]]:
    """The migrations still to run. Raises StorageError for a database that a newer version has written."""
    if not inspect(connection).has_table("migrations"):
        return list(MIGRATIONS)
    done = set(connection.scalars(select(schema.migrations.c.name)))
    unknown = sorted(done - {migration.__name__ for migration in MIGRATIONS})
    if unknown:
        raise StorageError(
            f"The database was written by a newer version of Thinker (it has {', '.join(unknown)}).",
            "Update Thinker, or set THINKER_HOME or THINKER_DATABASE_URL to another place.",
        )
    return [migration for migration in MIGRATIONS if migration.__name__ not in done]


def migrate(connection: Connection) -> None:
    """Runs what is pending inside the caller's write transaction: all of it or nothing, and only one process at a time."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
    waiting = pending(connection)
    schema.migrations.create(connection, checkfirst=True)
    for migration in waiting:
        migration(connection)
        connection.execute(schema.migrations.insert().values(name=migration.__name__, at=time.time()))


def _run(connection: Connection, *statements: str) -> None:
    for statement in _stripped(statements):
        connection.exec_driver_sql(statement)


def _stripped(statements: Iterable[str]) -> Iterable[str]:
    return (" ".join(statement.split()) for statement in statements)
