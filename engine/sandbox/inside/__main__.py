"""The server of programs: reads jobs as lines of JSON, runs each in a process of its own made by a fork, and tells what came of it.

It is started inside the sandbox, and the programs inside it are shut off further. Standard library only; it runs nothing itself, so
that it can be trusted to measure time and output. Knows no mechanism but what fence.py does.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any

import fence
import harness

_PIECE = 1 << 16
_LOOK = 0.002  # seconds between looks at a program that can't be heard any more

WAITING: deque[dict[str, Any]] = deque()


class Running:
    """One program: its process, what it wrote, until when it may run."""

    def __init__(self, job: dict[str, Any]):
        self.job, self.mark = job, secrets.token_hex(16)
        self.out, self.err, self.lines = bytearray(), bytearray(), bytearray()
        self.began, self.end = time.monotonic(), ""
        self.pipes: dict[int, bytearray] = {}
        self.pid = self._fork()
        self.until = self.began + job["seconds"]

    def _fork(self) -> int:
        ends = [os.pipe() for _ in range(3)]
        held = os.memfd_create("stdin")
        os.write(held, self.job.get("stdin", "").encode("utf-8", "surrogatepass"))
        os.lseek(held, 0, os.SEEK_SET)
        pid = os.fork()
        if pid == 0:
            self._be_the_program(held, [write for _, write in ends])
        os.close(held)
        for (read, write), buffer in zip(ends, (self.out, self.err, self.lines), strict=True):
            os.close(write)
            os.set_blocking(read, False)
            self.pipes[read] = buffer
        return pid

    def _be_the_program(self, held: int, ends: list[int]) -> None:
        try:
            os.setsid()
            # 0, 1 and 2 are the server's own and none of these, so nothing is overwritten that is still needed; the last may be 3 already.
            for place, end in enumerate((held, *ends)):
                os.dup2(end, place)
            os.closerange(4, os.sysconf("SC_OPEN_MAX"))
            # Copies of what others asked for.
            WAITING.clear()
            harness.quiet(1, 2)
            mark = self.mark.encode()

            def tell(line: dict[str, Any]) -> None:
                data = mark + json.dumps(line).encode() + b"\n"
                while data:
                    data = data[os.write(3, data) :]

            job = self.job
            for which in (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
                signal.signal(which, signal.SIG_DFL)
            calls = len(job.get("calls", [])) if job["kind"] == "calls" else 1
            fence.around_program(job["seconds"] * max(1, calls), job["memory"])
            harness.do(job, tell)
        except BaseException as error:
            with suppress(OSError):
                os.write(2, f"{type(error).__name__}: {error}".encode())
            os._exit(3)
        os._exit(0)

    def read(self, pipe: int) -> bool:
        """What has come. -> whether that pipe is still open."""
        try:
            data = os.read(pipe, _PIECE)
        except BlockingIOError:
            return True
        buffer = self.pipes[pipe]
        buffer += data
        if buffer is self.lines and self.job["kind"] == "calls" and data:
            # Each call has its own time.
            self.until = time.monotonic() + self.job["seconds"]
        over = len(self.lines) > self.job["reply"] or len(self.out) + len(self.err) > self.job["output"]
        if over:
            self.stop("output")
        return bool(data) and not over

    def stop(self, end: str) -> None:
        """Kills it; only the first reason counts."""
        self.end = self.end or end
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def told(self, status: int) -> dict[str, Any]:
        """What came of it, for whoever asked."""
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if not self.end and killed:
            self.end = "time" if killed in (signal.SIGXCPU, signal.SIGKILL) else "died"
        mark, limit = self.mark.encode(), self.job["output"]
        found = [line.removeprefix(mark) for line in bytes(self.lines).split(b"\n")[:-1] if line.startswith(mark)]
        return {
            "id": self.job["id"],
            "end": self.end or "ended",
            "signal": killed,
            "lines": [json.loads(line) for line in found],
            "out": self.out[:limit].decode("utf-8", "replace"),
            "err": self.err[:limit].decode("utf-8", "replace"),
            "seconds": time.monotonic() - self.began,
        }


def serve(at_once: int) -> None:
    """Until nobody asks any more."""
    running: list[Running] = []
    watched = selectors.DefaultSelector()
    watched.register(0, selectors.EVENT_READ)
    asked = bytearray()
    while True:
        while WAITING and len(running) < at_once:
            running.append(one := Running(WAITING.popleft()))
            for pipe in one.pipes:
                watched.register(pipe, selectors.EVENT_READ, one)
        for key, _ in watched.select(_patience(running)):
            if key.data is not None:
                if not key.data.read(key.fd):
                    _close(watched, key.data, key.fd)
                continue
            data = os.read(0, 1 << 20)
            if not data:
                return
            asked += data
            if b"\n" in data:
                *whole, rest = bytes(asked).split(b"\n")
                WAITING.extend(map(json.loads, whole))
                asked = bytearray(rest)
        running = [one for one in running if not _over(watched, one)]


def _patience(running: list[Running]) -> float | None:
    """How long there is nothing to do unless something is heard."""
    if any(not one.pipes for one in running):
        return _LOOK
    soonest = min((one.until for one in running), default=None)
    return None if soonest is None else max(0.0, soonest - time.monotonic())


def _over(watched: selectors.BaseSelector, one: Running) -> bool:
    """Whether it has ended; then it is told. One that overruns, or has said too much, is ended."""
    if time.monotonic() >= one.until:
        one.stop("time")
    if one.end:
        for pipe in list(one.pipes):
            _close(watched, one, pipe)
    if one.pipes:
        return False
    pid, status = os.waitpid(one.pid, 0 if one.end else os.WNOHANG)
    if pid:
        _say(one.told(status))
    return bool(pid)


def _close(watched: selectors.BaseSelector, one: Running, pipe: int) -> None:
    watched.unregister(pipe)
    os.close(pipe)
    del one.pipes[pipe]


def _say(line: dict[str, Any]) -> None:
    data = json.dumps(line).encode() + b"\n"
    while data:
        data = data[os.write(1, data) :]


def main(at_once: str, *readable: str) -> None:
    try:
        fence.around_server(readable)
    except Exception as error:
        _say({"failed": f"{type(error).__name__}: {error}"})
        return
    _say({"ready": True})
    serve(int(at_once))


if __name__ == "__main__":
    given, sys.argv = sys.argv[1:], ["program"]
    main(*given)
