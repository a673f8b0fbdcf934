"""Thumbs up and down on answers in chats: kept, taken back, and made into a data set of answers found good or bad.

Everything belongs to its owner; what is somebody else's raises NotFound. Knows no screen, and not how models learn from it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from engine.errors import StateError
from engine.library import Library
from engine.playground import Playground
from engine.store import LibrarySet, Rating, Store, Turn


class Ratings:
    """One person's verdicts."""

    def __init__(self, store: Store, owner: str, playground: Playground):
        self._store, self._owner, self._playground = store, owner, playground
        self._library = Library(store, owner)

    def rate(self, conversation_id: str, turn_id: int, side: int, good: bool) -> Rating:
        """Keeps that this answer is good or bad; again for the same answer, the newer verdict counts. Raises NotFound and StateError."""
        messages, answer = self._playground.answered(conversation_id, turn_id, side)
        if not answer["text"].strip():
            raise StateError("it said nothing that could be good or bad", "Ask again.")
        values = {"turn_id": turn_id, "side": side, "speaker": answer["speaker"], "messages": messages, "answer": answer["text"]}
        return self._store.save_rating(conversation_id, {**values, "good": good}, self._owner)

    def unrate(self, conversation_id: str, turn_id: int, side: int) -> None:
        """Takes the verdict back. Raises NotFound."""
        answer = self._playground.answered(conversation_id, turn_id, side)[1]
        self._store.delete_rating(conversation_id, {"turn_id": turn_id, "side": side, "answer": answer["text"]}, self._owner)

    def of_chat(self, conversation_id: str) -> list[Rating]:
        """Oldest first. Raises NotFound."""
        return self._store.ratings(self._owner, conversation_id)

    def all(self) -> list[Rating]:
        """Those of all chats, oldest first."""
        return self._store.ratings(self._owner)

    def count(self) -> tuple[int, int]:
        """How many answers were found good, and how many bad."""
        counts = self._store.count_ratings(self._owner)
        return counts[True], counts[False]

    def save_as_dataset(self, name: str) -> LibrarySet:
        """All of them as a data set of the library: prompt, answer, label. Of the same answer to the same messages the newest verdict
        counts. Raises StateError where there are none, and what adding a file raises."""
        newest: dict[str, dict] = {}
        for one in sorted(self.all(), key=lambda one: one.updated_at):
            row = {"prompt": one.messages, "completion": one.answer, "label": one.good, "model": one.speaker}
            newest[json.dumps([one.messages, one.answer])] = row
        if not newest:
            raise StateError("no answer was found good or bad yet", "Press a thumb beside an answer in the Playground.")
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in newest.values())
        title = " ".join(name.replace("/", " ").replace("\\", " ").split())[:100]
        return self._library.add(f"{title}.jsonl", text.encode("utf-8", "replace"), format="labelled")


def found(ratings: Sequence[Rating], turn: Turn, side: int) -> Rating | None:
    """The verdict on this answer, if there is one."""
    for one in reversed(ratings):
        # A turn's number may be given anew once the turn is taken back.
        if (one.turn_id, one.side, one.answer) == (turn.id, side, turn.answers[side]["text"]):
            return one
    return None
