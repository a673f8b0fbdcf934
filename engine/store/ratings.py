"""Answers that people found good or bad. Knows nothing of what is learned from them."""

from __future__ import annotations

import secrets
from typing import Any

from sqlalchemy import Row, delete, func, select, update

from engine.store import schema
from engine.store.conversations import own_row as conversation_row
from engine.store.database import Database, from_json, to_json
from engine.store.records import Rating

ratings = schema.ratings


class RatingQueries(Database):
    """The part of the Store that holds thumbs up and down."""

    def save_rating(self, conversation_id: str, values: dict[str, Any], owner: str = "local") -> Rating:
        """A new one, or another verdict on the same answer. `values`: turn_id, side, speaker, messages, answer, good. Raises NotFound for
        somebody else's conversation."""
        now = self.now()
        with self.write() as connection:
            conversation_row(connection, conversation_id, owner)
            known = connection.scalar(select(ratings.c.id).where(*_same(conversation_id, values)))
            if known is None:
                known = secrets.token_hex(6)
                row = {**values, "messages": to_json(values["messages"]), "created_at": now, "updated_at": now}
                connection.execute(ratings.insert().values(id=known, owner=owner, conversation_id=conversation_id, **row))
            else:
                connection.execute(update(ratings).where(ratings.c.id == known).values(good=values["good"], updated_at=now))
            return _rating(connection.execute(select(ratings).where(ratings.c.id == known)).one())

    def delete_rating(self, conversation_id: str, values: dict[str, Any], owner: str = "local") -> None:
        """Takes the verdict on that answer back, if there is one. `values`: turn_id, side, answer. Raises NotFound for somebody else's
        conversation."""
        with self.write() as connection:
            conversation_row(connection, conversation_id, owner)
            connection.execute(delete(ratings).where(*_same(conversation_id, values)))

    def ratings(self, owner: str = "local", conversation_id: str | None = None) -> list[Rating]:
        """Oldest first; those of one conversation if asked. Raises NotFound."""
        query = select(ratings).where(ratings.c.owner == owner).order_by(ratings.c.created_at, ratings.c.id)
        with self.read() as connection:
            if conversation_id is not None:
                conversation_row(connection, conversation_id, owner)
                query = query.where(ratings.c.conversation_id == conversation_id)
            return [_rating(row) for row in connection.execute(query)]

    def count_ratings(self, owner: str = "local") -> dict[bool, int]:
        """{True: how many answers were found good, False: bad}."""
        query = select(ratings.c.good, func.count()).where(ratings.c.owner == owner).group_by(ratings.c.good)
        with self.read() as connection:
            return {True: 0, False: 0} | {bool(good): count for good, count in connection.execute(query)}


def _same(conversation_id: str, values: dict[str, Any]) -> tuple[Any, ...]:
    """A turn's number may be given anew once the turn is taken back, so the answer's text belongs to it."""
    place = (ratings.c.turn_id == values["turn_id"], ratings.c.side == values["side"], ratings.c.answer == values["answer"])
    return (ratings.c.conversation_id == conversation_id, *place)


def _rating(row: Row) -> Rating:
    return Rating(**{**row._mapping, "messages": from_json(row.messages)})
