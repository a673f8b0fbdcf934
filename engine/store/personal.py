"""What belongs to a person rather than to a run: their settings, their conversations with the assistant.

Values come and go as JSON; what they mean is the business of `engine.settings` and `engine.assistant`.
"""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Row, delete, select, update

from engine.errors import NotFound
from engine.store import schema
from engine.store.database import Database, from_json, to_json
from engine.store.records import Talk

settings, talks = schema.settings, schema.talks


class PersonalQueries(Database):
    """The part of the Store that remembers people."""

    def setting(self, owner: str, name: str) -> Any:
        """None where nothing was set."""
        with self.read() as connection:
            return from_json(connection.scalar(select(settings.c.value).where(settings.c.owner == owner, settings.c.name == name)))

    def set_setting(self, owner: str, name: str, value: Any) -> None:
        """Replaces it; None forgets it."""
        with self.write() as connection:
            connection.execute(delete(settings).where(settings.c.owner == owner, settings.c.name == name))
            if value is not None:
                connection.execute(settings.insert().values(owner=owner, name=name, value=to_json(value)))

    def add_talk(self, owner: str, title: str) -> Talk:
        """An empty conversation with the assistant."""
        talk_id, now = secrets.token_hex(6), self.now()
        values = {"id": talk_id, "owner": owner, "title": title, "state": "{}", "turns": "[]", "created_at": now, "updated_at": now}
        with self.write() as connection:
            connection.execute(talks.insert().values(**values))
        return self.talk(talk_id, owner)

    def talk(self, talk_id: str, owner: str) -> Talk:
        """Raises NotFound, also for somebody else's."""
        with self.read() as connection:
            row = connection.execute(select(talks).where(talks.c.id == talk_id, talks.c.owner == owner)).first()
        if row is None:
            raise _no_talk(talk_id)
        return _talk(row)

    def talks(self, owner: str, limit: int = 50) -> list[Talk]:
        """The latest first."""
        query = select(talks).where(talks.c.owner == owner).order_by(talks.c.updated_at.desc(), talks.c.id.desc()).limit(limit)
        with self.read() as connection:
            return [_talk(row) for row in connection.execute(query)]

    def extend_talk(
        self, talk_id: str, owner: str, turns: list[dict[str, Any]], state: dict[str, Any], *, only_after: int | None = None
    ) -> Talk:
        """Adds turns and replaces the state; nothing happens unless it has `only_after` turns, where that is given. Raises NotFound."""
        with self.write() as connection:
            mine = (talks.c.id == talk_id, talks.c.owner == owner)
            row = connection.execute(select(talks).where(*mine).with_for_update()).first()
            if row is None:
                raise _no_talk(talk_id)
            before = from_json(row.turns)
            if only_after is None or len(before) == only_after:
                values = {"turns": to_json(before + turns), "state": to_json(state), "updated_at": self.now()}
                connection.execute(update(talks).where(*mine).values(**values))
        return self.talk(talk_id, owner)

    def delete_talk(self, talk_id: str, owner: str) -> None:
        """Raises NotFound."""
        with self.write() as connection:
            if connection.execute(delete(talks).where(talks.c.id == talk_id, talks.c.owner == owner)).rowcount == 0:
                raise _no_talk(talk_id)


def _talk(row: Row) -> Talk:
    return Talk(**{**row._mapping, "state": from_json(row.state), "turns": from_json(row.turns)})


def _no_talk(talk_id: str) -> NotFound:
    return NotFound(f"There is no conversation {talk_id}.", "Begin a new one.")
