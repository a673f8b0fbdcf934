"""`engine.diagnosis`: why a run doesn't go on, what is in order and what isn't, and what to change for another try.

Looks at what ended it, its key, where it trains, the disk, the memory, the data, its checkpoints and its curves, now; changes nothing.
Puts together what others know: places, planning, the run doctor. Knows no screen.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from engine import guard, paths, places, policy
from engine.amounts import size
from engine.data.examples import Problem
from engine.endpoints import backups, saved
from engine.errors import DataError, EngineError, KeyNeeded, RecipeError
from engine.evaluation.curves import Curve
from engine.jobs import states
from engine.planning import Planner
from engine.runs import Runs
from engine.store import Checkpoint, Job, Store
from engine.store.artefacts import read_json
from engine.training.saving import SPARE_BYTES

AREAS = {
    "why": "What ended it",
    "key": "Key",
    "endpoint": "Where it trains",
    "disk": "Disk",
    "memory": "Memory",
    "data": "Data",
    "checkpoint": "Checkpoints",
    "recipe": "Recipe",
    "learning": "Learning",
}
_NO_MEMORY = ("out of memory", "memory of this machine didn't suffice", "allocate memory")
_NO_ROOM = ("no space left", "disk is nearly full", "couldn't be saved", "file too large")


@dataclass(frozen=True)
class Sign:
    """One thing that was looked at. `ok`: in order, not in order, or None for what is only worth knowing. `changes` are what to change in
    the recipe for another try."""

    area: str
    ok: bool | None
    says: str
    next_step: str = ""
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """What was found, what isn't in order first. `resumes_at` is the step that a resumed run goes on from; None where it can't go on or
    has nothing to go on from."""

    job_id: str
    signs: tuple[Sign, ...]
    resumes_at: int | None
    can_resume: bool

    @property
    def wrong(self) -> tuple[Sign, ...]:
        """What isn't in order."""
        return tuple(sign for sign in self.signs if sign.ok is False)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


class Diagnoser:
    """Of one owner's runs."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    def of(self, job_id: str) -> Diagnosis:
        """Looks at a run, whatever its state; takes some seconds. Raises NotFound."""
        job = self._store.find_job(job_id, self._owner)
        state, checkpoint = self._checkpoint(job)
        found = [*self._why(job), *self._place(job), *checkpoint, *self._recipe(job), *self._left_out(job), *self._learning(job)]
        order = {False: 0, None: 1, True: 2}
        told = policy.of(self._owner).told
        signs = [replace(sign, says=told(sign.says), next_step=told(sign.next_step)) for sign in found]
        signs.sort(key=lambda sign: (order[sign.ok], list(AREAS).index(sign.area)))
        possible = "resume" in states.requests(job.state)
        return Diagnosis(job.id, tuple(signs), state.step if state else None, possible)

    def _why(self, job: Job) -> Iterator[Sign]:
        if not job.error:
            if asked := Runs(self._store, self._owner).question(job):
                yield Sign("why", None, f"It waits for a word of yours: {asked}", "Resume it to go on all the same.")
            elif job.state == states.INTERRUPTED:
                yield Sign("why", None, "It was cut off.", "A runner takes it up again by itself, from its last checkpoint.")
            return
        error = EngineError.from_dict(job.error)
        where = f" ({error.where})" if error.where else ""
        yield Sign("why", False, f"{error.message}{where}", error.next_step, self._way_out(job, str(error)))

    def _way_out(self, job: Job, told: str) -> dict[str, Any]:
        """What to change in the recipe, where the error says enough."""
        try:
            recipe = job.recipe
        except RecipeError:
            return {}
        told = told.lower()
        if any(word in told for word in _NO_MEMORY):
            if recipe.training.batch_size > 1:
                return {"training": {"batch_size": recipe.training.batch_size // 2}}
            if recipe.training.max_length and recipe.training.max_length > 64:
                return {"training": {"max_length": recipe.training.max_length // 2}}
            return {"lora": {"rank": max(1, recipe.lora.rank // 2)}} if not recipe.full else {"full": False}
        if any(word in told for word in _NO_ROOM):
            return {"checkpoints": {"keep_last": 1, "every_seconds": max(600.0, recipe.checkpoints.every_seconds)}}
        return {}

    def _place(self, job: Job) -> Iterator[Sign]:
        try:
            guard.key(self._owner, job.endpoint)
        except KeyNeeded as error:
            yield Sign("key", False, error.message, error.next_step)
        except RecipeError as error:
            yield Sign("endpoint", False, error.message, error.next_step)
            return
        place = places.at(job.endpoint, self._owner)
        area_of = {"Memory": "memory", "Disk": "disk", "Key": "key"}
        for check in place.checks:
            if check.label in ("Processor", "GPU") or check.optional:
                continue
            says = f"{place.title}: {check.label}: {check.found}"
            yield Sign(area_of.get(check.label, "endpoint"), check.met, says, "" if check.met else check.advice)
        if saved.here(job.endpoint, self._owner):
            last = self._store.checkpoints(job.id, owner=self._owner)
            newest = [row.bytes or 0 for row in last if row.step == last[-1].step]
            wanted, free = int(sum(newest) * 1.5) + SPARE_BYTES, shutil.disk_usage(paths.home()).free
            if free < wanted:
                says = f"{size(free)} are free, and the next checkpoint wants {size(wanted)}"
                yield Sign("disk", False, says, "Make room: delete models, data sets or old runs' checkpoints.")

    def _checkpoint(self, job: Job) -> tuple[Checkpoint | None, list[Sign]]:
        """What a resumed run would go on from."""
        states_ = list(reversed(self._store.checkpoints(job.id, "weights", self._owner)))
        if not states_:
            return None, [Sign("checkpoint", None, "There is no checkpoint yet: resumed, it begins anew.")]
        newest = states_[0]
        try:
            for state in states_:
                if not (says := self._usable(job, state)):
                    continue
                if state is newest:
                    whole = says.endswith("is whole")
                    return state, [Sign("checkpoint", True if whole else None, f"{says}: resumed, it goes on from there.")]
                lost = f"Step {newest.step:,} is damaged or gone"
                return state, [Sign("checkpoint", False, f"{lost}. {says}: resumed, it goes on from there.")]
        except EngineError as error:
            says = f"whether its checkpoints are whole can't be seen: {error.message}"
            return newest, [Sign("checkpoint", None, says, error.next_step)]
        return None, [Sign("checkpoint", False, "None of its checkpoints is whole, and there is no backup.", "Train again.")]

    def _usable(self, job: Job, state: Checkpoint) -> str:
        """In what way it can be gone on from; empty if it can't."""
        if saved.whole(job.endpoint, self._owner, state.path):
            return f"Step {state.step:,} is whole"
        if saved.here(job.endpoint, self._owner):
            return (
                f"Step {state.step:,} is damaged or gone, but its backup is whole and will be put back" if backups.has(state.path) else ""
            )
        second = state.loop_state.get("spare", {}).get(str(state.step))
        return f"Step {state.step:,} is gone, but was saved twice" if second and saved.whole(job.endpoint, self._owner, second) else ""

    def _recipe(self, job: Job) -> Iterator[Sign]:
        """What the planner says of it now: the data is read again."""
        try:
            recipe = job.recipe
            concerns = [concern for concern in Planner(self._store, self._owner).plan(recipe).warnings if concern.level == "stop"]
        except DataError as error:
            yield Sign("data", False, f"{error.where}: {error.message}" if error.where else error.message, error.next_step)
            return
        except EngineError as error:
            yield Sign("recipe", False, error.message, error.next_step)
            return
        for concern in concerns:
            yield Sign("memory" if "memory" in concern.text.lower() else "recipe", False, concern.text, concern.action)
        if not concerns:
            yield Sign("data", True, "The data can be read, and the recipe can be run as it stands.")

    def _left_out(self, job: Job) -> Iterator[Sign]:
        about = read_json(job.folder / "data.json") or {}
        if count := about.get("problem_count"):
            first = (about.get("problems") or [None])[0]
            problem = Problem(**first) if first else None
            told = f"; the first: {problem.place}: {problem.message}" if problem else ""
            yield Sign("data", None, f"{count:,} rows were left out{told}", problem.fix if problem else "")

    def _learning(self, job: Job) -> Iterator[Sign]:
        runs = Runs(self._store, self._owner)
        try:
            curves = {name: Curve(points) for name, points in runs.news(job.id, {}).items()}
            findings = runs.diagnose(job, curves)
        except EngineError:
            return
        for finding in findings:
            if finding.level in ("warning", "stop"):
                yield Sign("learning", False, f"{finding.sign} {finding.detail}", finding.action, finding.changes)
