"""Runner: claims jobs, gives each a thread and a heartbeat, and settles how each ended.

A plain class: in a process of its own (`host`), inside another (inline), or in the foreground for one job, it's the
same code. Knows nothing of training: `execute(job_run)` does it and returns 'done', 'paused' or 'stopped'.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from engine import policy
from engine.errors import BudgetSpent, EndpointLost, EngineError, KeyNeeded, PaymentNeeded, StateError, StorageError
from engine.jobs import logs, states
from engine.jobs.run import Interrupted, JobRun
from engine.recipe import Recipe
from engine.store import Job, LeaseLost, Store

Execute = Callable[[JobRun], str]

# What somebody has to see to before the run goes on; nothing is wrong with it.
_WAITS = {KeyNeeded: states.NEEDS_KEY, PaymentNeeded: states.PAUSED, BudgetSpent: states.STOPPED}
_ON_THE_WAY = {states.PAUSED: states.PAUSING, states.STOPPED: states.STOPPING}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TICK_S = 0.25


class Runner:
    """Runs jobs of one store, `max_jobs` at a time, and takes up again what other runners left lying."""

    def __init__(
        self,
        store: Store,
        execute: Execute,
        runner_id: str | None = None,
        *,
        max_jobs: int = 1,
        lease_s: float = 15.0,
        renew_s: float = 3.0,
        poll_s: float = 0.5,
    ):
        self.runner_id = runner_id or f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._store, self._execute = store, execute
        self._max_jobs, self._lease_s, self._renew_s, self._poll_s = max_jobs, lease_s, renew_s, poll_s
        self._stopping = threading.Event()
        self._freed = threading.Event()
        self._lock = threading.Lock()
        self._running: dict[str, tuple[threading.Thread, JobRun]] = {}
        self._thread: threading.Thread | None = None
        self._busy_at = time.monotonic()

    def start(self) -> None:
        """Begins to claim jobs, in the background."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._serve, name="runner", daemon=True)
        self._thread.start()

    def stop(self, wait: float = 10.0) -> None:
        """Claims no more, and interrupts what runs: its jobs go on from their last checkpoints, in any runner."""
        self._stopping.set()
        self._freed.set()
        deadline = time.monotonic() + wait
        if self._thread:
            self._thread.join(wait)
        with self._lock:
            running = list(self._running.values())
        for _, run in running:
            run.interrupt()
        for thread, run in running:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                # A thread can't be ended from outside; the new state shuts it out of the store.
                self._settle(run, states.INTERRUPTED)

    def idle_seconds(self) -> float:
        """How long nothing has run here."""
        with self._lock:
            return 0.0 if self._running else time.monotonic() - self._busy_at

    def run_one(self, job_id: str) -> Job:
        """Runs one job to its end in this thread. Raises StateError if it can't be claimed, StorageError if the store fails.

        Ctrl-C pauses it where its last checkpoint is, and is raised again.
        """
        job = self._store.claim_job(self.runner_id, self._lease_s, job_id)
        if job is None:
            found = self._store.job(job_id, owner=None)
            raise StateError(f"{found.name} is {found.state} and can't be started here.", where=f"job {job_id}")
        problem = self._carry(job)
        if isinstance(problem, StorageError):
            raise problem
        return self._store.job(job_id, owner=None)

    def run_new(self, recipe: Recipe, owner: str = "local", on_start: Callable[[Job], Any] | None = None) -> Job:
        """Makes a job that no other runner may claim, and runs it to its end in this thread."""
        job = self._store.create_job(recipe, owner, reserve_for=self.runner_id)
        if on_start:
            on_start(job)
        return self.run_one(job.id)

    def _serve(self) -> None:
        while not self._stopping.is_set():
            self._freed.clear()
            try:
                claimed = self._claim()
            except StorageError as error:
                logs.log("error", str(error), runner=self.runner_id)
                claimed = False
            if not claimed and not self._stopping.is_set():
                self._freed.wait(self._poll_s)

    def _claim(self) -> bool:
        with self._lock:
            running = set(self._running)
        if len(running) >= self._max_jobs:
            return False
        # A machine that slept may find the leases of its own running jobs run out.
        job = self._store.claim_job(self.runner_id, self._lease_s, exclude=running)
        if job is None:
            return False
        thread = threading.Thread(target=self._carry, args=(job,), name=f"job-{job.id}", daemon=True)
        thread.start()
        # The thread enters itself in the table; until then the next claim must not believe there is room.
        while thread.is_alive() and not self._entered(job.id):
            time.sleep(0.001)
        return True

    def _entered(self, job_id: str) -> bool:
        with self._lock:
            return job_id in self._running

    def _carry(self, job: Job) -> EngineError | None:
        again: Job | None = job
        try:
            while again is not None:
                again = self._attempt(again)
        except (LeaseLost, StorageError) as error:
            # Nothing more can be said in the store; the lease runs out and some runner takes the job up again.
            logs.log("error", str(error), job_id=job.id, runner=self.runner_id)
            return error
        finally:
            with self._lock:
                self._running.pop(job.id, None)
                self._busy_at = time.monotonic()
            self._freed.set()
        return None

    def _attempt(self, job: Job) -> Job | None:
        try:
            run = JobRun(self._store, job)
        except EngineError as error:
            self._store.transition(job.id, states.FAILED, attempt=job.attempt, error=logs.masked(error.to_dict()))
            return None
        with self._lock:
            self._running[job.id] = (threading.current_thread(), run)
        if self._stopping.is_set():
            run.interrupt()
        run.log("info", f"attempt {job.attempt} begins", runner=self.runner_id, from_step=run.resume.step if run.resume else 0)
        ended = threading.Event()
        heart = threading.Thread(target=self._beat, args=(run, ended), name=f"heart-{job.id}", daemon=True)
        heart.start()
        try:
            return self._execute_once(run)
        finally:
            ended.set()
            heart.join()

    def _execute_once(self, run: JobRun) -> Job | None:
        try:
            outcome = self._execute(run)
            if outcome not in (states.DONE, states.PAUSED, states.STOPPED):
                raise ValueError(f"execute returned {outcome!r}, which is no outcome")
            run.flush()
            self._settle(run, outcome)
        except LeaseLost:
            run.log("warning", "the job is in other hands; this attempt ends")
        except Interrupted:
            self._settle(run, states.INTERRUPTED)
        except EndpointLost as error:
            return self._restart(run, error)
        except tuple(_WAITS) as error:
            run.log("warning", str(error))
            to = next(state for kind, state in _WAITS.items() if isinstance(error, kind))
            self._settle(run, to, error=policy.of(run.owner).told(logs.masked(error.to_dict())))
        except Exception as error:
            self._fail(run, error)
        except BaseException:
            self._settle(run, states.PAUSED)
            raise
        return None

    def _restart(self, run: JobRun, error: EndpointLost) -> Job | None:
        run.log("warning", f"what was training is gone: {error}")
        self._flush_quietly(run)
        why = logs.masked(error.message)
        job = self._store.restart(run.job_id, self.runner_id, run.attempt, why, self._lease_s)
        if job.state != states.PREPARING:
            run.log("warning", f"attempt {run.attempt} ends: {job.state}")
            return None
        return job

    def _fail(self, run: JobRun, error: Exception) -> None:
        run.log("error", str(error), kind=type(error).__name__, traceback="".join(traceback.format_exception(error)))
        self._flush_quietly(run)
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            error = StorageError(
                f"the disk is full: {error.strerror} while {error.filename or 'a file of the run'} was written",
                "Make room, or move the data directory (THINKER_HOME); then resume the run: it goes on from its last checkpoint.",
                where=str(run.folder),
            )
        if not isinstance(error, EngineError):
            plain = f"The run ended with an error that it didn't expect: {type(error).__name__}: {error}"
            error = EngineError(plain, f"The whole story is in {logs.log_file(run.job_id)}; resume the job to try again.")
        self._settle(run, states.FAILED, error=policy.of(run.owner).told(logs.masked(error.to_dict())))

    def _settle(self, run: JobRun, to: str, **values: Any) -> None:
        self._flush_quietly(run)
        try:
            state = self._store.job(run.job_id, owner=None).state
            if state == states.STOPPING and to in (states.PAUSED, states.INTERRUPTED, states.NEEDS_KEY):
                to = states.STOPPED
            elif state == states.PAUSING and to in (states.INTERRUPTED, states.NEEDS_KEY):
                to = states.PAUSED
            by_way_of = _ON_THE_WAY.get(to)
            if by_way_of and state != by_way_of:
                self._store.transition(run.job_id, by_way_of, attempt=run.attempt)
            self._store.transition(run.job_id, to, attempt=run.attempt, **values)
        except LeaseLost:
            run.log("warning", f"the job is in other hands; it doesn't become {to}")
        else:
            run.log("info", f"attempt {run.attempt} ends: {to}")

    def _flush_quietly(self, run: JobRun) -> None:
        with suppress(LeaseLost, StorageError):
            run.flush()

    def _beat(self, run: JobRun, ended: threading.Event) -> None:
        renewed, complaint = time.monotonic(), ""
        while not ended.wait(min(_TICK_S, self._renew_s)):
            try:
                # First, so that numbers which can't be written don't cost a run that is alive its lease.
                if time.monotonic() - renewed >= self._renew_s:
                    if not self._store.renew_lease(run.job_id, self.runner_id, run.attempt, self._lease_s):
                        run.lose()
                        return
                    renewed = time.monotonic()
                run.tick()
            except LeaseLost:
                run.lose()
                return
            except Exception as error:
                # A heart that stopped for any reason would make a run that is alive look dead.
                if str(error) != complaint:
                    run.log("error", str(error), kind=type(error).__name__)
                complaint = str(error)
