"""Makes a run safe: checkpoints to go on from and to use, what the run needs to know with them, second copies, and room for them."""

from __future__ import annotations

import shutil
import time
from typing import Any

from engine import paths
from engine.amounts import size
from engine.endpoints import backups, saved
from engine.errors import EndpointLost, EngineError, StateError, StorageError
from engine.training.attempt import Attempt
from engine.training.pruning import GB, GOING_ON, TO_USE

SPARE_BYTES = 100 * 2**20  # left on the disk for everything else
WORTH_TWICE = ("pause", "stop", "cap", "stage", "end", "best")


def checkpoint(at: Attempt, reason: str, best: float | None = None) -> None:
    """Saves what goes on (`weights`) and what is used (`sampler_weights`), and notes both. Once a step of a stage at most. `best`: the
    number that makes this the best state so far.

    Raises StorageError where the disk is nearly full, EngineError where it can't be saved.
    """
    if (at.saved_step, at.saved_stage) == (at.step, at.stage) and at.sampler_path and at.weights_path:
        _mark(at, best)
        return
    run, training = at.run, at.desk.training
    _make_room(at)
    run.stage("saving a checkpoint")
    name = f"{run.job_id}-{at.step:06d}-{run.attempt}" + (f"-stage{at.stage + 1}" if at.stage else "")
    about = {"renderer": at.renderer.name, "job": run.job_id, "step": str(at.step)}
    weights = training.save_state(name, user_metadata=about)
    # Whoever talks to it needs what it was told in training.
    told = {"system_prompt": at.recipe.system_prompt} if at.recipe.system_prompt else {}
    sampler = training.save_weights_for_sampler(name, user_metadata=about | told)
    # What lies elsewhere can't be copied from here: it is saved there a second time.
    second = None if _here(at) or reason not in WORTH_TWICE else training.save_state(f"{name}-backup", user_metadata=about)
    at.weights_path = at.client.wait(weights, "saving a checkpoint").path
    at.sampler_path = at.client.wait(sampler, "saving a checkpoint").path
    if second is not None:
        at.spare[str(at.step)] = at.client.wait(second, "saving a backup").path
    # Before it is noted: whoever goes on from here has to know that this was the best.
    _mark(at, best)
    note(at, reason)
    at.saved_step, at.saved_stage, at.saved_at = at.step, at.stage, time.monotonic()
    _keep(at)
    if reason in ("schedule", "best"):
        run.stage("learning")


def note(at: Attempt, reason: str) -> None:
    """Writes down the checkpoint that was saved last, with the state that belongs to it."""
    # What only scores answers is nothing to chat with.
    sampler_path = at.sampler_path if at.work.method.speaks else None
    sizes = {kind: _size(at, path) for kind, path in ((GOING_ON, at.weights_path), (TO_USE, sampler_path)) if path}
    at.last_bytes = sum(found or 0 for found in sizes.values())
    at.run.checkpoint(
        at.step,
        weights_path=at.weights_path,
        sampler_path=sampler_path,
        reason=reason,
        loop_state=at.state(),
        renderer=at.renderer.name,
        sizes=sizes,
    )


def _mark(at: Attempt, best: float | None) -> None:
    if best is not None:
        at.best = {"step": at.step, "value": best, "weights_path": at.weights_path, "sampler_path": at.sampler_path}


def _here(at: Attempt) -> bool:
    return saved.here(at.run.recipe.endpoint, at.run.owner)


def _size(at: Attempt, path: str) -> int | None:
    return saved.size(at.run.recipe.endpoint, at.run.owner, path)


def _make_room(at: Attempt) -> None:
    """For one more checkpoint on a disk that is nearly full: what can go, goes. Raises StorageError where that isn't enough."""
    if not _here(at):
        return
    wanted = int(at.last_bytes * 1.5) + SPARE_BYTES
    if (free := shutil.disk_usage(paths.home()).free) >= wanted:
        return
    pruned = at.run.prune(keep_last=1, most_bytes=0.0, best=_best(at), needed=_needed(at))
    if pruned.count:
        at.run.log("warning", f"the disk is nearly full ({size(free)} free): {pruned.count} older checkpoints were deleted")
        free = shutil.disk_usage(paths.home()).free
    if free < wanted:
        last = f"the last checkpoint, of step {at.saved_step:,}, is safe" if at.saved_step >= 0 else "there is no checkpoint yet"
        raise StorageError(
            f"the disk is nearly full: {size(free)} are free, and a checkpoint wants {size(wanted)}; {last}",
            "Make room, or move the data directory (THINKER_HOME); then resume the run.",
            where=str(paths.home()),
        )


def _keep(at: Attempt) -> None:
    """Second copies of what matters most, then the policy of the recipe. What goes wrong here is told, and costs the run nothing."""
    run, policy = at.run, at.run.recipe.checkpoints
    best = _best(at)
    matter = {at.step, *([best] if best is not None else []), *(left["step"] for left in at.left.values())}
    try:
        if _here(at):
            kept = {GOING_ON: at.weights_path, TO_USE: at.sampler_path}
            backups.keep(run.job_id, at.step, {kind: path for kind, path in kept.items() if path})
            backups.only(run.job_id, matter)
        else:
            for step in [step for step in at.spare if int(step) not in matter]:
                saved.discard(run.recipe.endpoint, run.owner, at.spare.pop(step))
        most = None if policy.max_gb is None else policy.max_gb * GB
        pruned = run.prune(keep_last=policy.keep_last, most_bytes=most, best=best, needed=_needed(at))
    except (EndpointLost, StateError):
        raise
    except EngineError as error:
        run.log("warning", f"the checkpoint is safe, but keeping order failed: {error}")
        return
    if pruned.count:
        freed = f", {size(pruned.bytes)}" if pruned.bytes else ""
        run.log("info", f"deleted {pruned.count} older checkpoint{'s' * (pruned.count != 1)}{freed} (checkpoints.keep_last, max_gb)")
    if pruned.trouble:
        run.log("warning", f"an older checkpoint can't be deleted: {pruned.trouble}")


def _best(at: Attempt) -> int | None:
    return at.best["step"] if at.best else at.run.best_step(at.work.method.watched, at.work.method.better, at.began)


def _needed(at: Attempt) -> set[str]:
    """What the run itself still stands on."""
    stood_on: list[dict[str, Any]] = [at.best, *at.left.values()]
    found = {str(paths_[name]) for paths_ in stood_on for name in ("weights_path", "sampler_path") if paths_.get(name)}
    return found | {path for path in (at.weights_path, at.sampler_path, *at.spare.values()) if path}
