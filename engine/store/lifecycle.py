"""Who may run a job, and how it moves from state to state: claims, leases, control, recovery.

A claim opens an attempt. The attempt's number is what proves a run's right to write: whoever claims the job next gets
a higher one, and from then on the old run's writes raise LeaseLost. Knows nothing of threads or of what a run does.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, and_, case, func, or_, select, update

from engine.errors import EngineError, StateError
from engine.jobs import states
from engine.recipe import Recipe
from engine.store import schema
from engine.store.database import Database, from_json, to_json
from engine.store.jobs import as_job, attempts_of, clean, job_row, require_turn
from engine.store.records import Job

jobs = schema.jobs

LEASE_S = 15.0
LONGEST_LEASE_S = 900.0
"""A lease that ends later than this from now was given by a clock that has been set back since: it counts as run out."""
MAX_FRUITLESS = 3
"""So many recoveries in a row that get no further than their predecessors, and the job fails."""


class LeaseLost(StateError):
    """The job isn't this run's any more: it was interrupted, finished or claimed by another. Leave without a word."""


class Lifecycle(Database):
    """The part of the Store that moves jobs between states."""

    def claim_job(self, runner_id: str, lease_s: float = LEASE_S, job_id: str | None = None, exclude: Collection[str] = ()) -> Job | None:
        """Takes the next job that wants a runner (or `job_id`), as `preparing`; None if there is none.

        Jobs whose runner fell silent come first, then interrupted ones, then the queue, oldest first. `exclude` names the jobs
        that the caller is running now.
        """
        if not self.has_work(runner_id, job_id, exclude):
            return None
        with self.write() as connection:
            now = self.settled_now()
            for row in connection.execute(_locked(select(jobs).where(_lost(now), *_among(job_id, exclude)))).all():
                self._lose(connection, row, "its runner fell silent")
            while True:
                interrupted_first = case((jobs.c.state == states.INTERRUPTED, 0), else_=1)
                query = select(jobs).where(_waiting(now, runner_id), *_among(job_id, exclude))
                row = connection.execute(_locked(query.order_by(interrupted_first, jobs.c.created_at, jobs.c.id).limit(1))).first()
                if row is None:
                    return None
                why = "recovery" if row.state == states.INTERRUPTED else "resume" if row.attempt > 1 else "start"
                job = self._begin(connection, row, runner_id, lease_s, why)
                if job.state == states.PREPARING:
                    return job

    def has_work(self, runner_id: str = "", job_id: str | None = None, exclude: Collection[str] = ()) -> bool:
        """Whether a claim would find something; only reads."""
        now = self.settled_now()
        query = select(jobs.c.id).where(or_(_lost(now), _waiting(now, runner_id)), *_among(job_id, exclude)).limit(1)
        with self.read() as connection:
            return connection.execute(query).first() is not None

    def renew_lease(self, job_id: str, runner_id: str, attempt: int, lease_s: float = LEASE_S) -> bool:
        """Keeps the job for another `lease_s`; False if it isn't this run's any more."""
        now = self.now()
        mine = and_(jobs.c.id == job_id, jobs.c.lease_owner == runner_id, jobs.c.attempt == attempt, jobs.c.state.in_(states.ACTIVE))
        with self.write() as connection:
            return connection.execute(update(jobs).where(mine).values(lease_until=now + lease_s, heartbeat_at=now)).rowcount == 1

    def poll_control(self, job_id: str, attempt: int) -> str | None:
        """What was asked of the run: pause, stop, skip or None. Raises LeaseLost."""
        with self.read() as connection:
            query = select(jobs.c.control, jobs.c.attempt, jobs.c.state).where(jobs.c.id == job_id)
            row = connection.execute(query).first()
        if row is None or row.attempt != attempt or row.state not in states.ACTIVE:
            raise lost(job_id)
        return row.control

    def set_control(self, job_id: str, control: str | None, owner: str | None = "local") -> Job:
        """Asks a job to pause or stop; one that isn't running does so at once. `skip` asks it to leave out what it does just now.

        Raises StateError where that makes no sense.

        None withdraws a request that hasn't been taken up; a run that is pausing or stopping can't be called back.
        """
        with self.write() as connection:
            row = job_row(connection, job_id, owner, lock=True)
            label = states.LIGHTS[row.state].label
            if control is None:
                if row.control and row.control != states.SKIP:
                    raise StateError(f"Job {job_id} is {label} already.", "Wait until it is done, then resume it.")
                return as_job(row)
            if control == states.SKIP:
                if states.SKIP not in states.requests(row.state, row.skips):
                    advice = "Evaluations, samples and the proof can be skipped while they are on."
                    raise StateError(f"Job {job_id} is {label}: there is nothing to skip just now.", advice)
                connection.execute(update(jobs).where(jobs.c.id == job_id).values(control=control))
                self.add_event(connection, job_id, row.attempt, "skip", row.skips)
                return as_job(job_row(connection, job_id, owner))
            target = states.CONTROLS[control].get(row.state)
            if target is None:
                raise StateError(f"Job {job_id} is {label}: it can't be asked to {control}.")
            if target != row.state:
                self._move(connection, row, target, **({"control": control} if target in states.ACTIVE else {}))
            return as_job(job_row(connection, job_id, owner))

    def resume(
        self,
        job_id: str,
        owner: str | None = "local",
        *,
        recipe: Recipe | None = None,
        most: int | None = None,
        reserve_for: str | None = None,
        reserve_s: float = 15.0,
    ) -> Job:
        """Puts a paused, stopped, failed or interrupted job back in the queue, to go on from its last checkpoint, with another recipe if
        one is given.

        `most`: so many turns has its owner; raises NotAllowed where others have them all.
        """
        with self.write() as connection:
            self.hold(connection, owner or "")
            row = job_row(connection, job_id, owner, lock=True)
            if row.state not in states.RESUMABLE:
                raise StateError(
                    f"Job {job_id} is {states.LIGHTS[row.state].label}: there is nothing to resume.",
                    "Only paused, stopped, failed or cut-off jobs can be resumed.",
                )
            require_turn(connection, owner, most, beside=job_id)
            fresh = {"attempt": row.attempt + 1, "error": None, "finished_at": None, "control": None}
            lease = {"lease_owner": reserve_for, "lease_until": self.now() + reserve_s if reserve_for else None}
            changed = {"recipe": recipe.to_json()} if recipe else {}
            self._move(connection, row, states.QUEUED, **fresh, **lease, **changed)
            return as_job(job_row(connection, job_id, owner))

    def transition(self, job_id: str, to: str, *, runner_id: str | None = None, attempt: int | None = None, **fields: Any) -> Job:
        """Moves a job along the table in `states`. `fields`: stage, step, total_steps, error (dict), result (dict).

        A run gives its `runner_id` and `attempt`; if the job isn't its own any more that raises LeaseLost. Its move to a working
        state is passed over when the job was asked to pause or stop meanwhile. Raises StateError for a move that the table
        doesn't have.
        """
        with self.write() as connection:
            row = self._held(connection, job_id, runner_id, attempt)
            if not (to in states.WORKING and row.state in (states.PAUSING, states.STOPPING)):
                self._move(connection, row, to, **fields)
            return as_job(job_row(connection, job_id, None))

    def set_fields(self, job_id: str, attempt: int, *, stage: str | None = None, result: dict[str, Any] | None = None) -> None:
        """What a run says of itself between transitions; the keys of `result` are added to those that are there."""
        with self.write() as connection:
            row = self._held(connection, job_id, None, attempt)
            values: dict[str, Any] = {}
            if stage is not None and stage != row.stage:
                values["stage"] = stage
                self.add_event(connection, job_id, attempt, "stage", stage)
            if result is not None:
                values["result"] = to_json({**(from_json(row.result) or {}), **result})
            if values:
                connection.execute(update(jobs).where(jobs.c.id == job_id).values(**values))

    def offer_skip(self, job_id: str, attempt: int, what: str) -> None:
        """Says what the run does that can be skipped; empty when that is over. An older wish to skip is forgotten. Raises LeaseLost."""
        with self.write() as connection:
            row = self._held(connection, job_id, None, attempt)
            control = None if row.control == states.SKIP else row.control
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(skips=what, control=control))

    def start_from(self, job_id: str, attempt: int, step: int) -> None:
        """Says that this attempt goes on from `step`, where that isn't the last checkpoint's."""
        table = schema.attempts
        with self.write() as connection:
            self._held(connection, job_id, None, attempt)
            mine = and_(table.c.job_id == job_id, table.c.attempt == attempt)
            connection.execute(update(table).where(mine).values(start_step=step))
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(step=step))

    def restart(self, job_id: str, runner_id: str, attempt: int, why: str, lease_s: float = LEASE_S) -> Job:
        """Ends the attempt as lost and opens the next one in the same runner's hands, to go on from the last checkpoint.

        The job that comes back is `preparing`, unless it was to pause or stop, or fails for getting nowhere.
        """
        with self.write() as connection:
            row = self._held(connection, job_id, runner_id, attempt)
            self._lose(connection, row, why)
            row = job_row(connection, job_id, None)
            return self._begin(connection, row, runner_id, lease_s, "restart", why) if row.state == states.INTERRUPTED else as_job(row)

    def add_event(self, connection: Connection, job_id: str, attempt: int, kind: str, text: str) -> None:
        """One more line in the job's history, within the caller's transaction."""
        connection.execute(schema.events.insert().values(job_id=job_id, attempt=attempt, at=self.now(), kind=kind, text=text))

    def _held(self, connection: Connection, job_id: str, runner_id: str | None, attempt: int | None) -> Row:
        row = job_row(connection, job_id, None, lock=True)
        if attempt is not None and (row.attempt != attempt or row.state not in states.ACTIVE):
            raise lost(job_id)
        if runner_id is not None and row.lease_owner != runner_id:
            raise lost(job_id)
        return row

    def _begin(self, connection: Connection, row: Row, runner_id: str, lease_s: float, why: str, note: str = "") -> Job:
        automatic = why in ("recovery", "restart")
        if automatic and _fruitless(connection, row.id) >= MAX_FRUITLESS:
            error = EngineError(
                f"The run was cut off {MAX_FRUITLESS + 1} times and got no further than step {row.step}{': ' + note if note else '.'}",
                "Look at the job's log for the reason; then resume it, and it goes on from its last checkpoint.",
                where=f"job {row.id}",
            )
            self._move(connection, row, states.FAILED, error=error.to_dict())
            return as_job(job_row(connection, row.id, None))
        now, attempt = self.now(), row.attempt + automatic
        table = schema.checkpoints
        kept = and_(clean(connection, table, row.id), table.c.kind == "weights")
        start = connection.scalar(select(table.c.step).where(kept).order_by(table.c.id.desc()).limit(1)) or 0
        connection.execute(schema.attempts.insert().values(job_id=row.id, attempt=attempt, start_step=start, started_at=now, why=why))
        lease = {"lease_owner": runner_id, "lease_until": now + lease_s, "heartbeat_at": now}
        started = {"started_at": row.started_at or now, "attempt": attempt, "step": start, "control": None, "skips": ""}
        self._move(connection, row, states.PREPARING, **started, **lease)
        return as_job(job_row(connection, row.id, None))

    def _lose(self, connection: Connection, row: Row, why: str) -> None:
        """What was asked of a run before it was lost still holds: it has paused or stopped, if not in the way that was meant."""
        settled = {states.PAUSING: states.PAUSED, states.STOPPING: states.STOPPED}
        self._move(connection, row, settled.get(row.state, states.INTERRUPTED), ended="lost", note=why)

    def _move(self, connection: Connection, row: Row, to: str, *, ended: str | None = None, note: str = "", **fields: Any) -> None:
        if not states.allowed(row.state, to):
            raise StateError(f"Job {row.id} is {states.LIGHTS[row.state].label} ({row.state}): it can't become {to}.")
        values: dict[str, Any] = {"state": to, **fields}
        for name in ("error", "result"):
            if name in values:
                values[name] = to_json(values[name])
        if to not in states.ACTIVE:
            values = {"stage": "", "skips": "", "control": None, "lease_owner": None, "lease_until": None, **values}
        if to in states.FINAL:
            values["finished_at"] = self.now()
        connection.execute(update(jobs).where(jobs.c.id == row.id).values(**values))
        if row.state in states.ACTIVE and to not in states.ACTIVE:
            table = schema.attempts
            mine = and_(table.c.job_id == row.id, table.c.attempt == row.attempt)
            end_step = func.coalesce(fields.get("step"), row.step)
            connection.execute(update(table).where(mine).values(ended_at=self.now(), end_step=end_step, ended=ended or to))
        attempt = values.get("attempt", row.attempt)
        self.add_event(connection, row.id, attempt, "state", f"{to}: {note}" if note else to)


def lost(job_id: str) -> LeaseLost:
    """The error for a run whose job isn't its own any more."""
    return LeaseLost(f"Job {job_id} isn't this run's any more: another runner has it, or it has ended.")


def _lost(now: float | None):
    return and_(jobs.c.state.in_(states.ACTIVE), _run_out(now))


def _waiting(now: float | None, runner_id: str):
    free = or_(_run_out(now), jobs.c.lease_owner == runner_id)
    return and_(jobs.c.state.in_((states.QUEUED, states.INTERRUPTED)), free)


def _run_out(now: float | None):
    """Whether nobody holds the job; where it isn't known just now how late it is, each lease counts."""
    if now is None:
        return jobs.c.lease_until.is_(None)
    return or_(jobs.c.lease_until.is_(None), jobs.c.lease_until < now, jobs.c.lease_until > now + LONGEST_LEASE_S)


def _among(job_id: str | None, exclude: Collection[str]) -> list:
    chosen = [jobs.c.id == job_id] if job_id else []
    return chosen + ([jobs.c.id.not_in(list(exclude))] if exclude else [])


def _locked(query):
    return query.with_for_update(skip_locked=True)


def _fruitless(connection: Connection, job_id: str) -> int:
    """How many automatic attempts in a row were lost without getting further than any attempt before."""
    count, best = 0, 0
    for item in attempts_of(connection, job_id):
        got_nowhere = item.ended == "lost" and (item.end_step or 0) <= best
        count = count + 1 if got_nowhere and item.why in ("recovery", "restart") else 0
        best = max(best, item.end_step or 0)
    return count
