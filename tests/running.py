"""Data directories with servers and runners at work: the command line as its own process, and an end for all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.request import ProxyHandler, build_opener

from engine import Engine, platforms
from engine.store import Job

ROOT = Path(__file__).resolve().parents[1]

_ports: list[ExitStack] = []


@dataclass
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The last line on stdout."""
        return json.loads(self.out.strip().splitlines()[-1])


def environment(home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "THINKER_HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "passive", **more}


def command(*arguments: str | Path) -> list[str]:
    """As the launcher starts it."""
    return [sys.executable, "-P", "-m", "engine.cli", *map(str, arguments)]


def cli(home: Path, *arguments: str | Path, stdin: str = "", cwd: Path | None = None, timeout: float = 100, **env: str) -> Done:
    """One command in a process of its own, to its end."""
    done = subprocess.run(
        command(*arguments),
        env=environment(home, **env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd or home.parent,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def files_with(text: str, folder: Path) -> list[str]:
    """Which files below the folder hold it. Looked for by another process: one that opens and closes the file of a database that it uses
    lets go of all its locks on it, and whoever else closes the database then takes its log away."""
    look = "import pathlib, sys; said = sys.stdin.read().encode()\nfor file in pathlib.Path(sys.argv[1]).rglob('*'):\n"
    look += "    if file.is_file() and said in file.read_bytes(): print(file)"
    done = subprocess.run([sys.executable, "-c", look, str(folder)], input=text, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.splitlines()


def server_records(home: Path) -> list[dict[str, Any]]:
    """The servers that this data directory knows."""
    found = []
    for file in home.glob("servers/*/server.json"):
        with suppress(OSError, ValueError):
            found.append(json.loads(file.read_text(encoding="utf-8")))
    return found


def end_processes(home: Path) -> None:
    """Ends the runner and the servers of this data directory."""
    with suppress(OSError, ValueError):
        info = json.loads((home / "runner.json").read_text(encoding="utf-8"))
        if platforms.same_process(info["pid"], info["started_at"]):
            platforms.kill(info["pid"])
    for record in server_records(home):
        if platforms.process_alive(record["pid"]):
            platforms.kill(record["pid"])


def free_port() -> int:
    """One on which nothing listens, and which no other process of tests is given until this one has ended."""
    for port in range(8700, 9200):
        with suppress(OSError), ExitStack() as unwanted:
            held = unwanted.enter_context(Path(tempfile.gettempdir(), f"thinker-tests-{port}").open("ab"))
            if platforms.lock_file(held) and platforms.port_is_free(port):
                _ports.append(unwanted.pop_all())
                return port
    raise AssertionError("no port is free")


def dashboard_process(home: Path, port: int, log: Path, script: str = "app/serve.py", folder: Path = ROOT) -> subprocess.Popen:
    """`streamlit run` on this data directory; it doesn't answer yet."""
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / script), "--server.headless", "true"]
    command += ["--server.port", str(port), "--server.address", "127.0.0.1"]
    with log.open("ab") as output:
        return subprocess.Popen(command, cwd=folder, env=environment(home), stdout=output, stderr=output)


def dashboard_answers(port: int) -> bool:
    with suppress(OSError):
        return build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/_stcore/health", timeout=2).read() == b"ok"
    return False


def until(holds: Callable[[], object], seconds: float = 60.0) -> Any:
    """Waits for something to become true, and gives it back."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.05)
    return found


@contextmanager
def after_step(step: int, act: Callable[[str], object]) -> Iterator[None]:
    """The run that is carried out in this process meanwhile: once it has taken so many updates, `act` is called with its id. What it is
    asked to do then, it hears before it goes on, whatever the machine's speed."""
    from engine.jobs import run

    real, acted = run.JobRun.progress, []

    def progress(of: run.JobRun, done: int, *figures: Any) -> None:
        real(of, done, *figures)
        if done >= step and not acted:
            acted.append(done)
            act(of.job_id)

    with mock.patch.object(run.JobRun, "progress", progress), mock.patch.object(run, "_POLL_S", 0.0):
        yield
    assert acted, "it never came that far"


def gone_on(engine: Engine, job: Job) -> Job:
    """Resumed, and carried out in this process."""
    from engine.jobs import host
    from engine.jobs.runner import Runner

    with mock.patch.object(host, "ensure_runner"):
        engine.resume(job.id)
    return Runner(engine.store, host.resolve()).run_one(job.id)


def shouting(file: Path, rows: int = 40) -> Path:
    """A small task in the prompt/completion layout: say the word louder."""
    lines = [json.dumps({"prompt": f"Shout word{i}", "completion": f"WORD{i}!"}) for i in range(rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file
