"""The Playground: conversations with base models, tuned models and checkpoints, one or several on the same prompt, kept in the store.

Talks to endpoints over their OpenAI-compatible HTTP, so it needs neither torch nor the SDK, and works while jobs train.
Everything belongs to its owner; what is somebody else's raises NotFound.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from engine.errors import EngineError, NotFound, StateError
from engine.playground import speakers
from engine.playground.asking import Answer, Asking
from engine.playground.scores import Token, scores
from engine.playground.servers import Servers
from engine.playground.settings import HELP, LIMITS, Settings
from engine.playground.speakers import Speaker
from engine.rendering import Message
from engine.store import Conversation, Store, Turn

_log = logging.getLogger("thinker.playground")
_MOST_CHARACTERS = 200_000


class Exchange:
    """One prompt of a conversation, from its asking to its being kept: when the last answer ends, whether anybody looks or not."""

    def __init__(self, playground: Playground, conversation_id: str, prompt: str, asking: Asking, under_way: dict[str, Exchange]):
        self.prompt, self.asking = prompt, asking
        self._playground, self._conversation_id, self._under_way = playground, conversation_id, under_way
        self._lock, self._kept = threading.Lock(), False

    def settle(self) -> None:
        """Hangs up on what isn't finished, keeps what was said, and comes back once it is kept. Raises NotFound."""
        with self._lock:
            if self._kept:
                return
            self._kept = True
            self.asking.close()
            try:
                self._playground.keep(self._conversation_id, self.prompt, self.asking.answers)
            finally:
                if self._under_way.get(self._conversation_id) is self:
                    del self._under_way[self._conversation_id]

    def see_to_it(self) -> None:
        """Settles it on a thread of its own as soon as all is said."""
        threading.Thread(target=self._to_the_end, name="exchange", daemon=True).start()

    def _to_the_end(self) -> None:
        self.asking.wait()
        try:
            self.settle()
        except EngineError:
            # Nobody is there to be told.
            _log.exception("an answer couldn't be kept")


class Playground:
    """One person's chats."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner
        self._servers = Servers(owner)
        self._under_way: dict[str, Exchange] = {}

    # -- who answers

    def speakers(self) -> list[Speaker]:
        """Tuned models, newest first; base models; the other checkpoints of the latest runs."""
        return speakers.listed(self._store, self._owner)

    def speaker(self, ref: str) -> Speaker:
        """`base:nano`, a tuned model by id or name, a run by id, or `JOB@STEP`. Raises NotFound."""
        return speakers.find(self._store, self._owner, ref)

    def prompts(self, speaker: Speaker) -> list[str]:
        """A few that are worth asking it."""
        return speakers.prompts(self._store, self._owner, speaker)

    # -- answers

    def ask(self, who: Sequence[Speaker], conversations: Sequence[list[Message]], settings: Settings) -> Asking:
        """Begins to answer, all at once, and returns at once. Raises StateError for what can't be asked."""
        for messages in conversations:
            if not messages or not messages[-1]["content"].strip():
                raise StateError("there is nothing to answer", "Write a message.")
            if sum(len(message["content"]) for message in messages) > _MOST_CHARACTERS:
                raise StateError("the conversation is too long to be sent", "Begin a new chat, or send less.")
        return Asking(self._servers, tuple(who), list(conversations), settings)

    def messages(self, turns: Sequence[Turn], side: int, prompt: str, settings: Settings) -> list[Message]:
        """What the speaker of that side is shown for the next prompt: the turns that it has answered, unless they aren't remembered."""
        messages: list[Message] = [{"role": "system", "content": settings.system_prompt}] if settings.system_prompt.strip() else []
        for turn in turns if settings.remember else ():
            said = turn.answers[side]["text"] if side < len(turn.answers) else ""
            if said:
                messages += [{"role": "user", "content": turn.prompt}, {"role": "assistant", "content": said}]
        return [*messages, {"role": "user", "content": prompt}]

    def probabilities(self, speaker: Speaker, messages: Sequence[Message], answer: str, top: int = 5) -> list[Token]:
        """How likely each token of the answer is to the speaker after these messages. Waits for its server. Raises EngineError."""
        return scores(self._servers.opening(speaker).join(), speaker, messages, answer, top)

    # -- conversations

    def conversations(self, limit: int | None = None) -> list[Conversation]:
        """The one last spoken in first."""
        return self._store.conversations(self._owner, limit)

    def conversation(self, conversation_id: str) -> Conversation:
        """Raises NotFound."""
        return self._store.conversation(conversation_id, self._owner)

    def turns(self, conversation_id: str) -> list[Turn]:
        """Oldest first. Raises NotFound."""
        return self._store.turns(conversation_id, self._owner)

    def begin(self, prompt: str, who: Sequence[Speaker], settings: Settings) -> Conversation:
        """A new conversation, named after its first prompt."""
        return self._store.begin_conversation(prompt, _setup(who, settings), self._owner)

    def exchange(self, conversation_id: str, prompt: str, asking: Asking) -> Exchange:
        """What is asked for a conversation, and is kept there. Raises NotFound."""
        made = Exchange(self, self.conversation(conversation_id).id, prompt, asking, self._under_way)
        # Known before it can end, or it would be under way for ever.
        self._under_way[conversation_id] = made
        made.see_to_it()
        return made

    def under_way(self, conversation_id: str) -> Exchange | None:
        """What is being answered just now, in whichever tab it was asked. Raises NotFound."""
        return self._under_way.get(self.conversation(conversation_id).id)

    def keep(self, conversation_id: str, prompt: str, answers: Sequence[Answer]) -> Turn:
        """A prompt with what was said to it, whole or not. Raises NotFound."""
        return self._store.add_turn(conversation_id, prompt, [answer.to_dict() for answer in answers], self._owner)

    def answered(self, conversation_id: str, turn_id: int, side: int) -> tuple[list[Message], dict[str, Any]]:
        """(the messages that were shown, the answer to them) of one side of a turn. Raises NotFound."""
        conversation, turns = self.conversation(conversation_id), self.turns(conversation_id)
        place = next((number for number, turn in enumerate(turns) if turn.id == turn_id), None)
        if place is None or not 0 <= side < len(turns[place].answers):
            raise NotFound("The conversation has no such answer any more.", "Reload the page.")
        settings = self.settings_of(conversation, self.speakers_of(conversation))
        return self.messages(turns[:place], side, turns[place].prompt, settings), turns[place].answers[side]

    def take_back(self, conversation_id: str, turn_id: int) -> str:
        """Removes a turn. -> its prompt, to be asked again. Raises NotFound."""
        return self._store.drop_turn(conversation_id, turn_id, self._owner).prompt

    def set_up(self, conversation_id: str, who: Sequence[Speaker], settings: Settings) -> Conversation:
        """Goes on with others, or otherwise. Raises NotFound."""
        return self._store.change_conversation(conversation_id, setup=_setup(who, settings), owner=self._owner)

    def rename(self, conversation_id: str, title: str) -> Conversation:
        """Raises NotFound, and StateError for an empty name."""
        if not title.strip():
            raise StateError("a conversation needs a name", "Write one.")
        return self._store.change_conversation(conversation_id, title=title, owner=self._owner)

    def delete(self, conversation_id: str) -> None:
        """For good. Raises NotFound."""
        self._store.delete_conversation(conversation_id, self._owner)

    def settings_of(self, conversation: Conversation | None, who: Sequence[Speaker]) -> Settings:
        """Those of the conversation; without one, what suits all of them."""
        advised = Settings(remember=not any(speaker.single for speaker in who))
        return Settings.read(conversation.setup.get("settings") or {}, advised) if conversation else advised

    def speakers_of(self, conversation: Conversation) -> list[Speaker]:
        """Those whom it was last held with, as far as they are still there."""
        found = []
        for ref in conversation.setup.get("speakers", []):
            try:
                found.append(self.speaker(ref))
            except NotFound:
                continue
        return found


def _setup(who: Sequence[Speaker], settings: Settings) -> dict[str, Any]:
    return {"speakers": [speaker.ref for speaker in who], "settings": settings.to_dict()}


__all__ = ["HELP", "LIMITS", "Answer", "Asking", "Exchange", "Playground", "Settings", "Speaker", "Token"]
