"""Answers that people corrected, and the lessons that models were given of them. Knows nothing of models or of how they learn."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from engine.errors import NotFound
from engine.store import schema
from engine.store.database import Database, from_json, to_json
from engine.store.records import Correction, Lesson

corrections, lessons, conversations = schema.corrections, schema.lessons, schema.conversations


class TeachingQueries(Database):
    """The part of the Store that holds corrections and lessons."""

    def save_correction(self, conversation_id: str, values: dict[str, Any], owner: str = "local") -> Correction:
        """A new one, or another text for the one that waits at that turn and side. `values`: turn_id, side, speaker, messages, answer,
        correction. Raises NotFound for somebody else's conversation."""
        now = self.now()
        row = {**values, "messages": to_json(values["messages"]), "updated_at": now}
        place = (corrections.c.turn_id == values["turn_id"], corrections.c.side == values["side"])
        with self.write() as connection:
            _conversation(connection, conversation_id, owner)
            waiting = (corrections.c.conversation_id == conversation_id, corrections.c.lesson_id.is_(None), *place)
            known = connection.scalar(select(corrections.c.id).where(*waiting))
            if known is None:
                known = secrets.token_hex(6)
                fresh = {"id": known, "owner": owner, "conversation_id": conversation_id, "created_at": now}
                connection.execute(corrections.insert().values(**fresh, **row))
            else:
                connection.execute(update(corrections).where(corrections.c.id == known).values(**row))
            return _correction(_own(connection, corrections, known, owner, "correction"))

    def corrections(self, conversation_id: str, owner: str = "local") -> list[Correction]:
        """Oldest first, taught or not. Raises NotFound."""
        query = select(corrections).where(corrections.c.conversation_id == conversation_id)
        with self.read() as connection:
            _conversation(connection, conversation_id, owner)
            return [_correction(row) for row in connection.execute(query.order_by(corrections.c.created_at, corrections.c.id))]

    def delete_correction(self, correction_id: str, owner: str = "local") -> None:
        """Raises NotFound."""
        with self.write() as connection:
            _own(connection, corrections, correction_id, owner, "correction")
            connection.execute(delete(corrections).where(corrections.c.id == correction_id))

    def begin_lesson(self, conversation_id: str, taught: str, cases: list[dict[str, Any]], owner: str = "local") -> Lesson:
        """In the state preparing. Raises NotFound."""
        lesson_id = secrets.token_hex(6)
        values = {"owner": owner, "conversation_id": conversation_id, "job_id": "", "taught": taught, "learned": "", "state": "preparing"}
        with self.write() as connection:
            _conversation(connection, conversation_id, owner)
            connection.execute(lessons.insert().values(id=lesson_id, **values, cases=to_json(cases), created_at=self.now()))
            return _lesson(_own(connection, lessons, lesson_id, owner, "lesson"))

    def change_lesson(
        self,
        lesson_id: str,
        owner: str = "local",
        *,
        only_in: str | None = None,
        teaches: Collection[str] = (),
        gives_back: bool = False,
        **values: Any,
    ) -> Lesson:
        """Some of its columns; nothing happens unless it is in the state `only_in`. `teaches`: corrections that it has taught now;
        `gives_back`: those that it taught wait again. Raises NotFound."""
        values = {name: to_json(value) if name in ("cases", "error") else value for name, value in values.items()}
        with self.write() as connection:
            found = _own(connection, lessons, lesson_id, owner, "lesson")
            if only_in is None or found.state == only_in:
                connection.execute(update(lessons).where(lessons.c.id == found.id).values(**values))
                if gives_back:
                    connection.execute(update(corrections).where(corrections.c.lesson_id == found.id).values(lesson_id=None))
                if teaches:
                    mine = (corrections.c.owner == owner, corrections.c.id.in_(list(teaches)))
                    connection.execute(update(corrections).where(*mine).values(lesson_id=found.id))
            return _lesson(_own(connection, lessons, lesson_id, owner, "lesson"))

    def lesson(self, lesson_id: str, owner: str = "local") -> Lesson:
        """Raises NotFound, also for somebody else's."""
        with self.read() as connection:
            return _lesson(_own(connection, lessons, lesson_id, owner, "lesson"))

    def lessons(self, owner: str = "local", conversation_id: str | None = None) -> list[Lesson]:
        """Oldest first; those of one conversation if asked."""
        query = select(lessons).where(lessons.c.owner == owner).order_by(lessons.c.created_at, lessons.c.id)
        if conversation_id is not None:
            query = query.where(lessons.c.conversation_id == conversation_id)
        with self.read() as connection:
            return [_lesson(row) for row in connection.execute(query)]


def _conversation(connection: Connection, conversation_id: str, owner: str) -> None:
    mine = (conversations.c.id == conversation_id, conversations.c.owner == owner)
    if connection.execute(select(conversations.c.id).where(*mine)).first() is None:
        raise NotFound(f"There is no conversation {conversation_id[:40]}.", "Open one of the list, or begin a new one.")


def _own(connection: Connection, table: Any, row_id: str, owner: str, what: str) -> Row:
    found = connection.execute(select(table).where(table.c.id == row_id, table.c.owner == owner)).first()
    if found is None:
        raise NotFound(f"There is no {what} {row_id[:40]}.", "Reload the page.")
    return found


def _correction(row: Row) -> Correction:
    return Correction(**{**row._mapping, "messages": from_json(row.messages)})


def _lesson(row: Row) -> Lesson:
    return Lesson(**{**row._mapping, "cases": from_json(row.cases), "error": from_json(row.error)})
