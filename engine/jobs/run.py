"""JobRun: the handle through which training code tells of a run and hears what people ask of it.

A step is a count of updates done: the first update reports step 1, a checkpoint of step s holds updates 1 to s, and a
run that resumes from it reports s + 1 next. Knows nothing of how the training is done.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

from engine import keys, paths, starts
from engine.errors import KeyNeeded, StorageError
from engine.jobs import logs, states
from engine.jobs.buffer import MetricsBuffer
from engine.jobs.usage import Usage
from engine.store import Checkpoint, Job, LeaseLost, Store, artefacts
from engine.training import keeping
from engine.training.rewards.asking import Asker

_POLL_S = 0.2
KEY_WAIT_S = 10.0  # whoever holds the key may be handing it over just now


class Interrupted(Exception):
    """The runner is closing down: end now. The job goes on from its last checkpoint in another runner."""


class JobRun:
    """One attempt of a job, in the hands of the code that trains.

    Every method that writes raises LeaseLost when the job is somebody else's by now: let it pass through.
    """

    def __init__(self, store: Store, job: Job):
        self._store = store
        self._buffer = MetricsBuffer(store, job.id, job.attempt)
        self._asked: str | None = None
        self._asked_at = 0.0
        self._lost = threading.Event()
        self._closing = threading.Event()
        self._usage = Usage()
        self._asker: Asker | None = None
        self._step = 0
        self.job_id = job.id
        self.owner = job.owner
        self.attempt = job.attempt
        self.name = job.name
        self.recipe = job.recipe
        self.folder = paths.job_folder(job.id)
        artefacts.sweep(self.folder)
        self.resume: Checkpoint | None = store.last_checkpoint(job.id, owner=None)

    def stage(self, text: str) -> None:
        """What the run is busy with, in plain words ("loading model weights")."""
        self._store.set_fields(self.job_id, self.attempt, stage=text)
        self.log("info", text)

    def state(self, to: str) -> None:
        """Moves on to `training` or `evaluating`; passed over when the job was asked to pause or stop."""
        self._store.transition(self.job_id, to, attempt=self.attempt)

    def control(self) -> str | None:
        """'pause' or 'stop' once somebody asks for it. Cheap: call it every step.

        Raises LeaseLost, and Interrupted when the runner closes down.
        """
        asked = self._listen()
        return None if asked == states.SKIP else asked

    def wants_to_skip(self) -> bool:
        """Whether somebody asks to leave out what was offered to be skipped. Raises as `control`."""
        return self._listen() == states.SKIP

    def offer_skip(self, what: str) -> None:
        """Says what the run does that can be left out; empty when it's over."""
        with suppress(StorageError):
            self._store.offer_skip(self.job_id, self.attempt, what)
        self._asked, self._asked_at = None, 0.0

    def wait_for_key(self, need: keys.Need | None) -> str | None:
        """Comes back when the owner's key is at hand, with 'pause' or 'stop' if somebody asks for it meanwhile. Raises KeyNeeded."""
        deadline = time.monotonic() + KEY_WAIT_S
        while need is not None and keys.find(self.owner, need) is None:
            if asked := self.control():
                return asked
            if time.monotonic() > deadline:
                advice = f"Give it again in the settings; the run then goes on by itself. Keys come from {need.get_one}."
                raise KeyNeeded(f"the key for {need.title} isn't there", advice)
            time.sleep(0.1)
        return None

    def resume_from(self, checkpoint: Checkpoint | None) -> None:
        """Goes on from another checkpoint than the last (None: from the start), which can't be used. Call it before the first step."""
        self._store.start_from(self.job_id, self.attempt, checkpoint.step if checkpoint else 0)
        self.resume = checkpoint

    def start(self) -> starts.Start:
        """What its recipe goes on from. Raises NotFound where that is gone meanwhile."""
        return starts.find(self._store, self.owner, self.recipe.start.checkpoint)

    def find(self, ref: str) -> starts.Start:
        """A tuned model or checkpoint of its owner's, by what recipes call it. Raises NotFound and RecipeError."""
        return starts.find(self._store, self.owner, ref)

    def asker(self) -> Asker:
        """What asks other models over HTTP in its owner's name."""
        if self._asker is None:
            # One for the whole attempt: it remembers what is open, and what a server doesn't take.
            self._asker = Asker(self._store, self.owner, self.recipe.endpoint)
        return self._asker

    def progress(self, step: int, total_steps: int, tokens: int, training_seconds: float) -> None:
        """How far the run is: updates done and to do, tokens trained on and seconds trained, of all attempts together."""
        values = {"step": step, "total_steps": total_steps, "tokens": tokens, "training_seconds": training_seconds}
        self._step = step
        self._buffer.set_progress(values)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Numbers of a step. Within an attempt the first value of a name and step counts."""
        self._buffer.add_metrics(step, values)

    def sample(self, step: int, position: int, prompt: str, expected: str | None, answer: str, correct: bool | None = None) -> None:
        """What the model answers at this step to the fixed prompt of this position."""
        row = {"step": step, "position": position, "prompt": prompt, "expected": expected, "answer": answer, "correct": correct}
        self._buffer.add_sample(row)

    def checkpoint(
        self,
        step: int,
        *,
        weights_path: str | None = None,
        sampler_path: str | None = None,
        reason: str,
        loop_state: dict[str, Any],
        renderer: str,
        sizes: Mapping[str, int | None] | None = None,
    ) -> None:
        """Notes that the state after update `step` is safe; `sizes`: bytes by kind. Everything reported so far is written with it, so that
        none goes missing."""
        where = {"weights": weights_path, "sampler_weights": sampler_path}
        found = {kind: path for kind, path in where.items() if path}
        common = {"step": step, "reason": reason, "loop_state": loop_state, "renderer": renderer}
        rows = [{**common, "kind": kind, "path": path, "bytes": (sizes or {}).get(kind)} for kind, path in found.items()]
        self._buffer.flush(checkpoints=rows)
        self.log("info", f"checkpoint at step {step}", reason=reason, **found)

    def checkpoints(self) -> list[Checkpoint]:
        """The states to go on from that it has saved, oldest first."""
        return self._store.checkpoints(self.job_id, "weights", owner=None)

    def best_step(self, watched: str, better: str, since: int) -> int | None:
        """Of the steps that were saved after `since`, the one where the held-out number was best."""
        steps = {state.step for state in self._store.checkpoints(self.job_id, owner=None)}
        return keeping.best_step(self._store, self.job_id, steps, watched, better, since)

    def prune(self, *, keep_last: int | None, most_bytes: float | None, best: int | None, needed: Collection[str]) -> keeping.Pruned:
        """Does away with saved states by the policy; `needed` are paths that the run stands on. Raises LeaseLost."""
        self._store.poll_control(self.job_id, self.attempt)
        job = self._store.job(self.job_id, owner=None)
        return keeping.prune(self._store, job, keep_last=keep_last, most_bytes=most_bytes, best=best, needed=needed)

    def result(self, values: dict[str, Any]) -> None:
        """What came of the run; keys are added to those that are there."""
        self._store.set_fields(self.job_id, self.attempt, result=logs.masked(values, names=False))

    def model(self, *, sampler_path: str, weights_path: str, renderer: str, proof: dict[str, Any] | None) -> str:
        """Registers what was trained, for chats and exports. -> its name."""
        recipe = self.recipe
        known = {"base_model": recipe.base_model, "endpoint": recipe.endpoint, "system_prompt": recipe.system_prompt, "stop": recipe.stop}
        # It may have been renamed since it began.
        model = self._store.add_model(
            self._store.job(self.job_id, owner=None).name,
            job_id=self.job_id,
            sampler_path=sampler_path,
            weights_path=weights_path,
            renderer=renderer,
            proof=proof,
            parent=recipe.start.checkpoint,
            owner=self.owner,
            **known,
        )
        return model.name

    def keep_last(self) -> None:
        """Registers what earlier attempts had learned by their last checkpoint, if there is one to use."""
        last = self._store.last_checkpoint(self.job_id, "sampler_weights", owner=None)
        if last is not None and last.step > 0:
            weights = self.resume.path if self.resume is not None else ""
            self.model(sampler_path=last.path, weights_path=weights, renderer=last.renderer, proof=None)

    def log(self, level: str, text: str, **fields: Any) -> None:
        """One line in the job's log and the common one."""
        logs.log(level, text, job_id=self.job_id, attempt=self.attempt, **fields)

    def flush(self) -> None:
        """Writes what was reported and isn't in the store yet."""
        self._buffer.flush()

    def tick(self) -> None:
        """Called by the runner a few times a second, so that numbers don't wait for the next step to be seen."""
        if self._step and (used := self._usage.due()):
            self._buffer.add_metrics(self._step, used)
        self._buffer.flush_if_due()

    def lose(self) -> None:
        """Called by the runner when the job is no longer its own."""
        self._lost.set()

    def interrupt(self) -> None:
        """Called by the runner when it closes down."""
        self._closing.set()

    def _listen(self) -> str | None:
        if self._closing.is_set():
            raise Interrupted("the runner is closing down")
        if self._lost.is_set():
            raise LeaseLost("The job is in other hands.", where=f"job {self.job_id}")
        if time.monotonic() - self._asked_at >= _POLL_S:
            # The lease decides how long a run may go on without its database.
            with suppress(StorageError):
                self._asked = self._store.poll_control(self.job_id, self.attempt)
            self._asked_at = time.monotonic()
        return self._asked
