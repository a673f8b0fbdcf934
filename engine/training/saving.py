"""Makes a run safe: checkpoints to go on from and to use, and what the run needs to know with them."""

from __future__ import annotations

import time

from engine.training.attempt import Attempt


def checkpoint(at: Attempt, reason: str) -> None:
    """Saves what goes on (`weights`) and what is used (`sampler_weights`), and notes both. Once a step of a stage at most."""
    if (at.saved_step, at.saved_stage) == (at.step, at.stage) and at.sampler_path and at.weights_path:
        return
    run, training = at.run, at.desk.training
    run.stage("saving a checkpoint")
    name = f"{run.job_id}-{at.step:06d}-{run.attempt}" + (f"-stage{at.stage + 1}" if at.stage else "")
    about = {"renderer": at.renderer.name, "job": run.job_id, "step": str(at.step)}
    weights = training.save_state(name, user_metadata=about)
    # Whoever talks to it needs what it was told in training.
    told = {"system_prompt": at.recipe.system_prompt} if at.recipe.system_prompt else {}
    sampler = training.save_weights_for_sampler(name, user_metadata=about | told)
    at.weights_path = at.client.wait(weights, "saving a checkpoint").path
    at.sampler_path = at.client.wait(sampler, "saving a checkpoint").path
    note(at, reason)
    at.saved_step, at.saved_stage, at.saved_at = at.step, at.stage, time.monotonic()
    if reason in ("schedule", "best"):
        run.stage("learning")


def note(at: Attempt, reason: str) -> None:
    """Writes down the checkpoint that was saved last, with the state that belongs to it."""
    at.run.checkpoint(
        at.step,
        weights_path=at.weights_path,
        # What only scores answers is nothing to chat with.
        sampler_path=at.sampler_path if at.work.method.speaks else None,
        reason=reason,
        loop_state=at.state(),
        renderer=at.renderer.name,
    )
