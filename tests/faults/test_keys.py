"""Keys that only a memory holds, and what becomes of runs when that memory dies: real runners, killed; a real server behind them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from engine import Engine, keys, paths, platforms, policy
from engine.endpoints import TINKER_KEY
from engine.errors import KeyNeeded
from engine.jobs import handover, host, run
from engine.store import Job
from tests.running import end_processes, files_with, until
from tests.server.harness import KEY, RunningServer

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.usefixtures("quick_heirs")]
VISITOR = f"{policy.VISITOR}0a1b"
STEPS = 40


@pytest.fixture
def visitor(server: RunningServer, thinker_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """One who typed a key; the operator has another in the environment, which is none of theirs."""
    # A runner that other tests left here knows nothing of this server.
    end_processes(thinker_home)
    host._started.clear()
    monkeypatch.setenv("TINKER_BASE_URL", server.url)
    monkeypatch.setenv("TINKER_API_KEY", "tml-the-operators-own-key-which-nobody-else-uses")
    monkeypatch.setenv("THINKER_RUNNER_IDLE", "30")
    with Engine(VISITOR) as made:
        yield made
    end_processes(thinker_home)
    host._started.clear()


def launched(engine: Engine) -> Job:
    changes = {"endpoint": "tinker", "training": {"steps": STEPS, "batch_size": 4}, "checkpoints": {"every_steps": 5}}
    changes["evaluation"] = {"proof": False, "samples_every": 0, "eval_every": 0}
    return engine.launch(engine.demo_recipe("piglatin", changes))


def runner() -> int:
    return int(until(host.runner_info)["pid"])


def kill_runner() -> int:
    pid = runner()
    platforms.kill(pid)
    until(lambda: host.runner_info() is None)
    return pid


def state(engine: Engine, job: Job) -> str:
    """As a page looks at it: with an eye on whether anybody carries the work."""
    engine.revive()
    return engine.job(job.id).state


def whole(engine: Engine, job: Job) -> bool:
    return [step for step, _ in engine.curve(job.id, "train_loss")] == list(range(1, STEPS + 1))


def test_the_next_runner_is_given_it_too(visitor: Engine, thinker_home: Path) -> None:
    visitor.keys.give("tinker", KEY)
    job = launched(visitor)
    until(lambda: state(visitor, job) and visitor.job(job.id).step >= 6)
    pid = runner()
    for about in ("environ", "cmdline"):
        file = Path(f"/proc/{pid}/{about}")
        assert not file.exists() or KEY.encode() not in file.read_bytes()
    kill_runner()
    until(lambda: state(visitor, job) == "done")
    assert whole(visitor, job) and files_with(KEY, thinker_home) == []
    assert len(visitor.store.attempts(job.id, VISITOR)) == 2


def test_a_run_whose_key_is_gone_waits_and_goes_on(visitor: Engine, thinker_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor.keys.give("tinker", KEY)
    job = launched(visitor)
    until(lambda: state(visitor, job) and visitor.job(job.id).step >= 6)
    # The dashboard and its memory end, then the runner.
    keys.unhold(VISITOR, "tinker")
    kill_runner()
    until(lambda: state(visitor, job) == "needs_key")
    waiting = visitor.job(job.id)
    assert "isn't there" in waiting.error["message"] and "settings" in waiting.error["next_step"]
    assert visitor.requests(waiting) == {"resume", "stop", "delete"} and not visitor.moving(waiting)
    with pytest.raises(KeyNeeded):
        visitor.resume(job.id)
    assert state(visitor, job) == "needs_key"
    # Somebody else's key is of no use to it.
    with Engine(f"{policy.VISITOR}other") as other:
        assert other.keys.give("tinker", KEY) == 0 and not other.jobs()
    assert state(visitor, job) == "needs_key"
    assert visitor.keys.give("tinker", KEY) == 1
    until(lambda: state(visitor, job) == "done")
    assert whole(visitor, job) and files_with(KEY, thinker_home) == []


def test_taken_back_it_is_gone_from_the_runner(visitor: Engine) -> None:
    visitor.keys.give("tinker", KEY)
    job = launched(visitor)
    until(lambda: visitor.job(job.id).step >= 2)
    visitor.keys.forget("tinker")
    assert not visitor.keys.state("tinker").present
    # What runs has connected with it; a run that begins later has none.
    until(lambda: state(visitor, job) in ("done", "needs_key"))
    late = visitor.store.create_job(job.recipe, VISITOR)
    until(lambda: state(visitor, late) == "needs_key")


def heard(line: socket.socket) -> int:
    """How many bytes came until the other side hung up, which it may do before all was said."""
    count = 0
    with suppress(OSError):
        line.shutdown(socket.SHUT_WR)
        while found := line.recv(100):
            count += len(found)
    return count


def test_the_desk_takes_nothing_without_proof(thinker_home: Path) -> None:
    paths.home()
    desk = handover.Desk()
    try:
        handover.deliver(desk.port, {("a", "tinker"): KEY})
        assert keys.held()["a", "tinker"] == KEY
        handover.deliver(desk.port, {}, [("a", "tinker")])
        assert ("a", "tinker") not in keys.held()
        for said in (b"", b"\0" * 64, b"GET / HTTP/1.1\r\n\r\n" * 8):
            with socket.create_connection(("127.0.0.1", desk.port), timeout=5) as line:
                line.sendall(said)
                assert heard(line) <= 32, "its nonce, and no word more"
        assert ("a", "tinker") not in keys.held()
        # Those who say nothing hold nobody up.
        silent = [socket.create_connection(("127.0.0.1", desk.port)) for _ in range(20)]
        handover.deliver(desk.port, {("b", "tinker"): KEY})
        for line in silent:
            line.close()
    finally:
        desk.close()
        keys.unhold("b", "tinker")


def test_a_stranger_on_the_runners_port_gets_no_key(thinker_home: Path) -> None:
    """Not even one who passes on what the real runner says."""
    paths.home()
    desk, heard = handover.Desk(), bytearray()
    listener = socket.create_server(("127.0.0.1", 0))

    def pass_on() -> None:
        line, _ = listener.accept()
        with line, socket.create_connection(("127.0.0.1", desk.port)) as real:
            line.settimeout(3)
            line.sendall(real.recv(32))
            real.sendall(line.recv(64))
            line.sendall(real.recv(32) or b"\0" * 32)
            heard.extend(line.recv(4096))

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    with pytest.raises(OSError):
        handover.deliver(listener.getsockname()[1], {("a", "tinker"): KEY})
    thread.join(10)
    listener.close()
    desk.close()
    assert KEY.encode() not in bytes(heard) and ("a", "tinker") not in keys.held()


def test_where_a_key_comes_from(monkeypatch: pytest.MonkeyPatch, thinker_home: Path) -> None:
    monkeypatch.setenv("TINKER_API_KEY", KEY)
    with Engine() as mine, Engine(VISITOR) as visitor:
        assert mine.keys.state("tinker").source == "environment" and not visitor.keys.state("tinker").present
        stored = "tml-written-to-the-data-directory"
        mine.keys.give("tinker", stored, store=True)
        assert mine.keys.state("tinker").source == "memory"
        keys.unhold("local", "tinker")
        assert mine.keys.state("tinker").source == "file" and keys.find("local", TINKER_KEY).value == stored
        assert (thinker_home / "keys.json").stat().st_mode & 0o077 == 0
        assert stored not in repr(keys.find("local", TINKER_KEY))
        with pytest.raises(PermissionError, match="aren't stored"):
            visitor.keys.give("tinker", stored, store=True)
        assert not visitor.keys.state("tinker").present
        mine.keys.forget("tinker")
        assert mine.keys.state("tinker").source == "environment" and stored not in (thinker_home / "keys.json").read_text()


def test_a_run_that_waits_for_its_key_can_be_stopped(monkeypatch: pytest.MonkeyPatch, thinker_home: Path) -> None:
    monkeypatch.setattr(run, "KEY_WAIT_S", 60)
    with Engine(VISITOR) as visitor:
        recipe = visitor.demo_recipe("piglatin", {"endpoint": "tinker"})
        job = visitor.store.create_job(recipe, VISITOR)

        def stop() -> None:
            until(lambda: state(visitor, job) == "preparing")
            visitor.stop(job.id)

        threading.Thread(target=stop, daemon=True).start()
        from engine.jobs.runner import Runner

        assert Runner(visitor.store, host.resolve()).run_one(job.id).state == "stopped"
