"""Finds what a run can go on from: its last saved state if that is whole, else its backup, else the newest one that is.

Looked at before anything is loaded, so that no run goes on from damage. Knows nothing of methods.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.endpoints import backups, remote, saved
from engine.errors import StorageError
from engine.store import Checkpoint

if TYPE_CHECKING:
    from engine.jobs.run import JobRun
    from engine.training.attempt import Attempt


def way_back(at: Attempt, heed: Callable[[], object]) -> None:
    """Has the run go on from the newest state that is whole; `heed` is called while a server elsewhere is asked. Raises StorageError where
    it has saved some and none is."""
    run = at.run
    if run.resume is None:
        return
    found = sound_state(run, heed)
    if found is None:
        raise StorageError(
            "none of the run's checkpoints is whole, and there is no backup of them",
            "Train again with the same recipe; what was learned is lost. If the files were moved, put them back and resume.",
            where=f"job {run.job_id}",
        )
    if found.step != run.resume.step:
        run.log("warning", f"going on from step {found.step:,}: what was saved after it is damaged or gone")
        run.resume_from(found)
    run.resume = found
    _mend_what_it_stands_on(run, found.loop_state)


def sound_state(run: JobRun, heed: Callable[[], object] | None = None) -> Checkpoint | None:
    """The newest that can be loaded; what has a backup is put back on the way."""
    endpoint, newest_first = run.recipe.endpoint, list(reversed(run.checkpoints()))
    # The run goes on from it or not: worth asking again.
    patience = remote.Patience(remote.PATIENCE_SECONDS, heed)
    if saved.here(endpoint, run.owner):
        for state in newest_first:
            if _put_back(run, state.path, f"the checkpoint of step {state.step:,}"):
                return state
        return None
    spare = {str(step): path for state in reversed(newest_first) for step, path in state.loop_state.get("spare", {}).items()}
    for state in newest_first:
        if saved.whole(endpoint, run.owner, state.path, patience):
            return state
        second = spare.get(str(state.step))
        if second and saved.whole(endpoint, run.owner, second, patience):
            run.log("warning", f"the checkpoint of step {state.step:,} is gone; its backup is used")
            return replace(state, path=second)
    return None


def _mend_what_it_stands_on(run: JobRun, state: dict[str, Any]) -> None:
    """The best version and what earlier stages left, as far as they lie here. A best version that is lost is noted: the last is kept."""
    if not saved.here(run.recipe.endpoint, run.owner):
        return
    paths = {name: state.get("best", {}).get(name) for name in ("weights_path", "sampler_path")}
    if any(path and not _put_back(run, path, "the best checkpoint") for path in paths.values()):
        state["best"] = {}
    for left in state.get("left", {}).values():
        for name in ("weights_path", "sampler_path"):
            if left.get(name):
                _put_back(run, left[name], "what an earlier stage left")
    if state.get("sampler_path"):
        _put_back(run, state["sampler_path"], "the version to use")


def _put_back(run: JobRun, path: str, what: str) -> bool:
    """-> whether it is whole now."""
    try:
        if backups.put_back(path):
            run.log("warning", f"{what} was damaged or gone: it was put back from its backup", path=path)
    except StorageError as error:
        run.log("warning", f"{what}: {error.message}", path=path)
        return False
    return True
