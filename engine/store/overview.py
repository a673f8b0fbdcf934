"""Many runs at a glance: a curve in miniature for each, their last numbers, how many there are in which state.

Each question is one query that looks things up by index and never reads a run's whole curve, so that a list of runs costs the
same however long they are. Knows nothing of screens.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import case, func, literal, or_, select, true, update

from engine.store import schema
from engine.store.jobs import as_job, clean, job_row
from engine.store.records import Job
from engine.store.series import Series

jobs, metrics = schema.jobs, schema.metrics
_LIGHT = [column for column in jobs.c if column.name not in ("recipe", "result", "error")]


class Overview(Series):
    """The part of the Store that looks at many jobs at once."""

    def count_jobs(self, owner: str | None = "local", search: str | None = None) -> dict[str, int]:
        """How many jobs are in each state, of those that `search` finds."""
        query = select(jobs.c.state, func.count()).where(*_owned(owner), *_found(search)).group_by(jobs.c.state)
        with self.read() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}

    def miniatures(self, job_ids: Collection[str], name: str, points: int = 32, owner: str | None = "local") -> dict[str, list[float]]:
        """{job id: at most `points` values of one metric, evenly over the steps made so far}; what was undone is left out."""
        number = select(literal(0).label("n")).cte("number", recursive=True)
        number = number.union_all(select(number.c.n + 1).where(number.c.n < points - 1))
        low, high = jobs.c.step * number.c.n / points, jobs.c.step * (number.c.n + 1) / points
        value = (
            select(metrics.c.value)
            .where(metrics.c.job_id == jobs.c.id, metrics.c.name == name, metrics.c.step > low, metrics.c.step <= high)
            .order_by(metrics.c.step.desc(), metrics.c.attempt.desc())
            .limit(1)
            .scalar_subquery()
        )
        each = jobs.join(number, true())
        found = select(jobs.c.id, number.c.n, value.label("value")).select_from(each).where(jobs.c.id.in_(list(job_ids)), *_owned(owner))
        made: dict[str, list[float]] = {}
        with self.read() as connection:
            for row in sorted(connection.execute(found), key=lambda row: (row.id, row.n)):
                if row.value is not None:
                    made.setdefault(row.id, []).append(row.value)
        return made

    def last_values(self, job_ids: Collection[str], names: Sequence[str], owner: str | None = "local") -> dict[str, dict[str, float]]:
        """{job id: {metric: its last number}} of many jobs."""
        columns = [
            select(metrics.c.value)
            .where(metrics.c.job_id == jobs.c.id, metrics.c.name == name, metrics.c.step <= jobs.c.step)
            .order_by(metrics.c.step.desc(), metrics.c.attempt.desc())
            .limit(1)
            .scalar_subquery()
            .label(f"value_{position}")
            for position, name in enumerate(names)
        ]
        query = select(jobs.c.id, *columns).where(jobs.c.id.in_(list(job_ids)), *_owned(owner))
        with self.read() as connection:
            rows = connection.execute(query).all()
        return {row[0]: {name: value for name, value in zip(names, row[1:], strict=True) if value is not None} for row in rows}

    def values_at(self, job_id: str, names: Sequence[str], step: int, owner: str | None = "local") -> dict[str, float]:
        """{metric: its number at that step}, by the latest attempt that was there."""
        where = (metrics.c.job_id == job_id, metrics.c.name.in_(list(names)), metrics.c.step == step)
        with self.read() as connection:
            job_row(connection, job_id, owner)
            rows = connection.execute(select(metrics.c.name, metrics.c.value).where(*where).order_by(metrics.c.attempt))
            return {row.name: row.value for row in rows if row.value is not None}

    def curves_since(self, job_id: str, after: Mapping[str, int], owner: str | None = "local") -> dict[str, list[tuple[int, float]]]:
        """{metric: what lies after the step given for it (all of it where none is given)}, as `curve` has it, in one look."""
        names = self.metric_names(job_id, owner)
        found: dict[str, list[tuple[int, float]]] = {}
        with self.read() as connection:
            kept = clean(connection, metrics, job_id)
            for name in names:
                since = (kept, metrics.c.name == name, metrics.c.step > after.get(name, -1))
                query = select(metrics.c.step, metrics.c.value).where(*since).order_by(metrics.c.step, metrics.c.attempt)
                points = {step: math.nan if value is None else value for step, value in connection.execute(query)}
                found[name] = list(points.items())
        return found

    def light_jobs(self, owner: str | None = "local", search: str | None = None, limit: int = 10_000) -> list[dict[str, Any]]:
        """Newest first, without recipes, results and errors, which are most of what a job weighs."""
        query = select(*_LIGHT).where(*_owned(owner), *_found(search)).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
        with self.read() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def jobs_by_id(self, job_ids: Collection[str], owner: str | None = "local") -> list[Job]:
        """In no order; ids that aren't the owner's are left out."""
        with self.read() as connection:
            rows = connection.execute(select(jobs).where(jobs.c.id.in_(list(job_ids)), *_owned(owner)))
            return [as_job(row) for row in rows]

    def totals(self, owner: str | None = "local") -> dict[str, float]:
        """{runs, finished, tokens, seconds} over all of the owner's jobs."""
        finished = func.sum(case((jobs.c.state == "done", 1), else_=0))
        query = select(func.count(), finished, func.sum(jobs.c.tokens), func.sum(jobs.c.training_seconds)).where(*_owned(owner))
        with self.read() as connection:
            runs, done, tokens, seconds = connection.execute(query).one()
        return {"runs": runs, "finished": done or 0, "tokens": int(tokens or 0), "seconds": float(seconds or 0.0)}

    def rename_job(self, job_id: str, name: str, owner: str | None = "local") -> Job:
        """The job by its new name. Raises NotFound."""
        with self.write() as connection:
            job_row(connection, job_id, owner, lock=True)
            connection.execute(update(jobs).where(jobs.c.id == job_id).values(name=name))
            return as_job(job_row(connection, job_id, owner))


def _owned(owner: str | None) -> list[Any]:
    return [] if owner is None else [jobs.c.owner == owner]


def _found(search: str | None) -> list[Any]:
    if not search:
        return []
    columns = (jobs.c.name, jobs.c.id, jobs.c.base_model, jobs.c.method)
    return [or_(*(column.icontains(search, autoescape=True) for column in columns))]
