"""What a run leaves behind as it goes: metrics, samples, checkpoints, progress.

Written in batches, each batch one transaction; read as one clean line through all attempts. Knows nothing of who runs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, delete, func, not_, select, update

from engine.errors import NotFound
from engine.store import schema
from engine.store.database import from_json, to_json
from engine.store.jobs import clean, job_row
from engine.store.lifecycle import Lifecycle
from engine.store.records import Checkpoint, Metric, Sample

metrics, samples, checkpoints = schema.metrics, schema.samples, schema.checkpoints


class Series(Lifecycle):
    """The part of the Store that holds a run's numbers, answers and saved states."""

    def record(
        self,
        job_id: str,
        attempt: int,
        *,
        metrics: Sequence[Mapping[str, Any]] = (),
        samples: Sequence[Mapping[str, Any]] = (),
        progress: Mapping[str, Any] | None = None,
        checkpoints: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """One batch, all of it or nothing. Rows that are there already are passed over: no step is ever written twice.

        metrics: step, name, value, at. samples: step, position, prompt, expected, answer, correct. progress: step, total_steps,
        tokens, training_seconds. checkpoints: step, kind, path, reason, loop_state, renderer, bytes. Raises LeaseLost.
        """
        key = {"job_id": job_id, "attempt": attempt}
        with self.write() as connection:
            self._held(connection, job_id, None, attempt)
            if metrics:
                rows = [{"at": self.now(), **row, **key, "value": _number(row["value"])} for row in metrics]
                connection.execute(self.insert_new(schema.metrics), rows)
            if samples:
                connection.execute(self.insert_new(schema.samples), [{"expected": None, "correct": None, **row, **key} for row in samples])
            if progress:
                connection.execute(update(schema.jobs).where(schema.jobs.c.id == job_id).values(**progress))
            for row in checkpoints:
                values = {"at": self.now(), **row, **key, "loop_state": to_json(row.get("loop_state") or {})}
                connection.execute(schema.checkpoints.insert().values(**values))
                self.add_event(connection, job_id, attempt, "checkpoint", f"{row['kind']} at step {row['step']} ({row['reason']})")

    def add_metrics(self, job_id: str, attempt: int, batch: Iterable[tuple[int, str, float]]) -> None:
        """(step, name, value), in one transaction."""
        self.record(job_id, attempt, metrics=[{"step": step, "name": name, "value": value} for step, name, value in batch])

    def progress(self, job_id: str, attempt: int, *, step: int, total_steps: int, tokens: int, training_seconds: float) -> None:
        """How far the run is, in totals over all attempts."""
        values = {"step": step, "total_steps": total_steps, "tokens": tokens, "training_seconds": training_seconds}
        self.record(job_id, attempt, progress=values)

    def metrics(
        self,
        job_id: str,
        after_id: int = 0,
        names: Collection[str] | None = None,
        limit: int | None = None,
        owner: str | None = "local",
    ) -> list[Metric]:
        """Every row of every attempt since `after_id`, in the order of writing: for following a run. `curve` is for drawing."""
        query = select(metrics).where(metrics.c.job_id == job_id, metrics.c.id > after_id).order_by(metrics.c.id).limit(limit)
        if names is not None:
            query = query.where(metrics.c.name.in_(list(names)))
        with self.read() as connection:
            job_row(connection, job_id, owner)
            rows = connection.execute(query).all()
        return [Metric(**{**row._mapping, "value": _back(row.value)}) for row in rows]

    def metric_names(self, job_id: str, owner: str | None = "local") -> list[str]:
        """The names that the job has measured, in alphabetical order."""
        with self.read() as connection:
            job_row(connection, job_id, owner)
            query = select(metrics.c.name).where(metrics.c.job_id == job_id).order_by(metrics.c.name).limit(1)
            # One look at the index per name: DISTINCT would read every row of a long run.
            name, names = connection.scalar(query), []
            while name is not None:
                names.append(name)
                name = connection.scalar(query.where(metrics.c.name > name))
            return names

    def curve(self, job_id: str, name: str, after_step: int = -1, owner: str | None = "local") -> list[tuple[int, float]]:
        """(step, value) as of one uninterrupted run: each step once, by the latest attempt; what was undone is left out.

        To poll, ask for what lies after the last step seen, and begin anew whenever the job's `attempt` changes.
        """
        with self.read() as connection:
            job_row(connection, job_id, owner)
            query = (
                select(metrics.c.step, metrics.c.value)
                .where(clean(connection, metrics, job_id), metrics.c.name == name, metrics.c.step > after_step)
                .order_by(metrics.c.step, metrics.c.attempt)
            )
            points = {step: _back(value) for step, value in connection.execute(query)}
        return list(points.items())

    def latest_metrics(self, job_id: str, owner: str | None = "local") -> dict[str, float]:
        """The last value of each metric on the clean line."""
        latest: dict[str, float] = {}
        names = self.metric_names(job_id, owner)
        with self.read() as connection:
            kept = clean(connection, metrics, job_id)
            for name in names:
                newest = (metrics.c.step.desc(), metrics.c.attempt.desc())
                row = connection.execute(select(metrics.c.value).where(kept, metrics.c.name == name).order_by(*newest).limit(1)).first()
                if row is not None:
                    latest[name] = _back(row.value)
        return latest

    def samples(self, job_id: str, after_step: int = -1, owner: str | None = "local") -> list[Sample]:
        """By step and position, on the clean line."""
        with self.read() as connection:
            job_row(connection, job_id, owner)
            query = (
                select(samples)
                .where(clean(connection, samples, job_id), samples.c.step > after_step)
                .order_by(samples.c.step, samples.c.position, samples.c.attempt)
            )
            rows = {(row.step, row.position): Sample(**row._mapping) for row in connection.execute(query)}
        return list(rows.values())

    def checkpoints(self, job_id: str, kind: str | None = None, owner: str | None = "local") -> list[Checkpoint]:
        """The saved states on the clean line, oldest first."""
        with self.read() as connection:
            job_row(connection, job_id, owner)
            query = select(checkpoints).where(clean(connection, checkpoints, job_id)).order_by(checkpoints.c.id)
            rows = connection.execute(query.where(checkpoints.c.kind == kind) if kind else query).all()
        return [Checkpoint(**{**row._mapping, "loop_state": from_json(row.loop_state)}) for row in rows]

    def last_checkpoint(self, job_id: str, kind: str = "weights", owner: str | None = "local") -> Checkpoint | None:
        """The state to go on from; None before the first."""
        found = self.checkpoints(job_id, kind, owner)
        return found[-1] if found else None

    def undone_checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Saved states that no later attempt went on from: the clean line has others in their place."""
        with self.read() as connection:
            query = select(checkpoints).where(checkpoints.c.job_id == job_id, not_(clean(connection, checkpoints, job_id)))
            rows = connection.execute(query.order_by(checkpoints.c.id)).all()
        return [Checkpoint(**{**row._mapping, "loop_state": from_json(row.loop_state)}) for row in rows]

    def checkpoint_bytes(self, owner: str | None = "local") -> dict[str, int]:
        """{job id: what its saved states take}, as far as that was noted."""
        jobs = schema.jobs
        each = select(checkpoints.c.job_id, checkpoints.c.path, func.max(checkpoints.c.bytes).label("bytes"))
        once = each.group_by(checkpoints.c.job_id, checkpoints.c.path).subquery()
        query = select(jobs.c.id, func.sum(once.c.bytes)).join(once, once.c.job_id == jobs.c.id).group_by(jobs.c.id)
        with self.read() as connection:
            rows = connection.execute(query if owner is None else query.where(jobs.c.owner == owner)).all()
        return {job_id: int(total or 0) for job_id, total in rows}

    def pin_checkpoint(self, job_id: str, step: int, pinned: bool = True, owner: str | None = "local") -> None:
        """Keeps what was saved at that step for good, or takes that back. Raises NotFound."""
        with self.write() as connection:
            job_row(connection, job_id, owner)
            mine = and_(clean(connection, checkpoints, job_id), checkpoints.c.step == step)
            if connection.execute(update(checkpoints).where(mine).values(pinned=pinned)).rowcount == 0:
                raise NotFound(f"Job {job_id} has no checkpoint at step {step}.", "Look at its checkpoints for the steps there are.")

    def delete_checkpoint(self, job_id: str, checkpoint_id: int, owner: str | None = "local") -> None:
        """Forgets a saved state whose files are gone. Raises NotFound."""
        with self.write() as connection:
            job_row(connection, job_id, owner)
            mine = (checkpoints.c.job_id == job_id, checkpoints.c.id == checkpoint_id)
            if connection.execute(delete(checkpoints).where(*mine)).rowcount == 0:
                raise NotFound(f"Job {job_id} has no checkpoint {checkpoint_id}.")


def _number(value: float) -> float | None:
    """SQLite has no nan and would keep NULL; so does every database here, for one meaning."""
    value = float(value)
    return None if math.isnan(value) else value


def _back(value: float | None) -> float:
    return math.nan if value is None else value
