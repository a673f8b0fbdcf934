"""The small run: the real loop on the local endpoint, kept in a database of its own that is thrown away. In every stage it is paused once
and goes on from what was saved. Knows the loop and the store; what the numbers are worth is said by whoever reads the report.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from statistics import fmean
from typing import Any

from engine import knowledge, paths, starts
from engine.endpoints import backups
from engine.errors import EngineError
from engine.jobs import states
from engine.jobs.run import JobRun
from engine.recipe import Recipe
from engine.rehearsing.report import Found, Report, Stopped
from engine.rehearsing.shrink import STEPS
from engine.store import Job, Store
from engine.store.artefacts import remove_job_folder
from engine.training.loop import execute
from engine.training.rewards.asking import Asker

_LEASE_S = 86_400.0
_ASK_EVERY_S = 0.5


class TrialRun(JobRun):
    """A run that is noted down apart, while what it names is looked up where everything is. Asks to be paused once in every stage."""

    def __init__(self, trial: Store, job: Job, store: Store, paused: set[int], alive: Callable[[], bool], say: Callable[[str], None]):
        super().__init__(trial, job)
        self._elsewhere, self._paused, self._alive, self._say = store, paused, alive, say
        self._looked_at = 0.0
        self.warned: list[str] = []

    def control(self) -> str | None:
        """Raises Stopped once nobody wants it any more."""
        if time.monotonic() - self._looked_at >= _ASK_EVERY_S:
            self._looked_at = time.monotonic()
            if not self._alive():
                raise Stopped
        stage, inside = divmod(self._step, STEPS)
        return "pause" if inside and stage not in self._paused else None

    def rested(self) -> None:
        """It was paused, as asked."""
        self._paused.add(max(0, self._step - 1) // STEPS)

    def stage(self, text: str) -> None:
        self._say(text)

    def log(self, level: str, text: str, **fields: Any) -> None:
        if level == "warning":
            self.warned.append(text)

    def start(self) -> starts.Start:
        return starts.find(self._elsewhere, self.owner, self.recipe.start.checkpoint)

    def find(self, ref: str) -> starts.Start:
        return starts.find(self._elsewhere, self.owner, ref)

    def asker(self) -> Asker:
        if self._asker is None:
            self._asker = Asker(self._elsewhere, self.owner)
        return self._asker


def run(
    report: Report,
    store: Store,
    owner: str,
    recipe: Recipe,
    read: Callable[[Recipe], Any],
    folder: Path,
    alive: Callable[[], bool],
    own: bool,
) -> bool:
    """Runs the small recipe to its end, and puts what was seen into the report. `own`: its model is the one that the recipe trains.
    -> whether all of it went well."""
    with closing(Store(f"sqlite:///{folder / 'trial.db'}")) as trial:
        job = trial.create_job(recipe, owner)
        try:
            return _Trial(report, store, trial, job, read, alive, own).go()
        finally:
            _clear(job.id)


class _Trial:
    def __init__(
        self, report: Report, store: Store, trial: Store, job: Job, read: Callable[[Recipe], Any], alive: Callable[[], bool], own: bool
    ):
        self._own = own
        self._report, self._store, self._trial, self._job = report, store, trial, job
        self._read, self._alive = read, alive
        self._doing = ""
        self._paused: set[int] = set()
        self._resumed: list[int] = []
        self._warned: list[str] = []

    def go(self) -> bool:
        report = self._report
        went = report.look("learning", f"Learning, small, on {report.model}", self._learn)
        if not went:
            return False
        for number, stage in enumerate(self._job.recipe.stages(), 1):
            report.look("stage", self._title(stage.recipe), lambda number=number, recipe=stage.recipe: self._stage(number, recipe), number)
        report.look("resume", "Saved, paused and gone on", self._saving)
        report.look("evaluation", "Measured before and after", self._evaluation)
        report.look("samples", "Answers on the way", self._samples)
        return True

    def _title(self, recipe: Recipe) -> str:
        return f"Its stage: {knowledge.method(recipe.method)['title'].lower()}"

    def _learn(self) -> Found:
        began, outcome = time.monotonic(), states.PAUSED
        # Each stage is paused once; a method may have a doubt after it, which pauses too.
        most = 2 * len(self._job.recipe.stages()) + 2
        for _ in range(most):
            job = self._trial.claim_job("rehearsal", _LEASE_S, self._job.id)
            assert job is not None
            run = TrialRun(self._trial, job, self._store, self._paused, self._alive, self._say)
            if run.resume is not None:
                self._resumed.append(run.resume.step)
            try:
                outcome = execute(run, self._read)
                run.flush()
                self._warned += run.warned
            except EngineError as error:
                raise type(error)(f"{self._doing or 'learning'}: {error.message}", error.next_step, where=error.where) from error
            if outcome != states.PAUSED:
                break
            run.rested()
            for state in (states.PAUSING, states.PAUSED):
                self._trial.transition(job.id, state, attempt=job.attempt)
            self._trial.resume(job.id, self._job.owner)
        if outcome != states.DONE:
            return Found(f"it came to no end after {most} attempts: {outcome}", "failed", "The log has the whole story.")
        self._job = self._trial.job(self._job.id, owner=None)
        steps, stages = self._job.step, len(self._job.recipe.stages())
        told = f"{steps} updates in {stages} stages" if stages > 1 else f"{steps} updates"
        return Found(f"{told}, {self._job.tokens:,} tokens, in {time.monotonic() - began:.1f} s")

    def _say(self, text: str) -> None:
        self._doing = text
        self._report.note("learning", f"Learning, small, on {self._report.model}", Found(text, "running"))

    def _stage(self, number: int, recipe: Recipe) -> Found:
        """The stage's main number is a number, and rewards tell answers apart."""
        known = knowledge.method(recipe.method)
        name, points = "", []
        for name in dict.fromkeys([*known["charts"], *known["watch"]]):
            points = [(step, value) for step, value in self._curve(name) if (number - 1) * STEPS < step <= number * STEPS]
            if points:
                break
        if not points:
            return Found("nothing was measured of it", "failed", "Look at the method's settings.", f"recipe stage {number}")
        values = [value for _, value in points]
        if not all(math.isfinite(value) for value in values):
            advice = "Lower the learning rate, or the weights of the reward."
            return Found(f"{_called(name)} is no longer a number", "failed", advice, "recipe training.learning_rate")
        seconds = dict(self._curve("seconds"))
        taken = seconds.get(number * STEPS, 0.0) - seconds.get((number - 1) * STEPS, 0.0)
        each = taken / len(points)
        for steps in self._report.steps:
            if steps["stage"] == number:
                steps |= {"seconds": round(each, 3), "on": self._report.model}
        text = f"{_called(name)} {values[0]:.3g} → {values[-1]:.3g} in {len(points)} updates, {each:.2f} s each on {self._report.model}"
        return self._spread(number, recipe, text) if recipe.method == "rl" else Found(text)

    def _spread(self, number: int, recipe: Recipe, text: str) -> Found:
        between = range((number - 1) * STEPS + 1, number * STEPS + 1)
        spread, mean = (
            fmean([value for step, value in self._curve(name) if step in between] or [0.0]) for name in ("reward_spread", "reward")
        )
        known = next((one for one in self._report.rewards if one["stage"] == number), None)
        if known is None:
            known = {"stage": number}
            self._report.rewards.append(known)
        known |= {"tries": round(mean, 4), "spread": round(spread, 4)}
        told = f"{text}; {self._report.model}'s tries score {mean:.3g} on average, with a spread of {spread:.2g} among those of one prompt"
        if self._own and number == 1 and spread == 0:
            advice = "Teach it by some examples first (a stage before), choose easier prompts, or a reward that also values half an answer."
            return Found(
                f"{told}: there is nothing to learn from until some answers score better than others", "care", advice, "recipe reward"
            )
        return Found(told)

    def _saving(self) -> Found:
        saved = {point.step for point in self._trial.checkpoints(self._job.id, "weights", owner=None)}
        if not self._resumed:
            return Found("it was never paused", "failed", "Look at the log.")
        where = ", ".join(map(str, dict.fromkeys(self._resumed)))
        return Found(f"{len(saved)} checkpoints; it was paused in every stage and went on from update {where}")

    def _evaluation(self) -> Found:
        result, evaluation = self._job.result or {}, self._job.recipe.evaluation
        told = []
        held_out = (result.get("held_out") or {}).get("after")
        if evaluation.proof and held_out is None:
            return Found("the proof measured nothing: there are no held-out rows", "care", "Keep some rows aside.", "recipe data")
        if problem := (result.get("win_rate") or {}).get("problem"):
            advice = "Correct the judge; without one it goes by the right answers."
            return Found(f"which answers are better couldn't be told: {problem}", "care", advice, "recipe evaluation.judge")
        if evaluation.proof:
            told.append("the proof ran before and after on held-out rows")
        if (result.get("skills") or {}).get("after") is not None:
            told.append("so did the test of general skills")
        if evaluation.eval_every:
            told.append("held-out numbers were measured on the way")
        return (
            Found("; ".join(told))
            if told
            else Found("the recipe measures nothing", "care", "Switch on the proof.", "recipe evaluation.proof")
        )

    def _samples(self) -> Found:
        samples = self._trial.samples(self._job.id, owner=None)
        if not self._job.recipe.evaluation.samples_every:
            return Found("the recipe asks for none", "skipped")
        last = {sample.position: sample for sample in samples}
        shown = [{"prompt": one.prompt, "answer": one.answer, "expected": one.expected} for one in last.values()]
        self._report.answers = shown[:6]
        if not shown:
            speaks = self._job.recipe.stages()[-1].recipe.method != "reward_model"
            return Found(
                "there was nothing to answer", "care" if speaks else "skipped", "Keep some rows aside, or give previews." if speaks else ""
            )
        if late := [text for text in self._warned if text.startswith("preview")]:
            return Found(late[0], "care", "Give previews more seconds, or take that prompt out.", "recipe evaluation.previews")
        return Found(f"{len(shown)} prompts were answered again and again")

    def _curve(self, name: str) -> list[tuple[int, float]]:
        return self._trial.curve(self._job.id, name, owner=None)


def _called(name: str) -> str:
    return str(knowledge.metric(name)["title"]).lower()


def _clear(job_id: str) -> None:
    """What the small run left on the disk: its folder, and all that the server saved in its sessions."""
    remove_job_folder(job_id)
    backups.forget_job(job_id)
    for file in (paths.home() / "checkpoints").glob("*/run.json"):
        with suppress(OSError, ValueError):
            about = json.loads(file.read_text(encoding="utf-8"))
            if (about.get("session_metadata") or {}).get("job") == job_id:
                shutil.rmtree(file.parent, ignore_errors=True)
