"""Keeps a run's saved states by its policy: notes how big they are, does away with what can go, and says what has to stay.

While a run goes on it is the run that asks for this, after each checkpoint; for one at rest a person may. Knows the store and endpoints;
nothing of training.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass

from engine.endpoints import saved
from engine.errors import EngineError
from engine.jobs import states
from engine.store import Checkpoint, Job, Store
from engine.training.pruning import GOING_ON, Saved, prunable

NOTHING_MORE = 0.0  # a limit under which only what has to stay is kept


@dataclass(frozen=True)
class Pruned:
    """What was done away with, and what couldn't be."""

    count: int = 0
    bytes: int = 0
    trouble: str = ""


def prune(
    store: Store,
    job: Job,
    *,
    keep_last: int | None,
    most_bytes: float | None,
    best: int | None,
    needed: Collection[str] = (),
) -> Pruned:
    """Does away with what the policy lets go: the files first, then the row. What can't be deleted stays noted, and is told."""
    listed = everything(store, job)
    rows: dict[str, list[Checkpoint]] = {}
    for row, _ in listed:
        rows.setdefault(row.path, []).append(row)
    used = {path for model in store.models(None, job_id=job.id) for path in (model.weights_path, model.sampler_path)}
    stays = set(needed) | used | _begun_from(store, job, listed)
    going = prunable(_each_once(job, listed), keep_last=keep_last, most_bytes=most_bytes, best_step=best, needed=stays)
    count, freed, trouble = 0, 0, ""
    for one in going:
        try:
            saved.discard(job.endpoint, job.owner, one.path)
        except EngineError as error:
            trouble = trouble or str(error)
            continue
        for row in rows[one.path]:
            store.delete_checkpoint(job.id, row.id, owner=None)
        count, freed = count + 1, freed + one.bytes
    return Pruned(count, freed, trouble)


def everything(store: Store, job: Job) -> list[tuple[Checkpoint, bool]]:
    """(state, whether it was undone), in the order of saving."""
    found = [(row, False) for row in store.checkpoints(job.id, owner=None)] + [(row, True) for row in store.undone_checkpoints(job.id)]
    return sorted(found, key=lambda item: item[0].id)


def best_step(store: Store, job_id: str, steps: Collection[int], watched: str, better: str, since: int = 0) -> int | None:
    """Of these steps the one where the held-out number was best, among those after `since`; None where none was measured."""
    if not watched:
        return None
    known = {step: value for step, value in store.curve(job_id, watched, owner=None) if step in steps and step > since}
    finite = {step: value if better == "down" else -value for step, value in known.items() if math.isfinite(value)}
    return min(finite, key=lambda step: (finite[step], step)) if finite else None


def bytes_of(job: Job, row: Checkpoint) -> int:
    """As noted; what was saved before sizes were is looked at, if it lies here."""
    if row.bytes is not None:
        return row.bytes
    return (saved.size(job.endpoint, job.owner, row.path) or 0) if saved.here(job.endpoint, job.owner) else 0


def _each_once(job: Job, listed: list[tuple[Checkpoint, bool]]) -> list[Saved]:
    """The same state may be noted twice, as when a run stopped to ask: what holds for one note of it holds for it."""
    found: dict[str, Saved] = {}
    for row, undone in listed:
        known = found.get(row.path)
        reason = known.reason if known and known.reason in ("stage", "end") else row.reason
        pinned, undone = row.pinned or bool(known and known.pinned), undone and (known is None or known.undone)
        found[row.path] = Saved(row.path, row.kind, row.step, bytes_of(job, row), reason, pinned, undone)
    return list(found.values())


def _begun_from(store: Store, job: Job, listed: list[tuple[Checkpoint, bool]]) -> set[str]:
    """What runs that haven't come to their end go on from: as JOB@STEP, or by its path."""
    by_step = {f"{job.id}@{row.step}": row.path for row, undone in listed if row.kind == GOING_ON and not undone}
    named = {row.path for row, _ in listed}
    found: set[str] = set()
    for waiting in store.jobs(job.owner, states=tuple(set(states.STATES) - states.FINAL), limit=1000):
        start = (json.loads(waiting.recipe_json).get("start") or {}).get("checkpoint", "")
        if start in by_step:
            found |= {row.path for row, _ in listed if f"{job.id}@{row.step}" == start}
        elif start in named:
            found.add(start)
    return found
