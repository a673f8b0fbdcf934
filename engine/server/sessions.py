"""Sessions: one for each client. Knows nothing of what a session holds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from engine.server.owners import current_owner
from engine.server.requests import FinishSession


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

    def finish(self, end: FinishSession | None) -> None:
        """Ends it; the first end stays."""
        self.end = self.end or end or FinishSession()

    @property
    def finished(self) -> bool:
        """Whether its client said so, or fell silent."""
        return self.end is not None
