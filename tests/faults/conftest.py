"""A runner and a server in processes of their own, on one data directory for all of these tests; and a plan of what goes wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, platforms
from engine.jobs import host
from engine.recipe import Recipe
from engine.store import Job

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12


class Place:
    """The data directory, and what runs on it."""

    def __init__(self, home: Path):
        self.home = home
        self._plan = home / "fault.json"
        self._runners: list[subprocess.Popen] = []
        self.engine = Engine()

    def plan(self, moment: str, at: int = 1, **more: Any) -> None:
        """What is to go wrong in the server, from now on."""
        draft = self._plan.with_suffix(".draft")
        draft.write_text(json.dumps({"moment": moment, "at": at, **more}))
        os.replace(draft, self._plan)

    def all_well(self) -> None:
        self._plan.unlink(missing_ok=True)

    @property
    def happened(self) -> bool:
        return not self._plan.exists()

    def runner(self) -> int:
        """The pid of the runner's process, started if there is none; its lease is short, so that nobody waits long for its heir."""
        info = host.runner_info()
        if info is None:
            inject = str(ROOT / "tests" / "faults" / "inject")
            environment = {**os.environ, "FAULT_PLAN": str(self._plan), "PYTHONPATH": os.pathsep.join([inject, str(ROOT)])}
            command = [sys.executable, "-m", "engine.jobs.host", "--lease", "2", "--idle", "60"]
            with (self.home / "runner.out").open("ab") as output:
                self._runners.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output))
            info = self.until(host.runner_info)
        return int(info["pid"])

    def server(self) -> int:
        """The server's pid."""
        [record] = self.home.glob("servers/*/server.json")
        return int(json.loads(record.read_text())["pid"])

    def launch(self, recipe: Recipe) -> Job:
        self.runner()
        return self.engine.launch(recipe)

    def until(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, "it didn't come to that"
            time.sleep(0.02)
        return found

    def until_state(self, job: Job, *states: str) -> Job:
        ends = {*states, "failed", "done"}
        found = self.until(lambda: (now := self.engine.job(job.id)).state in ends and now)
        assert found.state in states, f"{found.state}: {found.error} {self.engine.log(job.id, 30)}"
        return found

    def end(self) -> None:
        self.engine.close()
        for runner in self._runners:
            runner.kill()
            runner.wait(10)
        for record in self.home.glob("servers/*/server.json"):
            platforms.kill(json.loads(record.read_text())["pid"])


@pytest.fixture(scope="session")
def shared_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("faults")
    before, os.environ["THINKER_HOME"] = os.environ["THINKER_HOME"], str(home)
    place = Place(home)
    os.environ["THINKER_HOME"] = before
    yield place
    place.end()


@pytest.fixture(autouse=True)
def thinker_home(shared_place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One for all, so that what was started once is used again."""
    monkeypatch.setenv("THINKER_HOME", str(shared_place.home))
    return shared_place.home


@pytest.fixture
def place(shared_place: Place, thinker_home: Path) -> Iterator[Place]:
    shared_place.all_well()
    yield shared_place
    shared_place.all_well()


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    """Twelve small steps, saved at 4, 8 and the end."""
    return Recipe.make(
        {
            "name": "faults",
            "data": {"demo": "piglatin", "held_out_max": 8},
            "lora": {"rank": 8},
            "training": {"steps": STEPS, "batch_size": 4, "learning_rate": 2e-3},
            "evaluation": {"eval_every": 0, "samples_every": 0, "proof": False, "skills": False},
            "checkpoints": {"every_steps": 4, "every_seconds": 0},
        }
    )


_uninterrupted: dict[str, list[tuple[int, float]]] = {}


@pytest.fixture
def straight(place: Place, recipe: Recipe) -> list[tuple[int, float]]:
    """The curve of the run that nothing disturbs."""
    if not _uninterrupted:
        job = place.launch(recipe)
        place.until_state(job, "done")
        _uninterrupted["curve"] = place.engine.curve(job.id, "train_loss")
    return _uninterrupted["curve"]
