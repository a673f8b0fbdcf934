"""What people are still putting together: one draft an owner, and named presets. Knows nothing of what is in them.

A draft is replaced whole; a preset's name is unique among its owner's.
"""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from engine.errors import NotFound, StateError
from engine.store import schema
from engine.store.database import Database, from_json, to_json
from engine.store.records import Preset

drafts, presets = schema.drafts, schema.presets


class WorkbenchQueries(Database):
    """The part of the Store that holds drafts and presets."""

    def draft(self, owner: str) -> dict[str, Any] | None:
        """What was last kept; None if there is none."""
        with self.read() as connection:
            return from_json(connection.scalar(select(drafts.c.content).where(drafts.c.owner == owner)))

    def save_draft(self, content: dict[str, Any], owner: str) -> None:
        """Replaces the owner's draft."""
        values = {"content": to_json(content), "updated_at": self.now()}
        with self.write() as connection:
            made = connection.execute(self.insert_new(drafts).values(owner=owner, **values))
            if not made.rowcount:
                connection.execute(update(drafts).where(drafts.c.owner == owner).values(**values))

    def delete_draft(self, owner: str) -> None:
        """Nothing happens if there is none."""
        with self.write() as connection:
            connection.execute(delete(drafts).where(drafts.c.owner == owner))

    def save_preset(self, name: str, changes: dict[str, Any], owner: str) -> Preset:
        """Keeps it under that name; one of the same name is replaced."""
        with self.write() as connection:
            mine = (presets.c.owner == owner, presets.c.name == name)
            known = connection.scalar(select(presets.c.id).where(*mine))
            if known:
                connection.execute(update(presets).where(presets.c.id == known).values(changes=to_json(changes)))
            else:
                known = secrets.token_hex(6)
                row = {"id": known, "owner": owner, "name": name, "changes": to_json(changes), "created_at": self.now()}
                connection.execute(presets.insert().values(**row))
            return _preset(_row(connection, known, owner))

    def presets(self, owner: str) -> list[Preset]:
        """By name."""
        with self.read() as connection:
            return [_preset(row) for row in connection.execute(select(presets).where(presets.c.owner == owner).order_by(presets.c.name))]

    def preset(self, preset_id: str, owner: str) -> Preset:
        """By id or name. Raises NotFound, also for somebody else's."""
        with self.read() as connection:
            return _preset(_row(connection, preset_id, owner))

    def rename_preset(self, preset_id: str, name: str, owner: str) -> Preset:
        """Raises NotFound, and StateError if the name is taken."""
        with self.write() as connection:
            found = _row(connection, preset_id, owner)
            taken = (presets.c.owner == owner, presets.c.name == name, presets.c.id != found.id)
            if connection.execute(select(presets.c.id).where(*taken)).first():
                raise StateError(f"There is a preset named {name} already.", "Choose another name.")
            connection.execute(update(presets).where(presets.c.id == found.id).values(name=name))
            return _preset(_row(connection, found.id, owner))

    def delete_preset(self, preset_id: str, owner: str) -> None:
        """Raises NotFound."""
        with self.write() as connection:
            connection.execute(delete(presets).where(presets.c.id == _row(connection, preset_id, owner).id))


def _row(connection: Connection, preset_id: str, owner: str) -> Row:
    for meant in (presets.c.id == preset_id, presets.c.name == preset_id):
        if row := connection.execute(select(presets).where(presets.c.owner == owner, meant)).first():
            return row
    raise NotFound(f"There is no preset {preset_id}.", "List the presets to see which there are.")


def _preset(row: Row) -> Preset:
    return Preset(**{**row._mapping, "changes": from_json(row.changes)})
