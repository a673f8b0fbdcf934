"""Tuned models: named, found, deleted. Knows nothing of their files beyond the paths."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, delete, or_, select, update

from engine.errors import NotFound, StateError
from engine.store import schema
from engine.store.database import Database, from_json, to_json
from engine.store.records import Model

models = schema.models


class ModelQueries(Database):
    """The part of the Store that holds tuned models."""

    def add_model(
        self,
        name: str,
        *,
        job_id: str | None,
        base_model: str,
        endpoint: str,
        sampler_path: str,
        weights_path: str = "",
        renderer: str,
        system_prompt: str = "",
        stop: Iterable[str] = (),
        proof: dict[str, Any] | None = None,
        parent: str = "",
        owner: str = "local",
    ) -> Model:
        """Registers a tuned model; `parent` is what its run went on from, as recipes name it.

        A name that is taken gets a number; the same job's same weights are registered once only.
        """
        values = {
            "base_model": base_model,
            "endpoint": endpoint,
            "weights_path": weights_path,
            "renderer": renderer,
            "system_prompt": system_prompt,
            "stop": to_json(list(stop)),
            "proof": to_json(proof),
            "parent": parent,
        }
        with self.write() as connection:
            if self.postgres:
                # Two that look for a free name at once would find the same one; SQLite's writers wait for each other anyway.
                connection.exec_driver_sql("LOCK TABLE models IN SHARE ROW EXCLUSIVE MODE")
            same = (models.c.owner == owner, models.c.job_id == job_id, models.c.sampler_path == sampler_path)
            known = connection.execute(select(models).where(*same)).first() if job_id else None
            if known:
                connection.execute(update(models).where(models.c.id == known.id).values(**values))
                return _model(_row(connection, known.id, owner))
            model_id = secrets.token_hex(6)
            fresh = {"id": model_id, "owner": owner, "name": _free_name(connection, name, owner), "job_id": job_id}
            connection.execute(models.insert().values(**fresh, sampler_path=sampler_path, created_at=self.now(), **values))
            return _model(_row(connection, model_id, owner))

    def models(self, owner: str | None = "local", job_id: str | None = None) -> list[Model]:
        """Newest first; those of one job if asked."""
        query = select(models).order_by(models.c.created_at.desc(), models.c.id.desc())
        if owner is not None:
            query = query.where(models.c.owner == owner)
        if job_id is not None:
            query = query.where(models.c.job_id == job_id)
        with self.read() as connection:
            return [_model(row) for row in connection.execute(query)]

    def model(self, name_or_id: str, owner: str | None = "local") -> Model:
        """By id, by name, or by the beginning of an id that only one has. Raises NotFound, also for somebody else's."""
        with self.read() as connection:
            return _model(_row(connection, name_or_id, owner))

    def rename_model(self, name_or_id: str, name: str, owner: str | None = "local") -> Model:
        """Raises NotFound, and StateError if the name is taken."""
        with self.write() as connection:
            found = _row(connection, name_or_id, owner)
            taken = (models.c.owner == found.owner, models.c.name == name, models.c.id != found.id)
            if connection.execute(select(models.c.id).where(*taken)).first():
                raise StateError(f"There is a model named {name} already.", "Choose another name.")
            connection.execute(update(models).where(models.c.id == found.id).values(name=name))
            return _model(_row(connection, found.id, owner))

    def set_proof(self, name_or_id: str, proof: dict[str, Any] | None, owner: str | None = "local") -> Model:
        """Keeps what was proven of the model."""
        with self.write() as connection:
            found = _row(connection, name_or_id, owner)
            connection.execute(update(models).where(models.c.id == found.id).values(proof=to_json(proof)))
            return _model(_row(connection, found.id, owner))

    def set_notes(self, name_or_id: str, notes: str, owner: str | None = "local") -> Model:
        """Keeps what a person wrote of the model."""
        with self.write() as connection:
            found = _row(connection, name_or_id, owner)
            connection.execute(update(models).where(models.c.id == found.id).values(notes=notes))
            return _model(_row(connection, found.id, owner))

    def weights_used(self, path: str, owner: str | None = None) -> int:
        """How many models stand on the weights of that path; of everybody's unless an owner is named."""
        query = select(models.c.id).where(or_(models.c.sampler_path == path, models.c.weights_path == path))
        with self.read() as connection:
            return len(connection.execute(query if owner is None else query.where(models.c.owner == owner)).all())

    def weights_of(self, path: str) -> list[tuple[str, str | None]]:
        """(owner, job id) of whoever has the weights of that path, as a run's checkpoint or as a model."""
        checkpoints, jobs = schema.checkpoints, schema.jobs
        saved = select(jobs.c.owner, jobs.c.id).join(checkpoints, checkpoints.c.job_id == jobs.c.id).where(checkpoints.c.path == path)
        kept = select(models.c.owner, models.c.job_id).where(or_(models.c.weights_path == path, models.c.sampler_path == path))
        with self.read() as connection:
            return [(owner, job_id) for query in (saved, kept) for owner, job_id in connection.execute(query)]

    def delete_model(self, name_or_id: str, owner: str | None = "local") -> Model:
        """Forgets the model and gives its last record back; its files are the caller's."""
        with self.write() as connection:
            found = _row(connection, name_or_id, owner)
            connection.execute(delete(models).where(models.c.id == found.id))
            return _model(found)


def _row(connection: Connection, name_or_id: str, owner: str | None) -> Row:
    mine = select(models) if owner is None else select(models).where(models.c.owner == owner)
    for meant in (models.c.id == name_or_id, models.c.name == name_or_id, models.c.id.startswith(name_or_id, autoescape=True)):
        rows = connection.execute(mine.where(meant).limit(2)).all() if name_or_id else []
        if len(rows) == 1:
            return rows[0]
    raise NotFound(f"There is no model {name_or_id}.", "List the models to see which there are.")


def _model(row: Row) -> Model:
    return Model(**{**row._mapping, "stop": from_json(row.stop), "proof": from_json(row.proof)})


def _free_name(connection: Connection, name: str, owner: str) -> str:
    taken = set(connection.scalars(select(models.c.name).where(models.c.owner == owner)))
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate
