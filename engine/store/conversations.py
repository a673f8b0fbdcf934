"""Chats that are kept: their setup and their turns. Knows nothing of models or of how answers come about."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from engine.errors import NotFound
from engine.store import schema
from engine.store.database import Database, from_json, to_json
from engine.store.records import Conversation, Turn

conversations, turns = schema.conversations, schema.turns
_TITLE = 60


class ConversationQueries(Database):
    """The part of the Store that holds conversations."""

    def begin_conversation(self, title: str, setup: dict[str, Any], owner: str = "local") -> Conversation:
        """An empty one."""
        now = self.now()
        values = {"id": secrets.token_hex(6), "owner": owner, "title": _title(title), "created_at": now, "updated_at": now}
        with self.write() as connection:
            connection.execute(conversations.insert().values(**values, setup=to_json(setup)))
        return Conversation(**values, setup=setup)

    def conversations(self, owner: str | None = "local", limit: int | None = None) -> list[Conversation]:
        """The one last spoken in first."""
        query = select(conversations).order_by(conversations.c.updated_at.desc(), conversations.c.id).limit(limit)
        if owner is not None:
            query = query.where(conversations.c.owner == owner)
        with self.read() as connection:
            return [_conversation(row) for row in connection.execute(query)]

    def conversation(self, conversation_id: str, owner: str | None = "local") -> Conversation:
        """Raises NotFound, also for somebody else's."""
        with self.read() as connection:
            return _conversation(own_row(connection, conversation_id, owner))

    def turns(self, conversation_id: str, owner: str | None = "local") -> list[Turn]:
        """Oldest first. Raises NotFound."""
        with self.read() as connection:
            own_row(connection, conversation_id, owner)
            rows = connection.execute(select(turns).where(turns.c.conversation_id == conversation_id).order_by(turns.c.id)).all()
        return [_turn(row) for row in rows]

    def add_turn(self, conversation_id: str, prompt: str, answers: list[dict[str, Any]], owner: str | None = "local") -> Turn:
        """The next prompt with its answers. Raises NotFound."""
        values = {"conversation_id": conversation_id, "prompt": prompt, "answers": to_json(answers), "at": self.now()}
        with self.write() as connection:
            own_row(connection, conversation_id, owner)
            made = connection.execute(turns.insert().values(**values)).inserted_primary_key
            connection.execute(update(conversations).where(conversations.c.id == conversation_id).values(updated_at=values["at"]))
        return Turn(**{**values, "id": made[0], "answers": answers})

    def drop_turn(self, conversation_id: str, turn_id: int, owner: str | None = "local") -> Turn:
        """Takes a turn out and gives it back. Raises NotFound."""
        mine = (turns.c.conversation_id == conversation_id, turns.c.id == turn_id)
        with self.write() as connection:
            own_row(connection, conversation_id, owner)
            found = connection.execute(select(turns).where(*mine)).first()
            if found is None:
                raise NotFound("The conversation has no such turn any more.", "Reload the page.")
            connection.execute(delete(turns).where(*mine))
        return _turn(found)

    def change_conversation(
        self, conversation_id: str, *, title: str | None = None, setup: dict[str, Any] | None = None, owner: str | None = "local"
    ) -> Conversation:
        """Another title or setup; where it stands in the list stays. Raises NotFound."""
        values = {} if title is None else {"title": _title(title)}
        values |= {} if setup is None else {"setup": to_json(setup)}
        with self.write() as connection:
            own_row(connection, conversation_id, owner)
            if values:
                connection.execute(update(conversations).where(conversations.c.id == conversation_id).values(**values))
            return _conversation(own_row(connection, conversation_id, owner))

    def delete_conversation(self, conversation_id: str, owner: str | None = "local") -> None:
        """With its turns, for good. Raises NotFound."""
        with self.write() as connection:
            own_row(connection, conversation_id, owner)
            connection.execute(delete(conversations).where(conversations.c.id == conversation_id))


def own_row(connection: Connection, conversation_id: str, owner: str | None) -> Row:
    query = select(conversations).where(conversations.c.id == conversation_id)
    found = connection.execute(query if owner is None else query.where(conversations.c.owner == owner)).first()
    if found is None:
        raise NotFound(f"There is no conversation {conversation_id[:40]}.", "Open one of the list, or begin a new one.")
    return found


def _conversation(row: Row) -> Conversation:
    return Conversation(**{**row._mapping, "setup": from_json(row.setup)})


def _turn(row: Row) -> Turn:
    return Turn(**{**row._mapping, "answers": from_json(row.answers)})


def _title(text: str) -> str:
    """One line, cut to what a list shows."""
    flat = " ".join(text.split()) or "Untitled"
    return flat if len(flat) <= _TITLE else flat[: _TITLE - 1] + "…"
