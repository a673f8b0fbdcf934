"""Drives any method over any endpoint: the light loop that a runner's thread runs.

The next update is submitted before the last result is awaited. At its boundaries (held-out loss, samples, checkpoint,
pause, stop) the pipeline is emptied first, so what is measured and saved is exactly the state after a counted update.
A run that resumes from a checkpoint repeats nothing and leaves nothing out: batches and rates depend on the step alone.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine import models
from engine.data import load_data
from engine.data.examples import DataSet, Example
from engine.endpoints import kind, start
from engine.endpoints.client import Client, load_sdk
from engine.errors import EndpointLost
from engine.evaluation import proof
from engine.evaluation.metrics import exact_match
from engine.rendering import Renderer, get_renderer, load_tokenizer
from engine.store.artefacts import read_json, write_json_atomic
from engine.training.answers import answer
from engine.training.methods import Method, make_method
from engine.training.schedule import learning_rate, total_steps

if TYPE_CHECKING:
    from engine.jobs.run import JobRun

RESTS = {"pause": "paused", "stop": "stopped"}
IN_FLIGHT = 2  # updates submitted ahead of the one awaited


@dataclass
class _Loop:
    """One attempt's state."""

    run: JobRun
    client: Client
    training: Any
    method: Method
    data: DataSet
    renderer: Renderer
    total: int
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    saved_step: int = -1
    saved_at: float = field(default_factory=time.monotonic)
    sampler_path: str = ""
    weights_path: str = ""


def execute(run: JobRun) -> str:
    """Runs one attempt. -> done, paused or stopped. Raises EndpointLost when the endpoint died, EngineError otherwise."""
    recipe = run.recipe
    place = kind(recipe.endpoint)
    if asked := run.wait_for_key(place.key):
        return RESTS[asked]
    folder = models.resolve(recipe.base_model, weights=place.weights)
    run.stage("preparing the examples")
    data = load_data(recipe)
    # It loads the model while the examples are rendered; what is wrong with the data is said before.
    endpoint = start(recipe.endpoint, recipe.base_model, folder, run.owner)
    # While the endpoint gets ready in its own process, this one does what takes long here.
    renderer = get_renderer(recipe.renderer, load_tokenizer(folder))
    load_sdk()
    method = make_method(recipe, data, renderer, models.context_length(folder))
    _tell(run, data, method)
    total = total_steps(recipe.training, method.rows)
    endpoint.ready(run.stage)
    run.stage("connecting")
    client = Client(endpoint, {"job": run.job_id, "attempt": str(run.attempt)}, poll=run.control)
    lost = False
    try:
        loop = _begin(run, client, method, data, renderer, total)
        return _drive(loop)
    except EndpointLost:
        lost = True
        raise
    finally:
        client.close(lost=lost)


def _tell(run: JobRun, data: DataSet, method: Method) -> None:
    run.log("info", f"{len(data.train):,} training and {len(data.held_out):,} held-out examples from {data.name}")
    for note in _notes(data, method):
        run.log("warning", note)
    write_json_atomic(
        run.folder / "data.json",
        {
            "name": data.name,
            "train": len(data.train),
            "held_out": len(data.held_out),
            "replay": data.replay_count,
            "notes": _notes(data, method),
            "problems": [problem.to_dict() for problem in data.problems[:200]],
            "problem_count": len(data.problems),
        },
    )


def _notes(data: DataSet, method: Method) -> list[str]:
    """What people should know of their data: rows left out, examples cut."""
    if not data.problems:
        return method.notes
    first = f"{len(data.problems):,} rows were left out; the first: {data.problems[0]}"
    return [first, *method.notes]


def _begin(run: JobRun, client: Client, method: Method, data: DataSet, renderer: Renderer, total: int) -> _Loop:
    recipe, loop = run.recipe, _Loop(run, client, None, method, data, renderer, total)
    if run.resume is not None:
        run.stage(f"loading the checkpoint of step {run.resume.step}")
        loop.training = client.resume(run.resume.path)
        state = run.resume.loop_state
        loop.step = loop.saved_step = run.resume.step
        loop.tokens, loop.seconds = int(state["tokens"]), float(state["seconds"])
        loop.sampler_path, loop.weights_path = state.get("sampler_path", ""), run.resume.path
    elif recipe.start.checkpoint:
        start = run.start()
        run.stage(f"loading {start.name}")
        loop.training = client.resume(start.path) if recipe.start.optimizer else client.load(start.path)
    elif recipe.full:
        run.stage("copying the model's weights")
        loop.training = client.create_full(recipe.base_model)
    else:
        run.stage("creating the adapter")
        lora = recipe.lora
        loop.training = client.create(recipe.base_model, lora.rank, recipe.seed, lora.train_mlp, lora.train_attn, lora.train_unembed)
    run.progress(loop.step, total, loop.tokens, loop.seconds)
    return loop


class _Asked(Exception):
    """Somebody asked to pause or stop while something was being measured."""

    def __init__(self, what: str):
        super().__init__(what)
        self.what = what


def _drive(loop: _Loop) -> str:
    run, recipe = loop.run, loop.run.recipe
    try:
        before = _measured_before(loop)
        if loop.step < loop.total:
            run.state("training")
            run.stage("learning")
            if loop.step == 0:
                _held_out_loss(loop)
                _say_samples(loop)
            asked = _train(loop)
            if asked:
                return _rest(loop, asked)
            _checkpoint(loop, "end")
        after = None
        if recipe.evaluation.proof:
            run.state("evaluating")
            after = _measure(loop, loop.client.sampler(path=loop.sampler_path), "after")
    except _Asked as asked:
        return _rest(loop, asked.what)
    _finish(loop, before, after)
    return "done"


def _rest(loop: _Loop, asked: str) -> str:
    """Saves what there is; a run that was stopped keeps what it learned as a model. -> paused or stopped."""
    _checkpoint(loop, asked)
    if asked == "stop" and loop.step:
        loop.run.model(sampler_path=loop.sampler_path, weights_path=loop.weights_path, renderer=loop.renderer.name, proof=None)
    return RESTS[asked]


def _train(loop: _Loop) -> str | None:
    """Updates until the end. -> "pause" or "stop" when asked for it, within a step."""
    run, recipe = loop.run, loop.run.recipe
    from tinker import types

    pending: deque[tuple[int, Any, Any, dict[str, float], float]] = deque()
    settled_at = time.monotonic()
    # Results may arrive together, so that one seems to have taken no time: the speed is that of the last few.
    recent: deque[tuple[float, float]] = deque(maxlen=2 * (IN_FLIGHT + 1))

    def settle() -> None:
        nonlocal settled_at
        step, gradients, update, counts, rate = pending.popleft()
        reply = loop.client.wait(gradients, f"training step {step + 1}")
        norm = loop.client.wait(update, f"training step {step + 1}").metrics or {}
        now = time.monotonic()
        loop.seconds += now - settled_at
        loop.tokens += int(counts["tokens"])
        loop.step = step + 1
        recent.append((counts["tokens"], now - settled_at))
        values = loop.method.metrics(reply, counts) | {
            "learning_rate": rate,
            "tokens_per_second": sum(tokens for tokens, _ in recent) / max(1e-9, sum(taken for _, taken in recent)),
            "tokens": float(loop.tokens),
            "seconds": loop.seconds,
        }
        if "grad_norm:mean" in norm:
            values["grad_norm"] = norm["grad_norm:mean"]
        run.metrics(loop.step, values)
        run.progress(loop.step, loop.total, loop.tokens, loop.seconds)
        settled_at = now

    while True:
        asked = run.control()
        submitted = loop.step + len(pending)
        if asked or submitted >= loop.total or (pending and _boundary(loop, submitted)):
            while pending:
                settle()
            if asked:
                return asked
            _at_boundary(loop)
            if loop.step >= loop.total:
                return None
            settled_at = time.monotonic()
            submitted = loop.step
        batch, counts = loop.method.batch(submitted)
        rate = learning_rate(recipe.training, submitted, loop.total)
        t = recipe.training
        params = types.AdamParams(
            learning_rate=rate, beta1=t.beta1, beta2=t.beta2, eps=t.eps, weight_decay=t.weight_decay, grad_clip_norm=t.grad_clip_norm
        )
        gradients = loop.training.forward_backward(batch, loop.method.loss_fn)
        pending.append((submitted, gradients, loop.training.optim_step(params), counts, rate))
        if len(pending) > IN_FLIGHT:
            settle()


def _boundary(loop: _Loop, done: int) -> bool:
    """Whether something is due once `done` updates have been made."""
    evaluation, saving = loop.run.recipe.evaluation, loop.run.recipe.checkpoints
    clock = saving.every_seconds and time.monotonic() - loop.saved_at >= saving.every_seconds
    return bool(_every(done, evaluation.eval_every) or _every(done, evaluation.samples_every) or _every(done, saving.every_steps) or clock)


def _at_boundary(loop: _Loop) -> None:
    evaluation, saving = loop.run.recipe.evaluation, loop.run.recipe.checkpoints
    last = loop.step >= loop.total
    if _every(loop.step, evaluation.eval_every) or (last and evaluation.eval_every):
        _held_out_loss(loop)
    if _every(loop.step, evaluation.samples_every) or (last and evaluation.samples_every):
        _say_samples(loop)
    clock = saving.every_seconds and time.monotonic() - loop.saved_at >= saving.every_seconds
    if not last and (clock or _every(loop.step, saving.every_steps)):
        _checkpoint(loop, "schedule")


def _every(step: int, interval: int) -> bool:
    return bool(interval) and step > 0 and step % interval == 0


def _held_out_loss(loop: _Loop) -> float | None:
    rows = loop.method.held_out()
    if not rows:
        return None
    reply = loop.client.wait(loop.training.forward(rows, loop.method.loss_fn), "measuring the held-out loss")
    values = loop.method.held_out_metrics(reply)
    loop.run.metrics(loop.step, values)
    return values.get("held_out_loss")


def _say_samples(loop: _Loop) -> None:
    evaluation = loop.run.recipe.evaluation
    fixed = loop.data.held_out[: evaluation.samples]
    if not fixed or not evaluation.samples_every:
        return
    sampler = loop.client.wait(loop.training.save_weights_and_get_sampling_client(), "taking a snapshot")
    said = _ask(loop, sampler, fixed)
    for position, (example, text) in enumerate(zip(fixed, said, strict=True)):
        loop.run.sample(loop.step, position, example.prompt[-1]["content"], example.answer, text, exact_match(text, example.answer))


def _ask(loop: _Loop, sampler: Any, examples: list[Example]) -> list[str]:
    recipe = loop.run.recipe
    prompts = [example.prompt for example in examples]
    return answer(
        loop.client, sampler, loop.renderer, prompts, max_tokens=recipe.evaluation.max_new_tokens, stop=recipe.stop, temperature=0.0, seed=0
    )


def _checkpoint(loop: _Loop, reason: str) -> None:
    """Saves what goes on (`weights`) and what is used (`sampler_weights`), and notes both. Once a step at most."""
    if loop.saved_step == loop.step and loop.sampler_path:
        return
    loop.run.stage("saving a checkpoint")
    name = f"{loop.run.job_id}-{loop.step:06d}-{loop.run.attempt}"
    about = {"renderer": loop.renderer.name, "job": loop.run.job_id, "step": str(loop.step)}
    weights = loop.training.save_state(name, user_metadata=about)
    # Whoever talks to it needs what it was told in training.
    told = {"system_prompt": loop.run.recipe.system_prompt} if loop.run.recipe.system_prompt else {}
    sampler = loop.training.save_weights_for_sampler(name, user_metadata=about | told)
    loop.weights_path = loop.client.wait(weights, "saving a checkpoint").path
    loop.sampler_path = loop.client.wait(sampler, "saving a checkpoint").path
    loop.run.checkpoint(
        loop.step,
        weights_path=loop.weights_path,
        sampler_path=loop.sampler_path,
        reason=reason,
        loop_state={"tokens": loop.tokens, "seconds": loop.seconds, "sampler_path": loop.sampler_path},
        renderer=loop.renderer.name,
    )
    loop.saved_step, loop.saved_at = loop.step, time.monotonic()
    if reason == "schedule":
        loop.run.stage("learning")


def _measured_before(loop: _Loop) -> dict[str, Any] | None:
    """The side of the proof of what the run starts from: measured once, kept in the job's folder for later attempts."""
    if not loop.run.recipe.evaluation.proof:
        return None
    file = loop.run.folder / "proof.before.json"
    if file.exists():
        return read_json(file)
    start = loop.run.start() if loop.run.recipe.start.checkpoint else None
    if start is None:
        sampler = loop.client.sampler(base_model=loop.run.recipe.base_model)
    elif loop.step == 0:
        sampler = loop.client.wait(loop.training.save_weights_and_get_sampling_client(), "taking a snapshot")
    else:
        # A paused run that lost its folder has moved on from where it started.
        sampler = loop.client.sampler(path=start.sampler_path) if start.sampler_path else None
    if sampler is None:
        return None
    side = _measure(loop, sampler, "before")
    write_json_atomic(file, side)
    return side


def _measure(loop: _Loop, sampler: Any, when: str) -> dict[str, Any]:
    """One side of the proof. Raises _Asked within a moment of a request to pause or stop."""
    evaluation = loop.run.recipe.evaluation
    skills = loop.data.skills[: evaluation.skills_max] if evaluation.skills else []
    rows = loop.method.held_out()

    def ask(examples: Any, what: str) -> list[str]:
        loop.client.poll()
        loop.run.stage(f"testing {what} {when} training")
        return _ask(loop, sampler, list(examples))

    with _interruptible(loop):
        loss = None
        if rows and (when == "after" or loop.step == 0):
            # Before the first update the run's own forward is that of what it starts from: a new adapter changes nothing.
            reply = loop.client.wait(loop.training.forward(rows, loop.method.loss_fn), "measuring the held-out loss")
            loss = loop.method.held_out_metrics(reply)["held_out_loss"]
        return proof.measure(ask, loop.data.held_out, skills, loss, loop.method.held_out_tokens())


@contextmanager
def _interruptible(loop: _Loop) -> Iterator[None]:
    """Waits in here end with _Asked once somebody asks to pause or stop."""

    def poll() -> None:
        if asked := loop.run.control():
            raise _Asked(asked)

    usual, loop.client.poll = loop.client.poll, poll
    try:
        yield
    finally:
        loop.client.poll = usual


def _finish(loop: _Loop, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
    run = loop.run
    found = proof.compare(before, after, loop.data.held_out) if before and after else None
    result: dict[str, Any] = {
        "held_out": found["held_out"] if found else {"before": None, "after": None},
        "skills": found["skills"] if found else {"before": None, "after": None},
        "seconds": loop.seconds,
        "tokens": loop.tokens,
        "steps": loop.step,
        "checkpoint": loop.sampler_path,
        "resume_checkpoint": loop.weights_path,
        "renderer": loop.renderer.name,
        "notes": _notes(loop.data, loop.method),
    }
    if found:
        write_json_atomic(run.folder / "proof.json", found)
        result |= {key: found[key] for key in ("better", "worse", "skills_detail", "examples")}
    run.model(sampler_path=loop.sampler_path, weights_path=loop.weights_path, renderer=loop.renderer.name, proof=found)
    run.result(result)
