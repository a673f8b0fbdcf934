"""Sessions: one for each client, for as long as it is heard of. Knows nothing of what a session holds.

The SDK sends a heartbeat every ten seconds, whatever else it does. A client that misses six of them is quiet: nothing more
is computed for it until it is heard again. It is taken for dead, and what it held is let go, as soon as it is quiet and the
last thing heard of it was that it hung up, as the connections of a killed process do; one that merely says nothing (halted in
a debugger, cut off from the network) may come back within ten minutes.
"""

from __future__ import annotations

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from engine.server.owners import current_owner
from engine.server.requests import FinishReason, FinishSession
from engine.server.worker import Future, Task, Work

QUIET_SECONDS = 60.0
SESSION_SECONDS = 600.0

# Of the connection that the request at hand came by: the sessions that were heard over it.
talking: ContextVar[dict[str, Session] | None] = ContextVar("talking", default=None)


@dataclass
class Session:
    """One client: the runs and samplers it made end with it."""

    id: str
    seen: float
    metadata: dict[str, Any] = field(default_factory=dict)
    display_name: str | None = None
    owner: str = field(default_factory=current_owner)
    created_at: float = field(default_factory=time.time)
    end: FinishSession | None = None
    hung_up: bool = False  # a connection of it was closed, and it wasn't heard of since

    def heard(self) -> None:
        """A sign of life."""
        self.seen, self.hung_up = time.monotonic(), False
        connection = talking.get()
        if connection is not None:
            connection[self.id] = self

    def finish(self, end: FinishSession | None) -> None:
        """Ends it; the first end stays."""
        self.end = self.end or end or FinishSession()

    @property
    def finished(self) -> bool:
        """Whether its client said so, or fell silent."""
        return self.end is not None

    @property
    def quiet(self) -> bool:
        """Whether it was heard of so long ago that nothing is computed for it."""
        return time.monotonic() - self.seen > QUIET_SECONDS

    @property
    def lapsed(self) -> bool:
        """Whether it won't come back."""
        return time.monotonic() - self.seen > (QUIET_SECONDS if self.hung_up else SESSION_SECONDS)

    def lapse(self) -> None:
        """Ends it for want of a client."""
        self.finish(FinishSession(reason=FinishReason(type="interrupted"), detail="the client fell silent"))

    def task(self, run_id: str, future: Future, work: Work) -> Task:
        """Work of one of its runs: dropped when the session ends, put off while the client is quiet."""
        return Task(future, work, cancelled=lambda: self.finished, held=lambda: self.quiet, lane=run_id)
