"""Metrics, samples and progress on their way to the store: gathered, and written together.

One transaction a step would keep the disk busier than the training. Knows nothing of who asks for the flush.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from engine.errors import StorageError
from engine.store import Store


class MetricsBuffer:
    """Gathers what one attempt of a job reports; writes at `size` rows, after `seconds`, and whenever `flush` is called.

    What couldn't be written stays for the next flush; only `flush` itself raises StorageError, so that a database that is
    away for a while doesn't end a run. Safe to call from several threads.
    """

    def __init__(self, store: Store, job_id: str, attempt: int, *, size: int = 500, seconds: float = 0.5):
        self._store, self._job_id, self._attempt = store, job_id, attempt
        self._size, self._seconds = size, seconds
        self._metrics: dict[tuple[int, str], tuple[float, float]] = {}
        self._samples: list[dict[str, Any]] = []
        self._progress: dict[str, Any] | None = None
        self._oldest: float | None = None
        self._rows = threading.Lock()
        # Held while writing, so that whoever flushes before a checkpoint waits for a flush that is under way.
        self._writing = threading.Lock()

    def add_metrics(self, step: int, values: dict[str, float]) -> None:
        """Numbers of one step; the first value of a name and step counts."""
        at = self._store.now()
        with self._rows:
            for name, value in values.items():
                self._metrics.setdefault((step, name), (float(value), at))
            self._touch()
        self.flush_if_due()

    def add_sample(self, row: dict[str, Any]) -> None:
        """One answer to a fixed prompt."""
        with self._rows:
            self._samples.append(row)
            self._touch()
        self.flush_if_due()

    def set_progress(self, progress: dict[str, Any]) -> None:
        """How far the run is; only the latest counts."""
        with self._rows:
            self._progress = progress
            self._touch()
        self.flush_if_due()

    def flush_if_due(self) -> None:
        """Writes if enough has gathered, or for long enough. Raises LeaseLost."""
        with self._rows:
            rows = len(self._metrics) + len(self._samples)
            due = self._oldest is not None and (rows >= self._size or time.monotonic() - self._oldest >= self._seconds)
        if due:
            with suppress(StorageError):
                self.flush()

    def flush(self, checkpoints: Sequence[Mapping[str, Any]] = ()) -> None:
        """Writes everything now, and in the same transaction `checkpoints`. Raises LeaseLost and StorageError, and then keeps it."""
        with self._writing:
            with self._rows:
                metrics, samples, progress = self._metrics, self._samples, self._progress
                self._metrics, self._samples, self._progress, self._oldest = {}, [], None, None
            if not (metrics or samples or progress or checkpoints):
                return
            rows = [{"step": step, "name": name, "value": value, "at": at} for (step, name), (value, at) in metrics.items()]
            try:
                self._store.record(self._job_id, self._attempt, metrics=rows, samples=samples, progress=progress, checkpoints=checkpoints)
            except BaseException:
                with self._rows:
                    self._metrics = metrics | {key: value for key, value in self._metrics.items() if key not in metrics}
                    self._samples = samples + self._samples
                    self._progress = self._progress or progress
                    self._touch()
                raise

    def _touch(self) -> None:
        if self._oldest is None:
            self._oldest = time.monotonic()
