"""One prompt on its way through one or more models, and their answers as they grow: our server's OpenAI-compatible HTTP, streamed.

A thread of its own reads all the streams at once, whoever looks at the answers is never held up, and closing hangs up,
which ends the sampling at its next token. Knows neither torch nor the SDK.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from engine.endpoints import Endpoint
from engine.errors import EndpointError, EngineError, NotFound, StateError
from engine.playground.servers import Servers
from engine.playground.settings import Settings
from engine.playground.speakers import Speaker
from engine.rendering import Message

_log = logging.getLogger("thinker.playground")
TIMEOUT = httpx.Timeout(600, connect=5)  # a first token may wait for others' training steps
_LOOK = 0.05  # seconds between looks at an endpoint that is getting ready


@dataclass
class Answer:
    """What one speaker says. `finish`: stop (its own end), length (the limit), stopped (by the person), failed; empty while it goes on."""

    speaker: Speaker
    text: str = ""
    finish: str = ""
    stage: str = "waiting"
    tokens: int = 0
    seconds: float = 0.0
    error: EngineError | None = None

    def to_dict(self) -> dict[str, Any]:
        """As it is kept with the conversation."""
        kept = {"speaker": self.speaker.ref, "name": self.speaker.name, "text": self.text, "finish": self.finish}
        return {**kept, "tokens": self.tokens, "seconds": round(self.seconds, 3), "error": self.error.to_dict() if self.error else None}


@dataclass
class Asking:
    """The answers to one prompt. `conversations` are the messages for each speaker. Close it, or read it to its end."""

    servers: Servers
    speakers: Sequence[Speaker]
    conversations: Sequence[list[Message]]
    settings: Settings
    answers: list[Answer] = field(init=False)

    def __post_init__(self) -> None:
        self.answers = [Answer(speaker) for speaker in self.speakers]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task] = []
        self._over, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), name="asking", daemon=True)
        self._thread.start()

    def updates(self, every: float = 0.06) -> Iterator[None]:
        """Comes back about so often while there is anything to wait for, and once more at the end."""
        while not self._over.is_set():
            yield
            self._over.wait(every)
        yield

    def wait(self) -> None:
        """Comes back when all is said."""
        self._over.wait()

    def close(self) -> None:
        """Hangs up on what isn't finished; what was said so far stays."""
        self._ready.wait(5)
        if self._loop is not None and not self._over.is_set():
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._tasks])
        self._over.wait(5)

    async def _all(self) -> None:
        try:
            self._loop = asyncio.get_running_loop()
            async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT) as http:
                pairs = zip(self.answers, self.conversations, strict=True)
                self._tasks = [asyncio.create_task(self._one(http, answer, messages)) for answer, messages in pairs]
                self._ready.set()
                await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            # A task that was cancelled before it began had no chance to say so.
            for answer in self.answers:
                answer.finish = answer.finish or "stopped"
            self._ready.set()
            self._over.set()

    async def _one(self, http: httpx.AsyncClient, answer: Answer, messages: list[Message]) -> None:
        try:
            await self._answered(http, answer, messages)
        except asyncio.CancelledError:
            answer.finish = "stopped"
        except EngineError as error:
            answer.finish, answer.error = "failed", error
        except Exception as error:
            _log.exception("an answer failed")
            answer.finish = "failed"
            answer.error = EndpointError(f"the answer broke off: {type(error).__name__}: {error}", "Send it again.")
        answer.stage = ""

    async def _answered(self, http: httpx.AsyncClient, answer: Answer, messages: list[Message]) -> None:
        for attempt in (1, 2):
            endpoint = await self._opened(answer)
            answer.stage = "reading the prompt"
            try:
                return await self._streamed(http, endpoint, answer, messages)
            except httpx.HTTPError as error:
                self.servers.forget(answer.speaker)
                # A server that left while idle is started anew; one that goes down over the answer itself isn't asked again.
                if answer.text or attempt == 2:
                    raise EndpointError("the server ended while it was answering", "Send it again: the server is started anew.") from error

    async def _opened(self, answer: Answer) -> Endpoint:
        opening = self.servers.opening(answer.speaker)
        while not opening.done:
            answer.stage = opening.stage
            await asyncio.sleep(_LOOK)
        if opening.error is not None:
            raise opening.error
        assert opening.endpoint is not None
        return opening.endpoint

    async def _streamed(self, http: httpx.AsyncClient, endpoint: Endpoint, answer: Answer, messages: list[Message]) -> None:
        body = {**self.settings.body(answer.speaker), "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
        headers = {"Authorization": f"Bearer {endpoint.key()}"}
        began = time.monotonic()
        async with http.stream("POST", f"{endpoint.chat_url}/chat/completions", json=body, headers=headers) as reply:
            if reply.status_code != 200:
                raise refusal(answer.speaker, reply.status_code, await reply.aread())
            async for event in _events(reply):
                if "error" in event:
                    raise refusal(answer.speaker, 500, event)
                answer.tokens = (event.get("usage") or {}).get("completion_tokens", answer.tokens)
                for choice in event["choices"]:
                    answer.text += choice["delta"].get("content") or ""
                    answer.finish = choice.get("finish_reason") or answer.finish
                    answer.stage = ""
                answer.seconds = time.monotonic() - began
        if not answer.finish:
            raise EndpointError("the answer broke off", "Send it again.")


async def _events(reply: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    async for line in reply.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def refusal(speaker: Speaker, status: int, body: bytes | dict[str, Any]) -> EngineError:
    """What the server's error means for who chats."""
    try:
        values = json.loads(body) if isinstance(body, bytes) else body
        found = values["error"]
        message, code = str(found["message"]), found.get("code")
    except (ValueError, KeyError, TypeError, AttributeError):
        message, code = f"the server answered {status}", None
    if code == "context_length_exceeded":
        advice = "Begin a new chat, send less, or let it answer each message by itself (settings)."
        return StateError("the conversation is longer than the model can look at (its context)", advice, where=speaker.name)
    if status == 404:
        return NotFound("the files of this model are gone", "Choose another model or checkpoint.", where=speaker.name)
    return EndpointError(message, "Change the settings or the message and send it again.", where=speaker.name)
