"""The one thread that touches the model, and the futures its results arrive in. Knows no HTTP and no sessions.

Tasks of one lane run one after the other in the order they were put; lanes (a training run each) get equal time, however
much each has waiting. Work that is done bit by bit (sampling) goes on between them: while both are there, each gets half of
the time, so that neither a job nor a chat waits for the other to end. The plain reference has no such work; there, sampling
tasks for the same weights that wait together are answered as one batch.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.errors import EngineError
from engine.server.memory import out_of_memory, ran_out
from engine.server.owners import current_owner

log = logging.getLogger("thinker.server")
TURN_SECONDS = 0.02  # of work done bit by bit, before others are looked at again
KEEP_SECONDS = 120.0  # for which a retrieved result can be fetched again
UNFETCHED_SECONDS = 3600.0  # for which a result waits to be fetched at all
REST_SECONDS = 2.0  # without work, after which memory that nothing uses goes back to the system
HELD_SECONDS = 1.0  # after which tasks that were put off are looked at again

Work = Callable[[], "dict[str, Any] | bytes"]


class Future:
    """A result that isn't there yet. Finished once, from any thread; awaited on the event loop."""

    def __init__(self, request_id: str, loop: asyncio.AbstractEventLoop):
        self.request_id = request_id
        self.result: dict[str, Any] | bytes | None = None
        self.finished_at: float | None = None
        self.retrieved_at: float | None = None
        self.owner = current_owner()
        self.cancelled = False
        self.can_be_cancelled = False
        self._loop = loop
        self._event = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    def finish(self, result: dict[str, Any] | bytes) -> None:
        """JSON as a dict, protobuf as bytes. A second call changes nothing."""
        if self.finished_at is not None:
            return
        self.result = result
        self.finished_at = time.monotonic()
        try:
            self._loop.call_soon_threadsafe(self._announce)
        except RuntimeError:
            log.debug("the event loop is closed; nobody waits for %s any more", self.request_id)

    def fail(self, error: BaseException) -> None:
        """An error as the wire has it: the sender's own mistakes are category user, the rest server."""
        known = isinstance(error, EngineError)
        theirs = known and not isinstance(error, OSError)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        self.finish({"error": text, "category": "user" if theirs else "server", "kind": type(error).__name__})

    def cancel(self) -> None:
        """Nobody waits for it any more: it fails now, and its work is dropped where that hasn't been done yet."""
        self.cancelled = True
        self.fail(EngineError("the request was cancelled", "Send it again if it is wanted after all."))

    def when_done(self, listener: Callable[[], None]) -> None:
        """Calls `listener` on the event loop once the result is there. Called there too."""
        if self._event.is_set():
            listener()
        else:
            self._listeners.append(listener)

    async def wait(self, seconds: float) -> bool:
        """Whether the result is there, after at most that long."""
        try:
            await asyncio.wait_for(self._event.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _announce(self) -> None:
        self._event.set()
        for listener in self._listeners:
            listener()


@dataclass
class Task:
    """`work()` gives the result, or None when it has seen to the future itself.

    Tasks with an equal `batch_key` may be run together by `work_together`. One that is `held` waits, and its lane with it.
    """

    future: Future
    work: Callable[[], dict[str, Any] | bytes | None]
    batch_key: object = None
    payload: Any = None
    work_together: Callable[[Sequence[Any]], Sequence[dict[str, Any] | bytes]] | None = None
    rows: int = 1
    cancelled: Callable[[], bool] = field(default=lambda: False)
    held: Callable[[], bool] = field(default=lambda: False)
    lane: str = ""

    @property
    def due(self) -> bool:
        """Whether it can be run, or dropped."""
        return self.cancelled() or not self.held()


class Stepwise(Protocol):
    """Work that can be left at any step and taken up again."""

    @property
    def busy(self) -> bool:
        """Whether there is any."""

    def advance(self, seconds: float) -> None:
        """Some of it, for about so long. Raises nothing: its errors are its requests' results."""


class Worker:
    """Runs tasks on its own thread until `stop`."""

    def __init__(self, max_batch_rows: int = 128, stepwise: Stepwise | None = None, on_rest: Callable[[], None] = lambda: None):
        self._lanes: dict[str, deque[Task]] = {}
        self._turn: dict[str, float] = {}  # of each lane, in seconds of the thread that it has had; the lowest is next
        self._clock = 0.0  # the turn of the last lane, at which new ones begin
        self._first: deque[Task] = deque()
        self._stepwise = stepwise
        self._owed = 0.0  # seconds by which tasks have had more of the thread than the stepwise work while both were there
        self._changed = threading.Condition()
        self._stopping = False
        self._on_rest, self._rested = on_rest, True
        self._max_batch_rows = max_batch_rows
        self.busy = False
        self._thread = threading.Thread(target=self._run, name="model-worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """After the task at hand."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout=30)

    def put(self, task: Task) -> None:
        with self._changed:
            if task.lane not in self._lanes:
                self._lanes[task.lane] = deque()
                self._turn[task.lane] = max(self._clock, self._turn.get(task.lane, 0.0))
            self._lanes[task.lane].append(task)
            self._changed.notify()

    def put_first(self, task: Task) -> None:
        """Ahead of all that wait, and at nobody's cost: it must be brief, such as handing over to the stepwise work."""
        with self._changed:
            self._first.append(task)
            self._changed.notify()

    def rest_again(self) -> None:
        """Something was let go of that the last rest still found in use."""
        with self._changed:
            self._rested = False
            self._changed.notify()

    @property
    def waiting(self) -> int:
        with self._changed:
            return sum(map(len, self._lanes.values())) + len(self._first)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._called():
                    self.busy = False
                    if self._lanes or self._rested:
                        self._changed.wait(HELD_SECONDS if self._lanes else None)
                    elif not self._changed.wait_for(self._called, REST_SECONDS):
                        self._rested = True
                        # Whoever comes meanwhile waits for the milliseconds that it takes.
                        self._on_rest()
                if self._stopping:
                    return
                self.busy, self._rested = True, False
            # In methods of their own, so that nothing here holds on to tasks, and so to their run's weights, while waiting.
            self._do_brief()
            self._take_turn()

    def _called(self) -> bool:
        return self._next_lane() is not None or bool(self._first) or self._has_steps or self._stopping

    def _do_brief(self) -> None:
        while self._first:
            task = self._first.popleft()
            if not self._dropped(task):
                self._work([task])

    def _take_turn(self) -> None:
        """A task, or a turn of the stepwise work, whichever has had less of the time they share."""
        steps = self._has_steps
        with self._changed:
            lane = self._next_lane()
            contested = lane is not None and steps
            tasks = self._take(lane) if lane is not None and not (steps and self._owed >= 0) else []
        started = time.monotonic()
        if tasks:
            tasks = [task for task in tasks if not self._dropped(task)]
            if tasks:
                self._work(tasks)
            seconds = time.monotonic() - started
            self._turn[lane] += seconds
            self._account(seconds, contested)
        elif steps:
            self._stepwise.advance(TURN_SECONDS)
            self._account(started - time.monotonic(), contested)

    @property
    def _has_steps(self) -> bool:
        return self._stepwise is not None and self._stepwise.busy

    def _account(self, seconds: float, contested: bool) -> None:
        """More time for tasks, or if negative for steps. Time that nobody else wanted pays debts but makes none."""
        if not self._has_steps:
            self._owed = 0.0
        elif contested:
            self._owed += seconds
        elif self._owed * seconds < 0:
            self._owed = (self._owed + seconds) if abs(seconds) < abs(self._owed) else 0.0

    def _next_lane(self) -> str | None:
        """The one that has had least of the thread's time, of those that have something due."""
        return min((lane for lane, tasks in self._lanes.items() if tasks[0].due), key=self._turn.__getitem__, default=None)

    def _take(self, lane: str) -> list[Task]:
        first = self._lanes[lane].popleft()
        together, rows = [first], first.rows
        if first.batch_key is not None:
            for tasks in self._lanes.values():
                for task in [task for task in tasks if task.batch_key == first.batch_key]:
                    if rows + task.rows <= self._max_batch_rows:
                        together.append(task)
                        rows += task.rows
                        tasks.remove(task)
        self._lanes = {name: tasks for name, tasks in self._lanes.items() if tasks}
        self._clock = max(self._clock, self._turn[lane])
        # What a lane had that is empty by now counts for as long as it is ahead of the others.
        self._turn = {name: turn for name, turn in self._turn.items() if name in self._lanes or name == lane or turn > self._clock}
        return together

    def _dropped(self, task: Task) -> bool:
        if not task.cancelled():
            return False
        task.future.fail(session_ended())
        return True

    def _work(self, tasks: list[Task]) -> None:
        try:
            if tasks[0].work_together:
                for task, result in zip(tasks, tasks[0].work_together([task.payload for task in tasks]), strict=True):
                    task.future.finish(result)
            else:
                result = tasks[0].work()
                if result is not None:
                    tasks[0].future.finish(result)
        except Exception as error:
            if not isinstance(error, EngineError):
                log.exception("a request failed")
            for task in tasks:
                task.future.fail(explained(error))


def session_ended() -> EngineError:
    """What a request hears whose client ended before its turn came."""
    return EngineError("the session ended before this request ran", "Start a new session.")


def explained(error: Exception) -> Exception:
    """What went wrong, in words that help."""
    return out_of_memory("the request") if ran_out(error) else error
