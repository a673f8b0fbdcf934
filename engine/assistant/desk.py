"""What the assistant works with: one person's store and areas, and what it has understood of the conversation so far.

Looks things up; decides and says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from engine import guard, policy
from engine.assistant.meaning import Names
from engine.assistant.wording import plain, safe
from engine.defaults import Defaults
from engine.drafts import Drafts
from engine.errors import EngineError
from engine.evaluation import doctor
from engine.evaluation.curves import Curve
from engine.jobs import states
from engine.library import Library
from engine.planning import Planner
from engine.registry import Registry
from engine.runs import MOVING, Runs

if TYPE_CHECKING:
    from engine.store import Job, LibrarySet, Model, Store

_LOOKED_AT = ("train_loss", "held_out_loss", "grad_norm", "tokens_per_second")


@dataclass(frozen=True)
class State:
    """What is known of the run to come, and what is being talked of. `asked`: what was asked for last: goal, data, model, teacher, score.

    `changes` are a recipe's fields as far as they were said, as in a draft; `first`: whether a stage of examples comes before, None where
    nothing was said of it; `proposed` whether a whole recipe stands. `started` holds which turn's proposal became which run. `shown` is the
    list that was shown last: {kind: run, model or data, id}.
    """

    goal: str = ""
    wish: str = ""
    rows: int | None = None
    asked: str = ""
    run: str = ""
    model: str = ""
    shown: list[dict[str, str]] = field(default_factory=list)
    proposed: bool = False
    first: bool | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    started: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def read(values: dict[str, Any] | None) -> State:
        """As it was kept; what another version kept is left out."""
        known = {one.name for one in fields(State)}
        return State(**{name: value for name, value in (values or {}).items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


class Desk:
    """One person's things."""

    def __init__(self, store: Store, owner: str):
        self.store, self.owner, self.policy = store, owner, policy.of(owner)
        self.planner, self.runs = Planner(store, owner), Runs(store, owner)
        self.defaults = Defaults(store, owner)
        self.library, self.registry, self.drafts = Library(store, owner), Registry(store, owner), Drafts(store, owner)

    def names(self) -> Names:
        """What the person's things are called; of things of one name, the newest."""
        runs: dict[str, str] = {}
        for row in reversed(self.store.light_jobs(self.owner)):
            runs[plain(row["name"])] = runs[row["id"]] = row["id"]
        datasets: dict[str, str] = {}
        for found in reversed(self.library.find()):
            datasets[plain(found.name)] = datasets[found.id] = found.id
        tuned: dict[str, str] = {}
        for model in reversed(self.registry.find()):
            tuned[plain(model.name)] = tuned[model.id] = model.id
        return Names(datasets, runs, tuple(self.library.base_models()), tuned)

    def thing(self, run: str, model: str) -> tuple[Job | None, Model | None]:
        """A run and the model that came of it, by the id of either; None for what is gone or never was."""
        found = next((one for one in self.registry.find() if one.id == model), None) if model else None
        job = self.job(run or (found.job_id or "" if found else ""))
        if found is None and job is not None:
            found = next(iter(self.store.models(self.owner, job_id=job.id)), None)
        return job, found

    def may_use(self, base_model: str) -> bool:
        """Whether the owner may train this base model here."""
        try:
            guard.model(self.owner, base_model)
        except EngineError:
            return False
        return True

    def job(self, job_id: str) -> Job | None:
        """None where it is gone."""
        found = self.store.jobs_by_id([job_id], self.owner) if job_id else []
        return found[0] if found else None

    def newest(self, among: Sequence[str] | None = None, limit: int = 20) -> list[Job]:
        """Runs in these states, newest first."""
        return self.store.jobs(self.owner, states=among, limit=limit)

    def moving(self) -> list[Job]:
        """Those that go on by themselves; those at work before those that wait."""
        return sorted(self.newest(MOVING), key=lambda job: job.state == states.QUEUED)

    def findings(self, job: Job) -> list[doctor.Finding]:
        """What the run doctor says."""
        curves = {name: Curve(self.store.curve(job.id, name, owner=self.owner)) for name in _LOOKED_AT}
        return self.runs.diagnose(job, curves)

    def last(self, job_ids: Sequence[str], names: Sequence[str] = _LOOKED_AT[:2]) -> dict[str, dict[str, float]]:
        """{run: {metric: its last number}}."""
        return self.store.last_values(job_ids, names, self.owner)

    def dataset(self, dataset_id: str) -> LibrarySet | None:
        """None where it is gone."""
        return next((found for found in self.library.find() if found.id == dataset_id), None)


def called(job: Job) -> str:
    """A run's name for Markdown."""
    return f"**{safe(job.name)}**"
