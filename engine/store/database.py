"""The connection to SQLite or PostgreSQL: transactions, migrations on opening, failures as StorageError.

Knows nothing of what is in the tables.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event, func, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from engine import paths
from engine.errors import StorageError
from engine.store import migrations

_BUSY_S = 30.0
_JUMP_S = 1.0
_UNSETTLED_S = 7.5  # by then whoever lives has renewed its lease
_NAMES = 7_465_616_369  # a seed, so that these locks are no others'


class Database:
    """Opens (and where need be migrates) the database at `url`; by default the one the environment names."""

    def __init__(self, url: str | None = None, *, clock: Callable[[], float] | None = None):
        self._url = _resolve(url)
        self.postgres = self._url.get_backend_name() == "postgresql"
        if self.postgres:
            self._engine = create_engine(self._url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
        else:
            self._engine = create_engine(self._url, connect_args={"timeout": _BUSY_S, "check_same_thread": False})
            event.listen(self._engine, "connect", _set_up_sqlite)
            event.listen(self._engine, "begin", _begin_sqlite)
        self._writer = self._engine.execution_options(thinker_writes=True)
        self._clock, self._own_clock = clock or time.time, clock is None
        self._offset, self._skew, self._jumped_at = 0.0, _skew(), -math.inf
        self._open()
        if self.postgres and self._own_clock:
            self._set_by_database()

    @property
    def url(self) -> str:
        """Where the database is, without its password."""
        return self._url.render_as_string(hide_password=True)

    def now(self) -> float:
        """Unix seconds by the clock that leases go by."""
        if self._own_clock and abs(_skew() - self._skew) > _JUMP_S:
            self._follow_clock()
        return self._clock() + self._offset

    def settled_now(self) -> float | None:
        """The same; None for some seconds after the clock was set or the machine woke up, when each lease looks run out."""
        now = self.now()
        return now if time.monotonic() - self._jumped_at > _UNSETTLED_S else None

    def _follow_clock(self) -> None:
        skew = _skew()
        moved, self._skew, self._jumped_at = skew - self._skew, skew, time.monotonic()
        if self.postgres:
            self._offset -= moved
            # It may have slept as well.
            with suppress(StorageError):
                self._set_by_database()

    def _set_by_database(self) -> None:
        """Leases are compared between machines, whose clocks may differ: the database's clock decides."""
        with self.read() as connection:
            answer = connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one()
        self._offset = float(answer) - time.time()

    def close(self) -> None:
        """Lets the connections go; a later call opens new ones."""
        self._engine.dispose()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view for reading; never waits for writers."""
        with self._plain_errors(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that takes its turn among writers at once, so that it can't fail half-way for having read first."""
        with self._plain_errors(), self._writer.begin() as connection:
            yield connection

    def hold(self, connection: Connection, name: str) -> None:
        """Until the transaction ends, nobody else who holds this name goes on. SQLite has one writer at a time anyway."""
        if self.postgres:
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, _NAMES))))

    def insert_new(self, table: Any) -> Any:
        """An insert that passes over rows which are there already."""
        dialect = postgresql if self.postgres else sqlite
        return dialect.insert(table).on_conflict_do_nothing()

    def _open(self) -> None:
        with self.read() as connection:
            waiting = migrations.pending(connection)
        if waiting:
            with self.write() as connection:
                migrations.migrate(connection)

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
            raise StorageError(f"The database refused: {reason}.", _advice(reason, self.postgres), where=self.url) from error
        except PoolTimeout as error:
            raise StorageError("The database is too busy.", "Try again in a moment.", where=self.url) from error


def _skew() -> float:
    """Changes where the clock is set, and where the machine sleeps."""
    return time.time() - time.monotonic()


def to_json(value: Any) -> str | None:
    """JSON text for a column; None stays None."""
    return None if value is None else json.dumps(value, ensure_ascii=False)


def from_json(text: str | None) -> Any:
    """What `to_json` wrote."""
    return None if text is None else json.loads(text)


def _resolve(url: str | None) -> URL:
    url = url or os.environ.get("THINKER_DATABASE_URL")
    if not url:
        return URL.create("sqlite", database=str(paths.home() / "thinker.db"))
    try:
        parsed = make_url(url)
        backend = {"postgres": "postgresql"}.get(parsed.drivername, parsed.drivername)
        if backend.split("+")[0] == "postgresql":
            return parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            return parsed
    except (ArgumentError, NoSuchModuleError):
        pass
    raise StorageError(
        "THINKER_DATABASE_URL names no database that Thinker can use.",
        "Use postgresql://USER:PASSWORD@HOST/NAME or sqlite:////FULL/PATH.db, or leave it unset.",
    )


def _advice(reason: str, postgres: bool) -> str:
    reason = reason.lower()
    if "full" in reason or "no space" in reason:
        return "Free some disk space; what was saved before is intact."
    if "locked" in reason:
        return "Another program holds the database; close it and try again."
    if "not a database" in reason or "malformed" in reason:
        return "The file is damaged or no database: move it away and restore a copy."
    if "readonly" in reason or "read-only" in reason or "unable to open" in reason:
        return "Check that you may write to the data directory (THINKER_HOME)."
    return "Check that PostgreSQL runs and that THINKER_DATABASE_URL is right." if postgres else "Try again; if it stays, see the log file."


def _set_up_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_S * 1000)}")
    deadline = time.monotonic() + _BUSY_S
    # The switch to WAL doesn't honour the busy time-out when two processes make the file at once.
    while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("thinker_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
