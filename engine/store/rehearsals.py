"""Recipes that were tried out small, each with what came of it. Knows nothing of how that is done, nor what is in a report."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Any

from sqlalchemy import Row, delete, select, update

from engine.errors import NotFound
from engine.recipe import Recipe
from engine.store import schema
from engine.store.database import Database, from_json, to_json
from engine.store.records import Rehearsal

rehearsals = schema.rehearsals
RUNNING = "running"
KEPT = 200
"""So many of an owner's are remembered; the oldest are forgotten first."""


class RehearsalQueries(Database):
    """The part of the Store that remembers rehearsals."""

    def begin_rehearsal(self, recipe: Recipe, digest: str, files: str, owner: str) -> Rehearsal:
        """One that is about to begin."""
        values = {"id": secrets.token_hex(6), "owner": owner, "name": recipe.name, "digest": digest, "files": files}
        values |= {"recipe": recipe.to_json(), "state": RUNNING, "process": "{}", "report": "{}", "created_at": self.now()}
        with self.write() as connection:
            mine = rehearsals.c.owner == owner
            newest = select(rehearsals.c.id).where(mine).order_by(rehearsals.c.created_at.desc()).limit(KEPT - 1)
            kept = set(connection.scalars(newest))
            old = [known for known in connection.scalars(select(rehearsals.c.id).where(mine)) if known not in kept]
            if old:
                connection.execute(delete(rehearsals).where(mine, rehearsals.c.id.in_(old), rehearsals.c.state != RUNNING))
            connection.execute(rehearsals.insert().values(**values))
        return self.rehearsal(values["id"], owner)

    def rehearsal(self, rehearsal_id: str, owner: str | None) -> Rehearsal:
        """Raises NotFound, also for somebody else's."""
        owned = [] if owner is None else [rehearsals.c.owner == owner]
        with self.read() as connection:
            row = connection.execute(select(rehearsals).where(rehearsals.c.id == rehearsal_id, *owned)).first()
        if row is None:
            raise NotFound(f"There is no rehearsal {rehearsal_id}.", "Rehearse the recipe again.")
        return _rehearsal(row)

    def rehearsals(self, owner: str, digest: str = "", states: Collection[str] | None = None, limit: int = 20) -> list[Rehearsal]:
        """Newest first; those of one digest, in some states, if asked."""
        query = select(rehearsals).where(rehearsals.c.owner == owner)
        if digest:
            query = query.where(rehearsals.c.digest == digest)
        if states is not None:
            query = query.where(rehearsals.c.state.in_(list(states)))
        query = query.order_by(rehearsals.c.created_at.desc(), rehearsals.c.id.desc()).limit(limit)
        with self.read() as connection:
            return [_rehearsal(row) for row in connection.execute(query)]

    def tell_rehearsal(
        self,
        rehearsal_id: str,
        *,
        report: dict[str, Any] | None = None,
        process: dict[str, Any] | None = None,
        state: str = "",
    ) -> bool:
        """Writes what is new of one that runs; a state ends it. -> False if it doesn't run any more, and nothing was written."""
        values: dict[str, Any] = {name: to_json(value) for name, value in (("report", report), ("process", process)) if value is not None}
        if state:
            values |= {"state": state, "ended_at": self.now()}
        mine = (rehearsals.c.id == rehearsal_id, rehearsals.c.state == RUNNING)
        if not values:
            with self.read() as connection:
                return connection.execute(select(rehearsals.c.id).where(*mine)).first() is not None
        with self.write() as connection:
            return connection.execute(update(rehearsals).where(*mine).values(**values)).rowcount == 1


def _rehearsal(row: Row) -> Rehearsal:
    values = dict(row._mapping)
    values["recipe_json"] = values.pop("recipe")
    return Rehearsal(**{**values, "process": from_json(row.process), "report": from_json(row.report)})
