"""What has finished, told for a whole sampling session at once: one long poll instead of one for each request.

A client asks with the cursor that it got last time, and is told what finished since then. Knows nothing of the requests.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from engine.server.worker import Future

CLONE = 1_000_000_000  # a copied client numbers its requests from its own multiple of this
KEPT = 8192


@dataclass(frozen=True)
class Finished:
    """One line of the log; `place` counts from 1."""

    place: int
    number: int
    future: Future


class FinishedLog:
    """The requests of one sampling session in the order in which they finished. Lives on the event loop."""

    def __init__(self) -> None:
        self._lines: deque[Finished] = deque(maxlen=KEPT)
        self._count = 0
        self._news = asyncio.Event()

    def watch(self, number: int, future: Future) -> None:
        """Notes the request when it is done."""
        future.when_done(lambda: self._note(number, future))

    async def since(self, cursor: int, clone: int, seconds: float) -> tuple[list[dict[str, Any]], int]:
        """What finished after `cursor`, as soon as there is anything or the time is over -> (completions, the next cursor)."""
        deadline = time.monotonic() + seconds
        while True:
            new = [line for line in self._lines if line.place > cursor and line.number // CLONE == clone]
            left = deadline - time.monotonic()
            if new or left <= 0:
                return [_told(line.future) for line in new], max([cursor, *(line.place for line in new)])
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), left)
            except TimeoutError:
                continue

    def retrieved(self, request_ids: list[str]) -> None:
        """The client has these results and won't ask for them again."""
        wanted, now = set(request_ids), time.monotonic()
        for line in self._lines:
            if line.future.request_id in wanted and line.future.retrieved_at is None:
                line.future.retrieved_at = now

    def _note(self, number: int, future: Future) -> None:
        self._count += 1
        self._lines.append(Finished(self._count, number, future))
        self._news.set()


def _told(future: Future) -> dict[str, Any]:
    if isinstance(future.result, dict) and "error" in future.result:
        return {"state": "failed", "request_id": future.request_id}
    size = len(future.result) if isinstance(future.result, bytes) else None
    return {"state": "finished", "request_id": future.request_id, "response_payload_uncompressed_size": size}
