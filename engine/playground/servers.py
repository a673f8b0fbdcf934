"""Getting what answers ready, without holding up whoever waits: each base model's endpoint is opened on a thread of its own.

An endpoint that runs already is shared, one that died is started anew. Knows endpoints; nothing of conversations.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from engine import endpoints, models
from engine.endpoints import Endpoint, backups
from engine.errors import EndpointError, EngineError

if TYPE_CHECKING:
    from engine.playground.speakers import Speaker

Key = tuple[str, str]


class Opening:
    """One endpoint on its way: `stage` says what it is busy with, in the end there is an `endpoint` or an `error`."""

    def __init__(self, key: Key, known: Endpoint | None, owner: str):
        self.stage = "looking for the server" if known else "looking for the model's files"
        self.endpoint: Endpoint | None = None
        self.error: EngineError | None = None
        self._key, self._known, self._owner = key, known, owner
        self._thread = threading.Thread(target=self._open, name="opening", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return self.endpoint is not None or self.error is not None

    def join(self) -> Endpoint:
        """Waits. Raises EngineError."""
        self._thread.join()
        if self.error is not None:
            raise self.error
        assert self.endpoint is not None
        return self.endpoint

    def _say(self, stage: str) -> None:
        self.stage = stage

    def _open(self) -> None:
        try:
            if self._known is not None and self._known.alive():
                self.endpoint = self._known
                return
            name, base_model = self._key
            self._say("looking for the model's files")
            weights = endpoints.kind(name, self._owner).weights
            folder = models.resolve(base_model, weights=weights)
            self._say("starting the server" if weights else "connecting")
            endpoint = endpoints.start(name, base_model, folder, self._owner)
            endpoint.ready(self._say)
            self.endpoint = endpoint
        except EngineError as error:
            self.error = error
        except Exception as error:
            text = f"the server couldn't be started: {type(error).__name__}: {error}"
            self.error = EndpointError(text, "Try again; if it stays, look at the terminal that Thinker runs in.")


class Servers:
    """The endpoints that one owner's chats in this process have opened."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._lock = threading.Lock()
        self._openings: dict[Key, Opening] = {}

    def opening(self, speaker: Speaker) -> Opening:
        """The endpoint that answers for the speaker, on its way or there; looked at anew whether it still lives."""
        key = (speaker.endpoint, speaker.base_model)
        if speaker.path.startswith("tinker://"):
            backups.at_hand(speaker.path)
        with self._lock:
            last = self._openings.get(key)
            if last is None or last.done:
                self._openings[key] = last = Opening(key, last.endpoint if last else None, self._owner)
            return last

    def forget(self, speaker: Speaker) -> None:
        """After it broke off: the next one who asks finds or starts another."""
        with self._lock:
            self._openings.pop((speaker.endpoint, speaker.base_model), None)
