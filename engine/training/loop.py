"""Drives any method over any endpoint: the light loop that a runner's thread runs.

The next update is submitted before the last result is awaited. At its boundaries (held-out numbers, samples, checkpoint,
pause, stop) the pipeline is emptied first, so what is measured and saved is exactly the state after a counted update.
A run that resumes from a checkpoint repeats nothing and leaves nothing out: batches and rates depend on the step alone.
A recipe's stages follow one another in the same attempt; each begins with the weights that the one before it left.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine import models
from engine.data import load_data
from engine.data.examples import DataSet
from engine.endpoints import kind, start
from engine.endpoints.client import Client, load_sdk
from engine.endpoints.fitting import fits
from engine.errors import EndpointLost
from engine.recipe import Recipe, Stage
from engine.rendering import Renderer, get_renderer, load_tokenizer
from engine.training import previews, rows, winning
from engine.training.attempt import Attempt, StageWork
from engine.training.methods import Ticket, make_method
from engine.training.overlap import Overlap, Saved
from engine.training.proving import finish, measure, measured_before, say_samples, tell, won
from engine.training.restoring import way_back
from engine.training.saving import checkpoint, note
from engine.training.schedule import learning_rate, total_steps
from engine.training.skipping import Asked, Skipped, skippable

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

CAP = "cap"
RESTS = {"pause": "paused", "stop": "stopped"}
IN_FLIGHT = 2  # updates submitted ahead of the one awaited


def execute(run: JobRun, read: Callable[[Recipe], DataSet] = load_data) -> str:
    """Runs one attempt. -> done, paused or stopped. Raises EndpointLost when the endpoint died, EngineError otherwise.

    `read` gives the rows of a stage's recipe.
    """

    def heed() -> None:
        if asked := run.control():
            raise Asked(asked)

    try:
        return _attempt(run, read, heed)
    except Asked as asked:
        # Before its first step an attempt has nothing to save; what those before it saved may be all there will be.
        if asked.what == "stop":
            run.keep_last()
        return RESTS[asked.what]


def _attempt(run: JobRun, read: Callable[[Recipe], DataSet], heed: Callable[[], None]) -> str:
    """`heed` is called wherever it waits before its first step, and ends that by raising Asked."""
    recipe = run.recipe
    place = kind(recipe.endpoint, run.owner)
    if asked := run.wait_for_key(place.key):
        raise Asked(asked)
    folder = models.resolve(recipe.base_model, weights=place.weights)
    winning.check(recipe)
    run.stage("preparing the examples")
    found = [(stage, read(stage.recipe)) for stage in recipe.stages()]
    # It loads the model while the examples are rendered; what is wrong with the data is said before.
    endpoint = start(recipe.endpoint, recipe.base_model, folder, run.owner)
    # While the endpoint gets ready in its own process, this one does what takes long here.
    renderer = get_renderer(recipe.renderer, load_tokenizer(folder))
    load_sdk()
    context = endpoint.context(heed)
    for stage, _ in found:
        fits(stage.recipe, context)
    own = models.context_length(folder)
    stages = [_ready(stage, data, renderer, min(own, context or own)) for stage, data in found]
    tell(run, stages)
    endpoint.ready(run.stage, heed)
    run.stage("connecting")
    client = Client(endpoint, {"job": run.job_id, "attempt": str(run.attempt)}, poll=heed)
    lost, at = False, Attempt(run, client, renderer, stages)
    try:
        return _drive(_begin(at, heed))
    except EndpointLost:
        lost = True
        raise
    finally:
        for work in stages:
            work.method.close()
        previews.close(at)
        client.close(lost=lost)


def _ready(stage: Stage, data: DataSet, renderer: Renderer, context: int) -> StageWork:
    method = make_method(stage.recipe, data, renderer, context)
    answered = [example for example in data.held_out if example.expected]
    limit = min(stage.recipe.training.max_length or context, context)
    answers = rows.rendered(answered, renderer, limit, "held-out", [])[0] if stage.recipe.evaluation.proof else []
    return StageWork(stage.recipe, stage.begins, data, method, total_steps(stage.recipe.training, method.rows), answers, limit)


def _begin(at: Attempt, heed: Callable[[], None]) -> Attempt:
    run = at.run
    way_back(at, heed)
    at.client.poll = run.control
    if run.resume is not None:
        at.restore(run.resume.step, run.resume.path, run.resume.loop_state)
        if _over(at) and at.stage + 1 < len(at.stages):
            _leave(at)
            at.next_stage()
            _say_opening(at)
            at.open()
        else:
            run.stage(f"loading the checkpoint of step {run.resume.step}")
            at.open(at.client.resume(run.resume.path))
    else:
        at.meter.restore({})
        _say_opening(at)
        at.open()
    run.progress(at.step, at.total, at.tokens, at.seconds)
    return at


def _say_opening(at: Attempt) -> None:
    recipe, run = at.run.recipe, at.run
    if at.stage:
        run.stage(f"stage {at.stage + 1} of {len(at.stages)}: {at.recipe.method}")
    elif recipe.start.checkpoint:
        run.stage(f"loading {run.start().name}")
    else:
        run.stage("copying the model's weights" if recipe.full else "creating the adapter")


def _drive(at: Attempt) -> str:
    run = at.run
    try:
        at.meter.mark()
        before = measured_before(at)
        if at.step == 0 and not at.meter.proof_cost:
            at.meter.proven()
            run.metrics(0, at.meter.values())
        at.meter.keep(now=True)
        learning = False
        while True:
            if not _over(at):
                if not learning:
                    run.state("training")
                learning = True
                run.stage("learning")
                if at.own_step == 0:
                    _measure(at)
                    say_samples(at)
                asked = _train(at)
                if asked:
                    return _rest(at, asked)
            _end_stage(at)
            if at.stage + 1 == len(at.stages):
                break
            if doubt := _doubt(at):
                return doubt
            at.next_stage()
            _say_opening(at)
            at.open()
        after = wins = None
        if run.recipe.evaluation.proof:
            run.state("evaluating")
            if at.meter.reached(at.meter.proof_cost):
                raise Asked(CAP)
            if at.best.get("step", at.step) != at.step:
                at.desk.training = at.client.load(at.weights_path)
            after = measure(at, at.client.sampler(path=at.sampler_path), "after")
            wins = won(at, before, after)
        elif not learning:
            # It was cut off between its last checkpoint and its end.
            run.state("training")
    except Asked as asked:
        return _rest(at, asked.what)
    finish(at, before, after, wins)
    return "done"


def _over(at: Attempt) -> bool:
    return at.step >= at.end or at.watch.enough(at.recipe.training)


def _end_stage(at: Attempt) -> None:
    """The stage's last state is safe, and so is what it leaves to those that follow."""
    checkpoint(at, "end" if at.stage + 1 == len(at.stages) else "stage")
    _leave(at)


def _doubt(at: Attempt) -> str | None:
    """Whether to ask before the next stage begins: once. -> paused, with the reason in the result; resuming means going on all the same."""
    doubt = at.work.method.doubt()
    if not doubt or str(at.stage) in at.asked:
        return None
    at.asked.append(str(at.stage))
    note(at, "asked")
    at.run.log("warning", doubt)
    at.run.result({"asks": doubt})
    return RESTS["pause"]


def _leave(at: Attempt) -> None:
    step = at.step
    if at.best:
        step = at.best["step"]
        at.run.log("info", f"keeping step {step:,}, where {at.work.method.watched} was best: {at.best['value']:.4g}")
        at.weights_path, at.sampler_path = at.best["weights_path"], at.best["sampler_path"]
    at.left[at.stage] = {"weights_path": at.weights_path, "sampler_path": at.sampler_path, "step": step}


def _rest(at: Attempt, asked: str) -> str:
    """Saves what there is; a run that was stopped keeps what it learned as a model. -> paused or stopped. Raises BudgetSpent."""
    checkpoint(at, asked)
    at.meter.keep(now=True)
    if asked in ("stop", CAP) and at.step and at.work.method.speaks:
        at.run.model(sampler_path=at.sampler_path, weights_path=at.weights_path, renderer=at.renderer.name, proof=None)
    if asked == CAP and at.meter.spent is not None:
        raise at.meter.spent
    return RESTS[asked]


def _train(at: Attempt) -> str | None:
    """Updates until the stage's end. -> "pause", "stop" or "cap" when asked for it or at its limit, within a step."""
    run, method = at.run, at.work.method
    pending: deque[tuple[Ticket, float, dict[str, int]]] = deque()
    settled_at = time.monotonic()
    # Results may arrive together, so that one seems to have taken no time: the speed is that of the last few.
    recent: deque[tuple[float, float]] = deque(maxlen=2 * (IN_FLIGHT + 1))
    overlap = Overlap()

    def settle() -> None:
        nonlocal settled_at
        ticket, rate, counted = pending.popleft()
        values = method.settle(ticket)
        now = time.monotonic()
        at.seconds += now - settled_at
        at.tokens += int(ticket.counts["tokens"])
        at.step += 1
        recent.append((ticket.counts["tokens"], now - settled_at))
        values |= {
            "learning_rate": rate,
            "tokens_per_second": sum(tokens for tokens, _ in recent) / max(1e-9, sum(taken for _, taken in recent)),
            "tokens": float(at.tokens),
            "seconds": at.seconds,
            **at.meter.values(counted),
        }
        run.metrics(at.step, values)
        run.progress(at.step, at.total, at.tokens, at.seconds)
        at.meter.keep()
        settled_at = now

    began, first = at.seconds, at.step
    if at.own_step and at.looked != at.step and _boundary(at, at.step):
        # It was paused at this very step, before it could look around.
        _at_boundary(at)
    while True:
        asked = run.control() or (CAP if at.meter.reached(at.meter.step_cost) else None)
        submitted = at.step + len(pending)
        if asked or submitted >= at.end or (pending and _boundary(at, submitted)):
            while pending:
                settle()
            # At its very end a stage is rather brought to it: what is left to measure would be forgotten.
            if asked and at.step < at.end:
                return asked
            _at_boundary(at)
            if _over(at):
                _say_saved(at, overlap.saved(at.step - first, at.seconds - began))
                return None
            settled_at = time.monotonic()
            submitted = at.step
        own = submitted - at.began
        rate = learning_rate(at.recipe.training, own, at.work.total) * at.watch.scale
        sent_at = time.monotonic()
        at.meter.mark()
        ticket = method.submit(own, rate)
        if ticket.updates:
            overlap.sent(ticket.updates[-1], sent_at, len(pending))
        pending.append((ticket, rate, at.meter.stepped()))
        if len(pending) > IN_FLIGHT:
            settle()


def _say_saved(at: Attempt, found: Saved | None) -> None:
    """What it was worth not to wait for one step's result before the next is sent."""
    if found:
        each = f"a step takes {found.step:.3f} s, awaited alone {found.alone:.3f} s"
        at.run.log("info", f"sending steps ahead saved {found.seconds:.1f} s: {each} (pipelining)")


def _boundary(at: Attempt, done: int) -> bool:
    """Whether something is due once `done` updates have been made."""
    evaluation, saving = at.recipe.evaluation, at.run.recipe.checkpoints
    clock = saving.every_seconds and time.monotonic() - at.saved_at >= saving.every_seconds
    return bool(_every(done, evaluation.eval_every) or _every(done, evaluation.samples_every) or _every(done, saving.every_steps) or clock)


def _at_boundary(at: Attempt) -> None:
    evaluation, saving = at.recipe.evaluation, at.run.recipe.checkpoints
    last = at.step >= at.end
    at.looked = at.step
    if _every(at.step, evaluation.eval_every) or (last and evaluation.eval_every):
        _measure(at)
    if _every(at.step, evaluation.samples_every) or (last and evaluation.samples_every):
        say_samples(at)
    clock = saving.every_seconds and time.monotonic() - at.saved_at >= saving.every_seconds
    if not last and (clock or _every(at.step, saving.every_steps)):
        checkpoint(at, "schedule")


def _every(step: int, interval: int) -> bool:
    return bool(interval) and step > 0 and step % interval == 0


def _measure(at: Attempt) -> None:
    """The held-out numbers, and what follows of them: a best checkpoint, an early end, a lower rate."""
    try:
        with skippable(at, "the held-out numbers"):
            values = at.work.method.measure()
    except Skipped:
        return
    if not values:
        return
    at.run.metrics(at.step, values)
    training, watched = at.recipe.training, at.work.method.watched
    if watched not in values:
        return
    scale = at.watch.scale
    best = at.watch.see(values[watched], at.step, training, at.work.method.better)
    if best and training.keep_best and at.own_step:
        checkpoint(at, "best", values[watched])
    if at.watch.scale != scale:
        at.run.log("info", f"{watched} hasn't got better for a while: the learning rate is lowered to {at.watch.scale:.3g} of its schedule")
    if at.watch.enough(training) and at.step < at.end:
        at.run.log("info", f"{watched} hasn't got better in {at.watch.since} measurements: this is the end (early stopping)")
        if at.watch.best is not None:
            at.run.log("info", f"it was best at step {at.watch.best_step:,}: {at.watch.best:.4g}")
