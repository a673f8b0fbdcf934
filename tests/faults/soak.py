"""Kills runners, servers and a dashboard at random moments while real runs train, and holds the runs against one that nothing disturbed.

    python -m tests.faults.soak --kills 50 --seed 1 --recipe dpo --dashboard

The seed makes the plan: who dies (the server, the runner, both, the dashboard) and when. What is killed comes back as on a person's
machine: somebody starts a runner, and a run that gave up because it was cut off too often is resumed. Isn't collected by pytest;
`test_soak` does some kills of the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from engine import Engine, platforms
from engine.data import load_data
from engine.jobs import host
from engine.server.checkpoints import CheckpointPath, CheckpointStore
from engine.store import Checkpoint, Job
from engine.training.rollouts import shown
from engine.training.schedule import rows_of_step
from tests.faults import recipes
from tests.faults.dashboard import Dashboard

ROOT = Path(__file__).resolve().parents[2]
VICTIMS = {"server": 5, "runner": 4, "both": 1, "dashboard": 3}
TOLERANCE = 1e-5
DRAWN = 0.05  # by which weights may differ that were learned from drawn answers: how many are drawn at once moves the last digits
STUCK_SECONDS = 120.0
_DRAFT = (".tmp", ".old", ".draft")


@dataclass(frozen=True)
class Kill:
    """One entry of the plan. `learning` counts the delay from when the run learns again, else from the kill before."""

    victim: str
    learning: bool
    delay: float


@dataclass
class Report:
    """What was found; `problems` is empty when all is well."""

    kills: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    attempts: int = 0
    resumed: int = 0
    pages: int = 0
    worst: float = 0.0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "kills": dict(self.kills), "moments": dict(self.moments), "seconds": round(self.seconds, 1)}


def plan(kills: int, seed: int, longest: float = 2.0, *, dashboard: bool = False) -> list[Kill]:
    """The same for the same seed."""
    chance = random.Random(seed)
    victims = {name: weight for name, weight in VICTIMS.items() if dashboard or name != "dashboard"}
    who, weights = list(victims), list(victims.values())
    return [Kill(chance.choices(who, weights)[0], chance.random() < 0.75, chance.uniform(0.0, longest)) for _ in range(kills)]


class Soak:
    """A data directory of its own (THINKER_HOME has to name it), and what runs on it."""

    def __init__(
        self, home: Path, steps: int, kind: str = "sft", *, dashboard: bool = False, say: Callable[[str], None] = lambda text: None
    ):
        self.home, self.kind, self.report = home, recipes.KINDS[kind], Report()
        self._say = say
        self._engine = Engine()
        self.recipe = recipes.small(home, kind, steps)
        self._runner: subprocess.Popen | None = None
        self._wants_dashboard, self._dashboard = dashboard, None
        self._straight: Job | None = None
        self._strangers = {process.pid for process in psutil.Process().children(recursive=True)}  # children that were there before

    def run(self, kills: list[Kill]) -> Report:
        """All of the plan, over as many runs as it takes, each of them carried to its end."""
        began = time.monotonic()
        try:
            self._straight = self._finished(self._launch())
            if self._wants_dashboard:
                self._dashboard = Dashboard(self.home, "training")
            left = list(kills)
            while left or not self.report.runs:
                job = self._launch()
                while left and not self._ended(job):
                    self._strike(job, left)
                self._check(self._finished(job))
            self._check_place()
        finally:
            self._end()
        self._check_left_behind()
        self.report.seconds = time.monotonic() - began
        return self.report

    # -- what happens

    def _launch(self) -> Job:
        self._start_runner()
        job = self._engine.launch(self.recipe)
        if self._dashboard:
            self._dashboard.look_at("training", f"job={job.id}")
        return job

    def _start_runner(self) -> None:
        """As a dashboard or a command does that finds none. One that somebody else started is as good."""
        if self._runner_pid():
            return
        # A short lease, so that nobody waits long for a dead runner's heir.
        command = [sys.executable, "-m", "engine.jobs.host", "--lease", "2", "--idle", "120"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive"}
        if self._runner is None or self._runner.poll() is not None:
            with (self.home / "runner.out").open("ab") as output:
                self._runner = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
        # Of several that start at once one stays, which needn't be this one.
        self._until(lambda: self._runner_pid() or self._runner.poll() is not None)

    def _runner_pid(self) -> int:
        """Of whoever carries out the jobs, 0 where nobody does."""
        return int((host.runner_info() or {}).get("pid", 0))

    def _strike(self, job: Job, left: list[Kill]) -> None:
        """The next kill, unless the run ends before its moment."""
        kill = left[0]
        if kill.learning:
            self._until(lambda: self._ended(job) or self._engine.job(job.id).state == "training")
        moment = time.monotonic() + kill.delay
        while time.monotonic() < moment:
            if self._ended(job):
                # The machine was faster than the plan.
                left[0] = replace(kill, delay=kill.delay / 2)
                return
            time.sleep(0.01)
        victims = self._until(lambda: self._ended(job) or self._pids(kill.victim))
        if victims is True:
            return
        before = self._engine.job(job.id)
        if kill.victim == "dashboard":
            self._dashboard.kill()
        for pid in victims:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        left.pop(0)
        self.report.kills[kill.victim] += 1
        self.report.moments[before.stage or before.state] += 1
        self._say(f"{kill.victim} killed at step {before.step}, {before.state}: {before.stage or '-'}")
        if self._runner is not None and self._runner.pid in victims:
            self._runner.wait(10)
        if kill.victim == "dashboard":
            self._dashboard.start()
        self._start_runner()

    def _pids(self, victim: str) -> list[int]:
        if victim == "dashboard":
            return [self._dashboard.process.pid] if self._dashboard.answers() else []
        runner = [pid] if (pid := self._runner_pid()) else []
        return {"server": self._servers(), "runner": runner, "both": runner + self._servers() if self._servers() else []}[victim]

    def _servers(self) -> list[int]:
        """Those of this data directory, those that are just starting included."""
        mine = str(self.home / "checkpoints")
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                line = process.cmdline()
                if "engine.server" in line and mine in line:
                    found.append(process.pid)
        return found

    def _ended(self, job: Job) -> bool:
        now = self._engine.job(job.id)
        if now.state == "failed":
            told = str((now.error or {}).get("message"))
            if "was cut off" not in told:
                raise AssertionError(f"the run failed: {now.error} {self._engine.log(job.id, 20)}")
            # It was killed so often that it gave up, and says so: a person resumes it.
            self._engine.resume(job.id)
            self.report.resumed += 1
            return False
        if now.state != "done":
            # One that was about to end when it was looked for may have gone since.
            self._engine.revive()
        return now.state == "done"

    def _finished(self, job: Job) -> Job:
        self._until(lambda: self._ended(job))
        return self._engine.job(job.id)

    def _until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + STUCK_SECONDS
        while not (found := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing happened for {STUCK_SECONDS:.0f} s: {self._engine.jobs()}")
            time.sleep(0.02)
        return found

    # -- what has to hold

    def _check(self, job: Job) -> None:
        straight, steps = self._straight, self.recipe.training.steps
        assert straight is not None and steps is not None
        self.report.runs += 1
        self.report.attempts += len(self._engine.store.attempts(job.id))
        for place, name in enumerate(self.kind.curves):
            there, here = self._engine.curve(straight.id, name), self._engine.curve(job.id, name)
            if [step for step, _ in here] != [step for step, _ in there] or (place == 0 and len(here) != steps):
                self._problem(job, f"{name} has the steps {[step for step, _ in here]}")
            elif self.kind.exact:
                off = max(abs(a - b) for (_, a), (_, b) in zip(here, there, strict=True))
                self.report.worst = max(self.report.worst, off)
                if not off <= TOLERANCE:
                    self._problem(job, f"{name} is off by {off}")
        said = [[(one.step, one.position, self.kind.exact and one.answer) for one in self._engine.samples(of.id)] for of in (job, straight)]
        if said[0] != said[1]:
            self._problem(job, f"the samples differ: {said}")
        if self.kind.method == "rl":
            self._check_order(job)
        self._check_checkpoints(job, straight)
        self._say(f"run {self.report.runs} is done after {len(self._engine.store.attempts(job.id))} attempts")

    def _check_order(self, job: Job) -> None:
        """Each step tried out answers to the rows that are its own."""
        recipe, prompts = self.recipe, [row["prompt"] for row in recipes.rows("rl")]
        seen: dict[int, set[str]] = {}
        for row in shown(job.folder, last=10_000):
            seen.setdefault(row["step"], set()).add(row["prompt"])
        train = [example.prompt[-1]["content"] for example in load_data(recipe).train if example.kind == "task"]
        for step in range(1, recipe.training.steps + 1):
            own = {train[row] for row in rows_of_step(step - 1, recipe.training.batch_size, len(train), recipe.seed)}
            if not seen.get(step) or not seen[step] <= own <= set(prompts):
                self._problem(job, f"step {step} tried out {seen.get(step)}, not {own}")

    def _check_checkpoints(self, job: Job, straight: Job) -> None:
        store = CheckpointStore(self.home / "checkpoints")
        last: dict[str, dict[str, np.ndarray]] = {}
        for of in (straight, job):
            noted = self._engine.checkpoints(of.id)
            for checkpoint in noted:
                path = CheckpointPath.parse(checkpoint.path)
                info, tensors = store.load_adapter(path)
                if info.steps != checkpoint.step:
                    self._problem(of, f"{path} says step {info.steps}, not {checkpoint.step}")
                if checkpoint.step == self.recipe.training.steps and checkpoint.kind == "weights":
                    last[of.id] = {name: tensor.numpy() for name, tensor in (tensors | store.load_optimizer(path)).items()}
            if (found := [c.step for c in noted if c.kind == "weights"]) != (wanted := self._kept(of, noted)):
                self._problem(of, f"it can go on from the steps {found}, and should from {wanted}")
        ours, theirs = last[job.id], last[straight.id]
        near = 0.0 if not self.kind.exact else DRAWN if self.kind.method == "rl" else TOLERANCE
        same = near == 0 or all(np.allclose(ours[name], theirs[name], rtol=0, atol=near) for name in ours)
        if ours.keys() != theirs.keys() or not same:
            self._problem(job, "the final weights or the optimizer's state differ")

    def _kept(self, of: Job, noted: list[Checkpoint]) -> list[int]:
        """The steps that the recipe's policy keeps states of: the last few, and the best of all that were saved."""
        saved = sorted({c.step for c in noted if c.kind == "sampler_weights"})
        wanted = list(range(self.recipe.checkpoints.every_steps, self.recipe.training.steps + 1, self.recipe.checkpoints.every_steps))
        if saved != wanted:
            self._problem(of, f"versions to use are of the steps {saved}")
        about = noted[-1].loop_state["watched"]
        values = {step: value for step, value in self._engine.curve(of.id, about["name"]) if step in saved}
        sign = 1 if about["better"] == "down" else -1
        best = min(values, key=lambda step: (sign * values[step], step))
        return sorted({*saved[-self.recipe.checkpoints.keep_last :], best})

    def _check_place(self) -> None:
        """While runner and server are still up."""
        if len(self._servers()) != 1:
            self.report.problems.append(f"{len(self._servers())} servers run where one should")
        if self._runner_pid() != self._runner.pid:
            # It found the lock taken, and has left, or is about to.
            self._runner.wait(10)
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            with suppress(psutil.Error):
                if process.status() == psutil.STATUS_ZOMBIE and process.pid not in {os.getpid(), *self._strangers}:
                    self.report.problems.append(f"a zombie: {process}, of {process.parent().cmdline()[:5]}")

    def _end(self) -> None:
        """Runner and servers are asked to end, as when the machine is shut down."""
        self._engine.close()
        if self._dashboard:
            self._dashboard.close()
            self.report.pages = self._dashboard.seen
            self.report.problems += [f"the dashboard showed: {text}" for text in self._dashboard.shown]
        runners = {self._runner.pid if self._runner and self._runner.poll() is None else 0, self._runner_pid()} - {0}
        asked = [*runners, *self._servers()]
        for pid in asked:
            platforms.terminate(pid)
        deadline = time.monotonic() + 20
        if self._runner:
            with suppress(subprocess.TimeoutExpired):
                self._runner.wait(20)
        while any(platforms.process_alive(pid) for pid in asked) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in asked:
            if platforms.process_alive(pid):
                self.report.problems.append(f"process {pid} didn't end when it was asked to")
                platforms.kill(pid)

    def _check_left_behind(self) -> None:
        drafts = [str(file.relative_to(self.home)) for file in self.home.rglob(".*") if file.suffix in _DRAFT]
        drafts += [str(file.relative_to(self.home)) for file in self.home.rglob("*.tmp") if not file.name.startswith(".")]
        if drafts:
            self.report.problems.append(f"left behind: {drafts}")
        for file in [self.home / "runner.lock", *self.home.glob("servers/*/lock")]:
            with file.open("a+") as handle:
                if not platforms.lock_file(handle):
                    self.report.problems.append(f"{file.name} is still locked")
        with sqlite3.connect(self.home / "thinker.db") as connection:
            [(found,)] = connection.execute("PRAGMA integrity_check").fetchall()
        connection.close()
        if found != "ok":
            self.report.problems.append(f"the database: {found}")

    def _problem(self, job: Job, text: str) -> None:
        self.report.problems.append(f"run {job.id}: {text}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=60, help="updates of each run")
    parser.add_argument("--recipe", choices=sorted(recipes.KINDS), default="sft", help="what is trained; ahead: answers are drawn ahead")
    parser.add_argument("--dashboard", action="store_true", help="a dashboard is looked at all the while, and is killed too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="thinker-soak-") as folder:
        os.environ["THINKER_HOME"] = folder
        said = {"say": lambda text: print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)}
        soak = Soak(Path(folder), options.steps, options.recipe, dashboard=options.dashboard, **said)
        report = soak.run(plan(options.kills, options.seed, dashboard=options.dashboard))
    print(json.dumps(report.to_dict(), indent=1))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
