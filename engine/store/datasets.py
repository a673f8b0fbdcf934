"""Data sets that are kept: named, found, deleted. Knows nothing of their files beyond the name that they came by."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from engine.errors import NotFound, StateError
from engine.store import schema
from engine.store.database import Database, from_json, to_json
from engine.store.jobs import as_job
from engine.store.records import Job, LibrarySet

datasets, jobs = schema.datasets, schema.jobs
_JSON = ("mapping", "stats", "error")


class DatasetQueries(Database):
    """The part of the Store that holds the library of data sets."""

    @staticmethod
    def new_dataset_id() -> str:
        """An id that no other has: the files are written under it before the database knows of them."""
        return secrets.token_hex(6)

    def add_dataset(self, dataset_id: str, name: str, *, owner: str = "local", **values: Any) -> LibrarySet:
        """Registers a data set whose files are in place: file, bytes, digest, format, mapping, state, stats, error.
        A name that is taken gets a number."""
        with self.write() as connection:
            if self.postgres:
                # Two that look for a free name at once would find the same one; SQLite's writers wait for each other anyway.
                connection.exec_driver_sql("LOCK TABLE datasets IN SHARE ROW EXCLUSIVE MODE")
            fresh = {"id": dataset_id, "owner": owner, "name": _free_name(connection, name, owner), "created_at": self.now()}
            connection.execute(datasets.insert().values(**fresh, **_columns(values)))
            return _dataset(_row(connection, dataset_id, owner))

    def datasets(self, owner: str | None = "local", search: str = "") -> list[LibrarySet]:
        """Newest first; those whose name or file holds `search`, whatever the case."""
        query = select(datasets).where(*_owned(owner)).order_by(datasets.c.created_at.desc(), datasets.c.id.desc())
        if search:
            query = query.where(datasets.c.name.icontains(search, autoescape=True) | datasets.c.file.icontains(search, autoescape=True))
        with self.read() as connection:
            return [_dataset(row) for row in connection.execute(query)]

    def dataset(self, dataset_id: str, owner: str | None = "local") -> LibrarySet:
        """Raises NotFound, also for somebody else's."""
        with self.read() as connection:
            return _dataset(_row(connection, dataset_id, owner))

    def dataset_with(self, digest: str, owner: str | None = "local") -> LibrarySet | None:
        """The one that holds these very bytes, if there is one."""
        query = select(datasets).where(datasets.c.digest == digest, *_owned(owner)).order_by(datasets.c.created_at).limit(1)
        with self.read() as connection:
            row = connection.execute(query).first()
        return _dataset(row) if row else None

    def set_dataset(self, dataset_id: str, owner: str | None = "local", **values: Any) -> LibrarySet:
        """Changes format, mapping, state, stats or error. Raises NotFound."""
        with self.write() as connection:
            found = _row(connection, dataset_id, owner)
            connection.execute(update(datasets).where(datasets.c.id == found.id).values(**_columns(values)))
            return _dataset(_row(connection, found.id, owner))

    def rename_dataset(self, dataset_id: str, name: str, owner: str | None = "local") -> LibrarySet:
        """Raises NotFound, and StateError if the name is taken."""
        with self.write() as connection:
            found = _row(connection, dataset_id, owner)
            taken = (datasets.c.owner == found.owner, datasets.c.name == name, datasets.c.id != found.id)
            if connection.execute(select(datasets.c.id).where(*taken)).first():
                raise StateError(f"There is a data set named {name} already.", "Choose another name.")
            connection.execute(update(datasets).where(datasets.c.id == found.id).values(name=name))
            return _dataset(_row(connection, found.id, owner))

    def delete_dataset(self, dataset_id: str, owner: str | None = "local") -> LibrarySet:
        """Forgets the data set and gives its last record back; its files are the caller's."""
        with self.write() as connection:
            found = _row(connection, dataset_id, owner)
            connection.execute(delete(datasets).where(datasets.c.id == found.id))
            return _dataset(found)

    def jobs_on_dataset(self, dataset_id: str, owner: str | None = "local", limit: int = 100) -> list[Job]:
        """The runs whose recipe names it, newest first."""
        named = jobs.c.recipe.contains(f'"dataset": {to_json(dataset_id)}', autoescape=True)
        query = select(jobs).where(named).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        with self.read() as connection:
            return [as_job(row) for row in connection.execute(query if owner is None else query.where(jobs.c.owner == owner))]


def _columns(values: dict[str, Any]) -> dict[str, Any]:
    return {name: to_json(value) if name in _JSON else value for name, value in values.items()}


def _owned(owner: str | None) -> list[Any]:
    return [] if owner is None else [datasets.c.owner == owner]


def _row(connection: Connection, dataset_id: str, owner: str | None) -> Row:
    row = connection.execute(select(datasets).where(datasets.c.id == dataset_id, *_owned(owner))).first()
    if row is None:
        raise NotFound(f"There is no data set {dataset_id}.", "Look in the library to see which there are.")
    return row


def _dataset(row: Row) -> LibrarySet:
    return LibrarySet(**{**row._mapping, **{name: from_json(row._mapping[name]) for name in _JSON}})


def _free_name(connection: Connection, name: str, owner: str) -> str:
    taken = set(connection.scalars(select(datasets.c.name).where(datasets.c.owner == owner)))
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate
