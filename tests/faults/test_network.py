"""What networks do to a run at a server elsewhere: the official SDK by URL and key through a proxy that spoils the line by a plan."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from engine import Engine, keys
from engine.endpoints import remote
from engine.jobs import host
from engine.jobs.runner import Runner
from engine.server.checkpoints import CheckpointPath, CheckpointStore
from engine.store import Job
from tests.fakes.faulty import Faulty, Rule
from tests.faults import recipes
from tests.running import until
from tests.server.harness import KEY, RunningServer

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(240)]
STEPS = 12
ONCE = {"x-should-retry": "false"}  # the SDK tries ten times in a row otherwise, and then for five minutes
KINDS = ("sft", "rl")
Curve = list[tuple[int, float]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    made = RunningServer(tmp_path_factory.mktemp("lab"))
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def thinker_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One for each test: the runner that the others share would take these runs away."""
    home = tmp_path / "home"
    monkeypatch.setenv("THINKER_HOME", str(home))
    return home


@pytest.fixture
def engine(server: RunningServer, thinker_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    # Runs are carried out in this process, one after the other.
    monkeypatch.setattr(host, "ensure_runner", lambda *_: None)
    with Engine() as made:
        yield made
    for owner, name in keys.held():
        keys.unhold(owner, name)


@pytest.fixture(scope="module")
def straight() -> dict[str, list[Curve]]:
    return {}


def run(engine: Engine, folder: Path, kind: str, to: RunningServer | Faulty, rules: Sequence[Rule] = ()) -> Job:
    """One run at that address, to wherever it gets; the rules hold once it is launched: who launches is told at once what is wrong."""
    if "lab" in [place.name for place in engine.remotes.all()]:
        engine.remotes.forget("lab")
    engine.remotes.add("lab", to.url, key=KEY)
    changes = {"evaluation": {"proof": False, "samples_every": 0, "eval_every": 6}, "checkpoints": {"every_steps": 4}}
    job = engine.launch(recipes.small(folder, kind, STEPS, endpoint="lab", **changes))
    if rules:
        to.rules[:] = rules
    return Runner(engine.store, host.resolve()).run_one(job.id)


def curves(engine: Engine, job: Job, kind: str) -> list[Curve]:
    return [engine.curve(job.id, name) for name in recipes.KINDS[kind].curves]


def assert_once_each(engine: Engine, server: RunningServer, job: Job, expected: list[Curve], kind: str) -> None:
    """Each step was made once, at the server too, and each number is as if nothing had been."""
    found = curves(engine, job, kind)
    assert [step for step, _ in found[0]] == list(range(1, STEPS + 1))
    for ours, theirs in zip(found, expected, strict=True):
        assert [step for step, _ in ours] == [step for step, _ in theirs]
        assert [value for _, value in ours] == pytest.approx([value for _, value in theirs], rel=0, abs=1e-5)
    last = engine.store.last_checkpoint(job.id)
    store, path = CheckpointStore(server.checkpoints), CheckpointPath.parse(last.path)
    assert last.step == STEPS and store.load_adapter(path)[0].steps == STEPS
    updates = {int(value) for name, value in store.load_optimizer(path).items() if name.endswith(".step")}
    assert updates == {STEPS}, "the optimizer's own count"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def expected(engine: Engine, server: RunningServer, straight: dict[str, list[Curve]], kind: str, tmp_path: Path) -> list[Curve]:
    if kind not in straight:
        job = run(engine, tmp_path, kind, server)
        assert job.state == "done", job.error
        straight[kind] = curves(engine, job, kind)
    return straight[kind]


def plan_of_everything() -> list[Rule]:
    """Some of each, wherever the chance has it; what starts a run is hit as well as what ends it."""
    some = {"chance": 0.06, "count": 1}
    return [
        Rule("status", "get_server_capabilities", count=2, status=503, headers={"Retry-After": "0.2"}),
        Rule("cut answer", "create_session", count=1),
        Rule("cut answer", "create_model", count=1),
        Rule("cut answer", "optim_step", after=2, count=2),
        Rule("cut request", "optim_step", after=3, count=1),
        Rule("cut answer", "forward_backward", after=2, count=2),
        Rule("status", "forward_backward", after=3, count=1, status=429, headers={"Retry-After": "1"}),
        Rule("status", "save_weights", count=1, status=500),
        Rule("cut answer", "save_weights", after=1, count=1),
        Rule("hang", "retrieve_future", after=4, count=1, seconds=1.5),
        Rule("cut answer", "", **some),
        Rule("cut request", "", **some),
        Rule("delay", "", seconds=0.3, **some),
        Rule("status", "", status=503, **some),
        Rule("status", "", status=429, headers={"Retry-After": "0.5"}, **some),
        Rule("status", "", status=500, headers={"Retry-After": "soon"}, **some),
    ]


def test_a_line_that_is_never_at_rest(engine: Engine, server: RunningServer, kind: str, expected: list[Curve], tmp_path: Path) -> None:
    faulty = Faulty(server.url, seed=KINDS.index(kind))
    job = run(engine, tmp_path, kind, faulty, plan_of_everything())
    faulty.close()
    assert job.state == "done", (job.error, engine.log(job.id, 20))
    assert {"cut answer", "cut request", "503", "429", "500", "hang", "delay"} <= set(faulty.faults)
    assert [attempt.why for attempt in engine.store.attempts(job.id)] == ["start"], "what the SDK can mend needs no new attempt"
    assert_once_each(engine, server, job, expected, kind)


@pytest.mark.parametrize("kind", ["sft"], indirect=True)
def test_a_server_that_is_away_for_good_and_comes_back(
    engine: Engine, server: RunningServer, kind: str, expected: list[Curve], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What can't be mended ends the run with its reason; what was saved stays, and it goes on from there once the line is back."""
    monkeypatch.setattr(remote, "ASK_EVERY", 0.2)
    monkeypatch.setattr(remote, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 1.0)
    faulty = Faulty(server.url)
    # The seventh update is the last that gets through.
    job = run(engine, tmp_path, kind, faulty, [Rule("status", "", begins=("optim_step", 7))])
    assert job.state == "failed", engine.log(job.id, 10)
    told = f"{job.error['message']} {job.error['next_step']}"
    assert "503" in told and "lab" in told and job.error["next_step"], told
    kept = engine.store.last_checkpoint(job.id)
    assert kept.step == 4
    assert engine.requests(job) >= {"resume", "delete"}
    diagnosis = engine.diagnosis.of(job.id)
    assert not diagnosis.can_resume or diagnosis.wrong, "it says what isn't in order"
    assert any(sign.area in ("endpoint", "why") and "503" in sign.says for sign in diagnosis.wrong)
    faulty.rules.clear()
    diagnosis = engine.diagnosis.of(job.id)
    assert diagnosis.can_resume and diagnosis.resumes_at == 4
    engine.resume(job.id)
    job = Runner(engine.store, host.resolve()).run_one(job.id)
    faulty.close()
    assert job.state == "done", job.error
    assert_once_each(engine, server, job, expected, kind)


@pytest.mark.parametrize("kind", ["sft"], indirect=True)
def test_one_kind_of_request_that_never_gets_through(
    engine: Engine, server: RunningServer, kind: str, expected: list[Curve], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server answers all else: the SDK tries for five minutes (here its clock runs ahead), the run some times more."""
    faulty = Faulty(server.url)
    began, real = time.time(), time.time
    monkeypatch.setattr("time.time", lambda: began + 600 * (real() - began))
    job = run(engine, tmp_path, kind, faulty, [Rule("status", "optim_step", after=6, headers=ONCE)])
    faulty.close()
    assert job.state == "failed", engine.log(job.id, 10)
    assert "cut off 4 times" in job.error["message"] and "status 503 while learning" in job.error["message"]
    assert "resume" in job.error["next_step"] and engine.store.last_checkpoint(job.id).step == 4


@pytest.mark.parametrize("fault", [Rule("status", "get_server_capabilities"), Rule("hang", "get_server_capabilities", seconds=60)])
@pytest.mark.parametrize("asked", ["pause", "stop"])
def test_a_pause_is_heeded_while_a_silent_server_is_asked_again(
    engine: Engine, server: RunningServer, tmp_path: Path, fault: Rule, asked: str
) -> None:
    """It would be asked for most of a minute; what an earlier attempt saved is kept, and a stop makes a model of it."""
    faulty = Faulty(server.url)
    engine.remotes.add("lab", faulty.url, key=KEY)
    changes = {"evaluation": {"proof": False, "samples_every": 0, "eval_every": 0}, "checkpoints": {"every_steps": 4}}
    job = engine.launch(recipes.small(tmp_path, "sft", STEPS, endpoint="lab", **changes))

    def when(ready: Callable[[], bool], control: str) -> None:
        def soon() -> None:
            until(ready)
            getattr(engine, control)(job.id)

        threading.Thread(target=soon, daemon=True).start()

    when(lambda: engine.job(job.id).step >= 2, "pause")
    job = Runner(engine.store, host.resolve()).run_one(job.id)
    assert job.state == "paused" and not engine.models(job.id)
    engine.resume(job.id)
    faulty.rules[:] = [replace(fault)]
    when(lambda: bool(faulty.faults), asked)
    began = time.monotonic()
    after = Runner(engine.store, host.resolve()).run_one(job.id)
    assert after.state == {"pause": "paused", "stop": "stopped"}[asked] and time.monotonic() - began < 12, engine.log(job.id, 5)
    assert after.step == job.step == engine.store.last_checkpoint(job.id).step
    kept = engine.store.last_checkpoint(job.id, "sampler_weights").path
    assert [model.sampler_path for model in engine.models(job.id)] == ([kept] if asked == "stop" else [])
    faulty.close()
