"""A run's requests in their turn: strictly by number, each number once. Knows nothing of what the requests do.

Clients send requests in any order and more than once. Posting a number again gives what it gave before. A request that
was refused still uses its number up, for the client has moved on; one that never arrives holds up those behind it
until `skip_gap`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from engine.errors import EngineError, StateError
from engine.server.worker import Future, Task, Work, Worker, session_ended

GAP_SECONDS = 330.0  # a client gives up posting a request after 300 s
REMEMBERED = 4096  # numbers whose answers are known


class InOrder:
    """The queue of one run, from number 1."""

    def __init__(self, worker: Worker, new_future: Callable[[int], Future], new_task: Callable[[Future, Work], Task]):
        """`new_future` makes the future of a number, `new_task` what the worker is to do for it."""
        self.next = 1
        self._worker, self._new_future, self._new_task = worker, new_future, new_task
        self._waiting: dict[int, Task] = {}
        self._waiting_since = 0.0
        self._answers: OrderedDict[int, Future | EngineError] = OrderedDict()

    def submit(self, number: int | None, make: Callable[[], Work]) -> Future:
        """The future of request `number`: the one known, or a new one queued in its turn.

        `make` checks the request and gives its work; what it raises is this number's answer from then on.
        """
        number = self.next + len(self._waiting) if number is None else number
        known = self._answers.get(number)
        if isinstance(known, EngineError):
            raise known
        if known is not None:
            return known
        if number < self.next:
            raise StateError(f"request {number} of this run is long past", "Go on with later numbers.", where="seq_id")
        future = self._new_future(number)
        try:
            task = self._new_task(future, make())
        except EngineError as error:
            self._answers[number] = error
            self._enqueue(number, self._new_task(future, dict))
            raise
        self._answers[number] = future
        self._enqueue(number, task)
        return future

    def skip_gap(self, now: float) -> None:
        """Fails what waits behind a request that hasn't come for longer than any client tries."""
        if not self._waiting or now - self._waiting_since < GAP_SECONDS:
            return
        for task in self._waiting.values():
            task.future.fail(EngineError(f"request {self.next} of this run never arrived", "Resume from the last checkpoint."))
        self.next = max(self._waiting) + 1
        self._waiting.clear()

    def close(self) -> None:
        """The client is gone: what waits for its turn won't get one."""
        for task in self._waiting.values():
            task.future.fail(session_ended())
        self._waiting.clear()
        # The errors among them hold on, by their tracebacks, to the run, its weights and its optimizer.
        self._answers.clear()

    def _enqueue(self, number: int, task: Task) -> None:
        before, waited = self.next, bool(self._waiting)
        self._waiting[number] = task
        while self.next in self._waiting:
            self._worker.put(self._waiting.pop(self.next))
            self.next += 1
        if self.next > before or not waited:
            self._waiting_since = time.monotonic()
        while len(self._answers) > REMEMBERED:
            self._answers.popitem(last=False)
