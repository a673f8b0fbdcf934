"""Conversations with the assistant on a real Engine and store, where nothing is started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine import Engine
from engine.assistant import Reply


@pytest.fixture
def engine(nothing_starts: list[str]) -> Iterator[Engine]:
    with Engine() as made:
        yield made


class Conversation:
    """Says things, and keeps the state between."""

    def __init__(self, engine: Engine):
        self._engine, self.state = engine, None

    def __call__(self, text: str) -> Reply:
        reply, self.state = self._engine.assistant.answer(text, self.state)
        return reply


@pytest.fixture
def say(engine: Engine) -> Conversation:
    return Conversation(engine)


def kinds(reply: Reply) -> list[str]:
    """Of its buttons."""
    return [action.kind for action in reply.actions]
