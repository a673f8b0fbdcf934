"""What is seen of a run besides its own numbers: samples as it learns, and the proof before and after. Knows no method from another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.data.examples import Example
from engine.errors import BudgetSpent
from engine.evaluation import proof
from engine.evaluation.metrics import exact_match
from engine.store.artefacts import read_json, write_json_atomic
from engine.training import rows, winning
from engine.training.answers import answer
from engine.training.attempt import Attempt, StageWork
from engine.training.previews import say_previews
from engine.training.skipping import Asked, Skipped, skippable


def say_samples(at: Attempt) -> None:
    """The model's answers to the fixed prompts and to the person's own, at this step."""
    evaluation = at.recipe.evaluation
    fixed = at.work.data.held_out[: evaluation.samples]
    if not (fixed or evaluation.previews) or not evaluation.samples_every or not at.work.method.speaks:
        return
    sampler = at.desk.snapshot()
    try:
        with skippable(at, "samples"):
            _say(at, sampler, fixed)
            say_previews(at, sampler)
    except Skipped:
        return


def _say(at: Attempt, sampler: Any, fixed: list[Example]) -> None:
    said = _ask(at, sampler, fixed)
    for position, (example, text) in enumerate(zip(fixed, said, strict=True)):
        right = exact_match(text, example.expected) if example.expected else None
        at.run.sample(at.step, position, example.prompt[-1]["content"], example.expected or None, text, right)


def measured_before(at: Attempt) -> dict[str, Any] | None:
    """The side of the proof of what the run starts from: measured once, kept in the job's folder for later attempts."""
    if not at.run.recipe.evaluation.proof:
        return None
    file = at.run.folder / "proof.before.json"
    if file.exists():
        side = read_json(file) or {}
        return None if side.get("skipped") else side
    start = at.run.start() if at.run.recipe.start.checkpoint else None
    if start is None:
        sampler = at.client.sampler(base_model=at.run.recipe.base_model)
    elif at.step == 0:
        sampler = at.desk.snapshot()
    else:
        # A paused run that lost its folder has moved on from where it started.
        sampler = at.client.sampler(path=start.sampler_path) if start.sampler_path else None
    if sampler is None:
        return None
    side = measure(at, sampler, "before")
    # Skipped once is skipped for good: the run has moved on when it comes back.
    write_json_atomic(file, side or {"skipped": True})
    return side


def measure(at: Attempt, sampler: Any, when: str) -> dict[str, Any] | None:
    """One side of the proof, by the last stage's data and method; None if it was skipped. Raises Asked within a moment of a request to
    pause or stop."""
    try:
        with skippable(at, f"the proof {when} training", rests=True):
            return _measure(at, sampler, when)
    except Skipped:
        return None


def _measure(at: Attempt, sampler: Any, when: str) -> dict[str, Any]:
    evaluation, work = at.run.recipe.evaluation, at.stages[-1]
    skills = work.data.skills[: evaluation.skills_max] if evaluation.skills else []

    def ask(examples: Any, what: str) -> list[str]:
        at.client.poll()
        if at.meter.reached():
            raise Asked("cap")
        at.run.stage(f"testing {what} {when} training")
        return _ask(at, sampler, list(examples))

    loss = None
    if work.answers and (when == "after" or at.step == 0):
        # Before the first update the run's own forward is that of what it starts from: a new adapter changes nothing.
        reply = at.desk.wait(at.desk.forward(rows.datums(work.answers)), "measuring the held-out loss")
        loss = reply.metrics["loss:sum"]
    tokens = int(rows.counts(work.answers)["targets"]) if work.answers else 0
    return proof.measure(ask, work.data.held_out, skills, loss, tokens, work.method.score)


def won(at: Attempt, before: dict[str, Any] | None, after: dict[str, Any] | None) -> dict[str, Any] | None:
    """How often its answers are better than those that its last stage began with: see winning.py."""

    def ask(sampler: Any, examples: list[Example]) -> list[str]:
        if at.meter.reached(at.meter.proof_cost):
            # All else is measured: that isn't thrown away for this.
            raise BudgetSpent("the budget has no room for it", "Raise the limit next time.", where="recipe budget")
        return _ask(at, sampler, examples)

    return winning.judged(at, before, after, ask)


def finish(at: Attempt, before: dict[str, Any] | None, after: dict[str, Any] | None, wins: dict[str, Any] | None = None) -> None:
    """Registers the model, with the proof, and says what came of the run."""
    run, work = at.run, at.stages[-1]
    found = proof.compare(before, after, work.data.held_out, wins) if before and after else None
    result: dict[str, Any] = {
        "held_out": found["held_out"] if found else {"before": None, "after": None},
        "skills": found["skills"] if found else {"before": None, "after": None},
        "seconds": at.seconds,
        "tokens": at.tokens,
        "steps": at.step,
        "counted": dict(at.client.counted),
        "dollars": at.meter.price.dollars(at.client.counted) if at.meter.price else None,
        "checkpoint": at.sampler_path,
        "resume_checkpoint": at.weights_path,
        "renderer": at.renderer.name,
        "notes": notes(at.stages),
    }
    if at.best:
        result |= {"best_step": at.best["step"], "best": at.best["value"]}
    if found:
        write_json_atomic(run.folder / "proof.json", found)
        result |= {key: found[key] for key in ("better", "worse", "asked", "skills_detail", "examples", "win_rate")}
    run.model(sampler_path=at.sampler_path, weights_path=at.weights_path, renderer=at.renderer.name, proof=found)
    run.result(result)


def tell(at_run: Any, stages: Sequence[StageWork]) -> None:
    """What the run's data holds, in its log and in its folder."""
    for work in stages:
        data = work.data
        at_run.log("info", f"{len(data.train):,} training and {len(data.held_out):,} held-out examples from {data.name}")
    for note in notes(stages):
        at_run.log("warning", note)
    last = stages[-1].data
    write_json_atomic(
        at_run.folder / "data.json",
        {
            "name": last.name,
            "train": len(last.train),
            "held_out": len(last.held_out),
            "replay": last.replay_count,
            "notes": notes(stages),
            "problems": [problem.to_dict() for work in stages for problem in work.data.problems[:200]],
            "problem_count": sum(len(work.data.problems) for work in stages),
            "stages": [{"method": work.recipe.method, "data": work.data.name, "steps": work.total} for work in stages],
        },
    )


def notes(stages: Sequence[StageWork]) -> list[str]:
    """What people should know of their data: rows left out, examples cut."""
    found = []
    for work in stages:
        problems = work.data.problems
        if problems:
            found.append(f"{len(problems):,} rows were left out; the first: {problems[0]}")
        found += work.method.notes
    return list(dict.fromkeys(found))


def _ask(at: Attempt, sampler: Any, examples: list[Example]) -> list[str]:
    recipe = at.recipe
    prompts = [example.prompt for example in examples]
    return answer(
        at.client, sampler, at.renderer, prompts, max_tokens=recipe.evaluation.max_new_tokens, stop=recipe.stop, temperature=0.0, seed=0
    )
