"""Jobs as people ask for them: made, found, listed, deleted. Who may run one is the business of `lifecycle`."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from pathlib import Path

from sqlalchemy import Connection, Row, and_, delete, func, or_, select

from engine.errors import NotAllowed, NotFound, StateError
from engine.jobs import states
from engine.recipe import Recipe
from engine.store import schema
from engine.store.database import Database, from_json
from engine.store.records import Attempt, Event, Job

jobs = schema.jobs


class JobQueries(Database):
    """The part of the Store that makes and finds jobs."""

    def create_job(
        self,
        recipe: Recipe,
        owner: str = "local",
        *,
        token: str = "",
        most: int | None = None,
        reserve_for: str | None = None,
        reserve_s: float = 15.0,
    ) -> Job:
        """A queued job. `reserve_for` keeps it for one runner for that long, before any other may claim it.

        `token`: of the owner's jobs, one at the most has it: asked for again, the first comes back, whoever else asks at the same time.
        `most`: so many turns has the owner; raises NotAllowed where they are all taken.
        """
        job_id, now = secrets.token_hex(6), self.now()
        with self.write() as connection:
            self.hold(connection, owner)
            if token and (known := _launched(connection, owner, token)):
                return as_job(known)
            require_turn(connection, owner, most)
            connection.execute(
                jobs.insert().values(
                    id=job_id,
                    owner=owner,
                    name=recipe.name or _name(recipe),
                    method=recipe.method,
                    base_model=recipe.base_model,
                    endpoint=recipe.endpoint,
                    recipe=recipe.to_json(),
                    state=states.QUEUED,
                    created_at=now,
                    token=token or None,
                    lease_owner=reserve_for,
                    lease_until=now + reserve_s if reserve_for else None,
                )
            )
            return as_job(job_row(connection, job_id, owner))

    def require_turn(self, owner: str, most: int | None) -> None:
        """Raises NotAllowed where so many of the owner's jobs are unfinished; only a look, which whoever makes a job can't rely on."""
        with self.read() as connection:
            require_turn(connection, owner, most)

    def job(self, job_id: str, owner: str | None = "local") -> Job:
        """Raises NotFound, also for somebody else's."""
        with self.read() as connection:
            return as_job(job_row(connection, job_id, owner))

    def find_job(self, prefix: str, owner: str | None = "local") -> Job:
        """The one job whose id begins so. Raises NotFound if there is none, or more than one."""
        prefix = prefix.strip()
        with self.read() as connection:
            query = select(jobs).where(jobs.c.id.startswith(prefix, autoescape=True), *_owned(owner)).limit(6)
            rows = connection.execute(query).all() if prefix else []
        exact = [row for row in rows if row.id == prefix] or rows
        if len(exact) != 1:
            if not exact:
                raise _no_job(prefix)
            raise NotFound(f"Several jobs begin with {prefix}: {', '.join(row.id for row in exact[:5])}.", "Give more of the id.")
        return as_job(exact[0])

    def jobs(
        self,
        owner: str | None = "local",
        states: Collection[str] | None = None,
        search: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Job]:
        """Newest first. `search` looks in name, id, model and method, whatever the case."""
        query = select(jobs).where(*_owned(owner))
        if states is not None:
            query = query.where(jobs.c.state.in_(list(states)))
        if search:
            columns = (jobs.c.name, jobs.c.id, jobs.c.base_model, jobs.c.method)
            query = query.where(or_(*(column.icontains(search, autoescape=True) for column in columns)))
        query = query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit).offset(offset)
        with self.read() as connection:
            return [as_job(row) for row in connection.execute(query)]

    def delete_job(self, job_id: str, owner: str | None = "local") -> None:
        """Forgets the job and all its numbers; its models stay. Raises StateError while it runs. Files are the caller's."""
        with self.write() as connection:
            row = job_row(connection, job_id, owner, lock=True)
            if row.state in states.ACTIVE:
                raise StateError(f"Job {job_id} is {states.LIGHTS[row.state].label}.", "Stop it first, then delete it.")
            connection.execute(delete(jobs).where(jobs.c.id == job_id))

    def events(self, job_id: str, after_id: int = 0, owner: str | None = "local") -> list[Event]:
        """Changes of state and stage since `after_id`, oldest first."""
        table = schema.events
        with self.read() as connection:
            job_row(connection, job_id, owner)
            query = select(table).where(table.c.job_id == job_id, table.c.id > after_id).order_by(table.c.id)
            return [Event(**row._mapping) for row in connection.execute(query)]

    def attempts(self, job_id: str, owner: str | None = "local") -> list[Attempt]:
        """The job's stretches in a runner's hands, oldest first."""
        with self.read() as connection:
            job_row(connection, job_id, owner)
            return attempts_of(connection, job_id)


def job_row(connection: Connection, job_id: str, owner: str | None, *, lock: bool = False) -> Row:
    """The job's row, locked against other writers if asked. Raises NotFound."""
    query = select(jobs).where(jobs.c.id == job_id, *_owned(owner))
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise _no_job(job_id)
    return row


def require_turn(connection: Connection, owner: str | None, most: int | None, beside: str = "") -> None:
    """Raises NotAllowed where `most` of the owner's jobs, one of them left out, take a turn each."""
    if most is None:
        return
    taken = (jobs.c.owner == owner, jobs.c.state.in_(states.TAKES_A_TURN), jobs.c.id != beside)
    if (connection.scalar(select(func.count()).select_from(jobs).where(*taken)) or 0) >= most:
        raise NotAllowed(f"{most} of your runs are waiting or running, the most at a time here", "Wait for one to finish, or stop it.")


def as_job(row: Row) -> Job:
    """The record of a row of `jobs`."""
    values = dict(row._mapping)
    values["recipe_json"] = values.pop("recipe")
    del values["token"]
    return Job(**{**values, "error": from_json(row.error), "result": from_json(row.result)})


def attempts_of(connection: Connection, job_id: str) -> list[Attempt]:
    """Oldest first."""
    table = schema.attempts
    rows = connection.execute(select(table).where(table.c.job_id == job_id).order_by(table.c.attempt))
    return [Attempt(**row._mapping) for row in rows]


def clean(connection: Connection, table, job_id: str):
    """The condition that leaves one clean line through all attempts.

    An attempt that went on from step s makes everything that earlier attempts did beyond s undone.
    """
    resumed = [(item.attempt, item.start_step) for item in attempts_of(connection, job_id)[1:]]
    return and_(table.c.job_id == job_id, *(or_(table.c.attempt >= attempt, table.c.step <= step) for attempt, step in resumed))


def _owned(owner: str | None) -> list:
    return [] if owner is None else [jobs.c.owner == owner]


def _launched(connection: Connection, owner: str, token: str) -> Row | None:
    return connection.execute(select(jobs).where(jobs.c.owner == owner, jobs.c.token == token)).first()


def _no_job(name: str) -> NotFound:
    return NotFound(f"There is no job {name}.", "List the jobs to see which there are.")


def _name(recipe: Recipe) -> str:
    source = recipe.data.demo or Path(recipe.data.path.replace("\\", "/")).stem or recipe.base_model
    return f"{source} {recipe.method}"[:120]
