"""`engine.keeping`: what runs have saved, what it takes on the disk, what is kept for good, and making room.

What a run does of this by itself while it goes on stands in engine/training; here is what a person asks for. Knows no screen.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.endpoints import backups
from engine.errors import StateError
from engine.jobs import states
from engine.store import Job, Store
from engine.training import keeping
from engine.training.keeping import NOTHING_MORE, Pruned
from engine.training.pruning import GOING_ON, TO_USE


@dataclass(frozen=True)
class Disk:
    """What one run takes, in bytes. `undone` belongs to ways that the run didn't go on; `best` is the saved step that was best held out.

    `pinned` are the steps that a person wants to keep; `backed_up` those that there is a second copy of.
    """

    going_on: int
    to_use: int
    undone: int
    backups: int
    best: int | None
    pinned: tuple[int, ...]
    backed_up: tuple[int, ...]

    @property
    def total(self) -> int:
        """All of it."""
        return self.going_on + self.to_use + self.undone + self.backups


class Keeping:
    """One owner's."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    def of(self, job_id: str) -> Disk:
        """What the run takes. Raises NotFound."""
        job = self._store.find_job(job_id, self._owner)
        sizes = {GOING_ON: 0, TO_USE: 0, "undone": 0}
        pinned: set[int] = set()
        seen: set[str] = set()
        for row, undone in keeping.everything(self._store, job):
            if row.pinned:
                pinned.add(row.step)
            if row.path not in seen:
                seen.add(row.path)
                sizes["undone" if undone else row.kind] += keeping.bytes_of(job, row)
        backed_up = tuple(backups.steps(job.id))
        return Disk(
            sizes[GOING_ON], sizes[TO_USE], sizes["undone"], backups.size(job.id), self._best(job), tuple(sorted(pinned)), backed_up
        )

    def biggest(self, most: int = 10) -> list[tuple[Job, int]]:
        """The runs whose checkpoints take the most room, with their bytes as far as they were noted."""
        sizes = self._store.checkpoint_bytes(self._owner)
        largest = sorted(sizes, key=lambda job_id: (-sizes[job_id], job_id))[:most]
        jobs = {job.id: job for job in self._store.jobs_by_id(largest, self._owner)}
        return [(jobs[job_id], sizes[job_id]) for job_id in largest if job_id in jobs and sizes[job_id]]

    def pin(self, job_id: str, step: int, pinned: bool = True) -> None:
        """Keeps what was saved at that step for good, whatever the recipe's policy says; or takes that back. Raises NotFound."""
        self._store.pin_checkpoint(self._store.find_job(job_id, self._owner).id, step, pinned, self._owner)

    def tidy(self, job_id: str, *, samplers: bool = False) -> Pruned:
        """Keeps of a run at rest the best, the last, the ends of stages and what is pinned, to go on from; with `samplers` of what is to
        use, too. Models and what other runs begin from stay. Raises NotFound, and StateError while it runs."""
        job = self._store.find_job(job_id, self._owner)
        if states.moving(job.state):
            advice = "Pause or stop it first; it keeps order by itself while it runs (checkpoints.keep_last)."
            raise StateError(f"{job.name} is {states.LIGHTS[job.state].label}", advice, where=f"job {job.id}")
        most = NOTHING_MORE if samplers else None
        return keeping.prune(self._store, job, keep_last=1, most_bytes=most, best=self._best(job), needed=self._needed(job))

    def _best(self, job: Job) -> int | None:
        rows = self._store.checkpoints(job.id, owner=self._owner)
        state = rows[-1].loop_state if rows else {}
        if state.get("best"):
            return int(state["best"]["step"])
        watched, steps = state.get("watched") or {}, {row.step for row in rows}
        name, better = watched.get("name", ""), watched.get("better", "down")
        return keeping.best_step(self._store, job.id, steps, name, better, int(state.get("began", 0)))

    def _needed(self, job: Job) -> set[str]:
        """What the run would go on from, were it resumed."""
        last = self._store.last_checkpoint(job.id, owner=self._owner)
        state = last.loop_state if last else {}
        stood_on = [state.get("best") or {}, *(state.get("left") or {}).values()]
        found = {str(kept[name]) for kept in stood_on for name in ("weights_path", "sampler_path") if kept.get(name)}
        return found | {str(path) for path in (state.get("sampler_path"), *(state.get("spare") or {}).values()) if path}
