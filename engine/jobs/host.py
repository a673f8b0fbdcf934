"""The runner's own process: one per data directory, started when there is work, gone when there is none.

`python -m engine.jobs.host` is that process; `ensure_runner()` starts it, or with `THINKER_RUNNER=inline` puts the
runner into this process. Knows training only as the name of a function, looked up when a job runs.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from engine import paths, platforms
from engine.errors import EngineError, StorageError
from engine.jobs import logs, states
from engine.jobs.handover import Desk
from engine.jobs.run import JobRun
from engine.jobs.runner import Execute, Runner
from engine.store import Store, artefacts
from engine.store.artefacts import write_json_atomic

EXECUTE = "engine.training.loop:execute"
IDLE_S = 60.0
_STARTUP_S = 5.0
_WATCH_S, _LOOK_S = 8.0, 0.2
_PATIENCE_S = 0.3  # whoever only looks whether the lock is free has it for a moment

_lock = threading.Lock()
_inline: dict[Path, tuple[Runner, IO[Any]]] = {}
_started: dict[Path, subprocess.Popen] = {}
_started_at: dict[Path, float] = {}
_watched: dict[Path, float] = {}


def resolve(name: str | None = None) -> Execute:
    """The function that `module:function` names, imported when it's first called; by default `THINKER_EXECUTE`, else the training loop."""
    target = name or os.environ.get("THINKER_EXECUTE") or EXECUTE

    def execute(run: JobRun) -> str:
        module, _, function = target.partition(":")
        return getattr(import_module(module), function)(run)

    return execute


def ensure_runner(execute: str | None = None) -> None:
    """Sees to it that a runner serves this data directory. Returns at once; call it after a job was queued."""
    home = paths.home()
    with _lock:
        if home in _inline or _start(home, execute):
            return
        # Somebody serves it, or seems to: a runner that was killed just now holds the lock until the last of its threads has ended.
        watched = home in _watched
        _watched[home] = time.monotonic() + _WATCH_S
        if not watched:
            threading.Thread(target=_watch, args=(home, execute), name="runner-watch", daemon=True).start()


def _start(home: Path, execute: str | None, *, needed: Callable[[], bool] = lambda: True) -> bool:
    """Starts a runner where none has the lock, or is about to take it, and one is needed. The caller holds `_lock`."""
    child = _started.get(home)
    # One that began a moment ago may not have taken the lock yet; an older one that doesn't hold it is on its way out.
    # A dying one can't be waited for yet while some of its threads are still ending.
    alive = child is not None and child.poll() is None and platforms.process_started_at(child.pid) is not None
    if alive and time.monotonic() - _started_at.get(home, 0.0) < _STARTUP_S:
        return False
    handle = _take_lock()
    if handle is None:
        return False
    if not needed():
        handle.close()
        return False
    if os.environ.get("THINKER_RUNNER") == "inline":
        runner = Runner(Store(), resolve(execute))
        runner.start()
        _inline[home] = runner, handle
        _announce()
        return True
    handle.close()
    _started[home], _started_at[home] = _spawn(execute), time.monotonic()
    return True


def _watch(home: Path, execute: str | None) -> None:
    """Looks for a while whether whoever seems to serve the data directory lives on, and else starts another."""
    while True:
        time.sleep(_LOOK_S)
        with _lock:
            try:
                # Where this process has turned to another data directory, this one is no concern of its any more.
                over = paths.home() != home or home in _inline or time.monotonic() > _watched[home]
                if over or _start(home, execute, needed=_unfinished):
                    del _watched[home]
                    return
            except (EngineError, OSError) as error:
                logs.log("error", f"no runner could be started: {error}")
                del _watched[home]
                return


def _unfinished() -> bool:
    """Whether any job waits or runs; one whose runner was killed a moment ago still looks as if it ran."""
    store = Store()
    try:
        return bool(store.jobs(None, states=[state for state in states.STATES if states.moving(state)], limit=1))
    finally:
        store.close()


def stop_inline(wait: float = 10.0) -> None:
    """Ends the runners that live in this process; their jobs go on elsewhere or later."""
    with _lock:
        for runner, handle in _inline.values():
            runner.stop(wait)
            handle.close()
        _inline.clear()


def runner_info() -> dict[str, Any] | None:
    """{pid, started_at, port: where it takes keys} of the process whose runner serves this data directory; None when there is none."""
    with suppress(OSError, ValueError):
        info = json.loads((paths.home() / "runner.json").read_text(encoding="utf-8"))
        if platforms.same_process(info["pid"], info["started_at"]):
            return info
    return None


def serve(
    execute: str | None = None,
    *,
    idle_s: float = IDLE_S,
    max_jobs: int = 1,
    lease_s: float = 15.0,
    stopping: threading.Event | None = None,
) -> bool:
    """Runs jobs until there were none for `idle_s` seconds, or `stopping` is set. False if another process does it already."""
    stopping = stopping or threading.Event()
    handle = _take_lock(_PATIENCE_S)
    if handle is None:
        return False
    artefacts.sweep(paths.home())
    store, desk = Store(), Desk()
    try:
        while handle is not None:
            _announce(desk.port)
            _serve(store, resolve(execute), idle_s, max_jobs, lease_s, stopping)
            (paths.home() / "runner.json").unlink(missing_ok=True)
            handle.close()
            # Whoever queued a job just now saw the lock taken and started nothing.
            handle = None if stopping.is_set() or not store.has_work() else _take_lock()
    finally:
        if handle is not None:
            handle.close()
        desk.close()
        store.close()
    return True


def _serve(store: Store, execute: Execute, idle_s: float, max_jobs: int, lease_s: float, stopping: threading.Event) -> None:
    runner = Runner(store, execute, max_jobs=max_jobs, lease_s=lease_s, renew_s=lease_s / 5)
    runner.start()
    logs.log("info", "the runner is ready", pid=os.getpid(), runner=runner.runner_id)
    try:
        while not stopping.wait(min(0.5, idle_s / 4)):
            if runner.idle_seconds() >= idle_s and not _has_work(store):
                break
    finally:
        runner.stop()
        logs.log("info", "the runner ends", pid=os.getpid(), runner=runner.runner_id)


def _has_work(store: Store) -> bool:
    try:
        return store.has_work()
    except StorageError:
        return True


def _take_lock(patience: float = 0.0) -> IO[Any] | None:
    handle = (paths.home() / "runner.lock").open("ab")
    deadline = time.monotonic() + patience
    while not platforms.lock_file(handle):
        if time.monotonic() >= deadline:
            handle.close()
            return None
        time.sleep(0.02)
    return handle


def _announce(port: int | None = None) -> None:
    """An inline runner has no port: it shares the memory that keys are in."""
    pid = os.getpid()
    about = {"pid": pid, "started_at": platforms.process_started_at(pid) or time.time(), "port": port}
    write_json_atomic(paths.home() / "runner.json", about)


def _spawn(execute: str | None) -> subprocess.Popen:
    command = [sys.executable, "-m", "engine.jobs.host", *(["--execute", execute] if execute else [])]
    options = {"cwd": paths.ROOT, "env": paths.child_environment(), **platforms.detached_process_options()}
    with (paths.folder("logs") / "runner.out").open("ab") as output:
        try:
            child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
        except OSError as error:
            raise StorageError(f"The runner can't be started: {error}.", "Close other programs and try again.") from error
    # Somebody has to take note of its end, else it stays in the list of processes for as long as this one lives.
    threading.Thread(target=child.wait, name="runner-reaper", daemon=True).start()
    return child


def main(arguments: list[str] | None = None) -> int:
    """The command line of the runner's process."""
    parser = argparse.ArgumentParser(prog="python -m engine.jobs.host", description="Runs Thinker's queued jobs.")
    parser.add_argument("--execute", help="module:function that carries out a job")
    idle_s = float(os.environ.get("THINKER_RUNNER_IDLE", IDLE_S))
    parser.add_argument("--idle", type=float, default=idle_s, help="end after so many idle seconds")
    parser.add_argument("--max-jobs", type=int, default=1, help="jobs at a time")
    parser.add_argument("--lease", type=float, default=15.0, help="seconds after which a silent runner counts as dead")
    options = parser.parse_args(arguments)
    stopping = threading.Event()
    for name in ("SIGTERM", "SIGINT"):
        signal.signal(getattr(signal, name), lambda *_: stopping.set())
    try:
        serve(options.execute, idle_s=options.idle, max_jobs=options.max_jobs, lease_s=options.lease, stopping=stopping)
    except EngineError as error:
        logs.log("error", str(error))
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
