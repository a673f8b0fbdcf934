"""The server of programs as seen from outside: started by one mechanism or another, proved, asked, ended. Knows jobs as plain values."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.errors import StateError
from engine.sandbox.mechanisms import ENVIRONMENT, MECHANISMS, Mechanism

SANDBOXES = tuple(mechanism.name for mechanism in MECHANISMS)
_START_SECONDS = 60.0
_GRACE_SECONDS = 30.0
_ADVICE = "On Debian and Ubuntu: sudo apt install bubblewrap. Elsewhere on Linux install bubblewrap too; on macOS and Windows start Docker."
# What the kernel or a namespace has to refuse. Each line that comes to its end is a way out.
_PROOF = """
import os, socket

def ways_out(canary):
    found = []
    def attempt(name, action):
        try:
            action()
        except Exception:
            return
        found.append(name)
    attempt("reads files", lambda: open(canary).read())
    attempt("writes files", lambda: open(os.path.join(os.path.dirname(canary), "written"), "w"))
    attempt("writes temporary files", lambda: open("/tmp/thinker-written", "w"))
    attempt("opens sockets", lambda: socket.create_connection(("127.0.0.1", PORT), 2).close())
    def fork():
        pid = os.fork()
        os._exit(0) if pid == 0 else os.waitpid(pid, 0)
    if FILTERED:
        attempt("starts processes", fork)
    attempt("sees the environment", lambda: os.environ["THINKER_CANARY"])
    return found
"""

_failed: dict[str, str] = {}
_lock = threading.Lock()


class Died(Exception):
    """The server ended with questions open, or has stopped answering."""


class Process:
    """One server, started and proved. `mechanism` by name, else the first that holds. Raises StateError where none does."""

    def __init__(self, mechanism: str | None, at_once: int):
        self.at_once = at_once
        reasons = []
        for known in MECHANISMS:
            if mechanism not in (None, known.name):
                continue
            with _lock:
                lacks = _failed.get(known.name) or known.missing()
            if not lacks:
                try:
                    self._start(known)
                    lacks = self._proof()
                except Died as error:
                    lacks = str(error)
                if not lacks:
                    self.mechanism = known.name
                    return
                self.close()
                with _lock:
                    _failed[known.name] = lacks
            reasons.append(f"{known.title}: {lacks}")
        raise StateError(f"this machine has nothing to shut programs off with ({'; '.join(reasons)})", _ADVICE, where="sandbox")

    def ask(self, jobs: Sequence[dict[str, Any]], longest: float) -> dict[Any, dict[str, Any]]:
        """{id: what came of it}. `longest`: seconds after which one of them has surely ended. Raises Died with what came until then
        as its second argument."""
        open_ones, found = {job["id"] for job in jobs}, {}
        # Written from a thread of its own: replies have to be read meanwhile, lest both sides wait with full pipes.
        writer = threading.Thread(target=self._write, args=(jobs,), name="sandbox-write", daemon=True)
        writer.start()
        while open_ones:
            try:
                line = self._lines.get(timeout=longest + _GRACE_SECONDS)
            except queue.Empty:
                line = None
            if line is None:
                self.close()
                raise Died("it ended while programs ran", found)
            if line.get("id") in open_ones:
                found[line["id"]] = line
                open_ones.discard(line["id"])
        writer.join()
        return found

    def close(self) -> None:
        """Ends it, and with it whatever it runs."""
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        with suppress(OSError):
            self._process.kill()
        self._process.wait()
        self._reader.join(5)
        with suppress(OSError):
            self._process.stdout.close()
        self._errors.close()

    def _start(self, mechanism: Mechanism) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        # Docker's client has to find its daemon; it hands nothing of this on.
        environment = dict(os.environ) if mechanism.name == "docker" else dict(ENVIRONMENT)
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(
                mechanism.command(self.at_once),
                stdin=pipe,
                stdout=pipe,
                stderr=self._errors,
                env=environment,
                cwd=os.sep,
                start_new_session=True,  # Ctrl-C is for whoever started this
            )
        except OSError as error:
            raise StateError(f"the sandbox can't be started: {error}", _ADVICE, where="sandbox") from error
        self._lines: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="sandbox-read", daemon=True)
        self._reader.start()
        try:
            first = self._lines.get(timeout=_START_SECONDS)
        except queue.Empty:
            raise Died("it didn't start within a minute") from None
        if first is None or "ready" not in first:
            raise Died((first or {}).get("failed") or self._said() or "it ended at once")

    def _proof(self) -> str:
        """What it fails to shut, in words; empty if all holds."""
        import socket

        from engine.sandbox.inside import syscalls

        with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as listener:
            canary = Path(folder, "canary")
            canary.write_text("a file of somebody's", encoding="utf-8")
            os.chmod(folder, 0o777)
            source = f"PORT, FILTERED = {listener.getsockname()[1]}, {syscalls.known()}\n{_PROOF}"
            job = {"id": 0, "kind": "calls", "source": source, "function": "ways_out", "calls": [[str(canary)]], "seconds": 10}
            told = self.ask([job | {"memory": 1 << 30, "output": 4096, "reply": 1 << 16}], 10)[0]
        if not told["lines"] or "value" not in told["lines"][0]:
            return f"a first program didn't run ({told['err'][:200] or told['lines'] or told['end']})"
        return f"a program in it {', '.join(told['lines'][0]['value'])}" if told["lines"][0]["value"] else ""

    def _write(self, jobs: Sequence[dict[str, Any]]) -> None:
        with suppress(OSError, ValueError):
            for job in jobs:
                self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        with suppress(OSError, ValueError):
            for line in self._process.stdout:
                self._lines.put(json.loads(line))
        self._lines.put(None)

    def _said(self) -> str:
        self._process.wait(5)
        self._errors.seek(0)
        lines = self._errors.read(4000).decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else ""
