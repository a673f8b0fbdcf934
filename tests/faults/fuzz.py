"""Requests as the SDK sends them, spoilt in every way that a seed can think of, against a real server.

    python -m tests.faults.fuzz --requests 20000 --seed 1

Each has to be answered soon, by a 2xx or by a 4xx that says why and that the SDK doesn't repeat; a bystander trains all the
while, and its losses have to be what they are without the noise. Isn't collected by pytest; `test_fuzz` does a few hundred.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import zstandard

from tests.faults.spoil import spoil_json, spoil_protobuf
from tests.server.harness import RunningServer
from tests.server.raw import Session, rows, training_body

RETRIED = {408, 409, 429}
SLOW_SECONDS = 10.0
LONG_POLLS = {"retrieve_future", "retrieve_futures"}  # may take the 20 s that they are made for
ROUND = 60  # requests to one victim's session
STEPS = 4  # of the bystander's run, again and again
TOLERANCE = 1e-5
MEMORY = 400 * 2**20  # by which the server may have grown for good


@dataclass
class Report:
    """What was found; `problems` is empty when all is well."""

    statuses: Counter[int] = field(default_factory=Counter)
    requests: int = 0
    slowest: float = 0.0
    bystander_runs: int = 0
    worst_loss: float = 0.0
    grown_mib: float = 0.0
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "statuses": {str(code): n for code, n in sorted(self.statuses.items())}}


class Victim:
    """A session with one of everything; its bodies are valid until they are spoilt."""

    def __init__(self, server: RunningServer):
        self.session = Session(server)
        self.model = self.session.model()
        self.seq = 1
        self.sampler = self.session.sampler()
        self.sampled = self.session.ok("asample", self.session.sample_body(self.sampler, 1, [5, 6, 7]))["request_id"]
        saved = [self._saved(path) for path in ("save_weights", "save_weights_for_sampler")]
        self.weights, self.sampler_weights = (self.session.result(promise)["path"] for promise in saved)
        self.promises: list[str] = []

    def _saved(self, path: str) -> str:
        promise = self.session.ok(path, {"model_id": self.model, "seq_id": self.seq, "path": f"fuzz-{self.seq}"})["request_id"]
        self.seq += 1
        return promise

    def bodies(self) -> dict[str, dict[str, Any] | bytes]:
        """By path; bytes are protobuf."""
        of_run = {"model_id": self.model, "seq_id": self.seq}
        adam = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.0, "grad_clip_norm": 1.0}
        saving = {**of_run, "path": f"fuzz-{self.seq}", "ttl_seconds": 3600, "user_metadata": {"a": "b"}}
        sample = self.session.sample_body(self.sampler, 1000 + self.seq, [5, 6, 7], n=2, temperature=0.7, top_k=5, seed=1, stop=["x"])
        chat = {"model": "nano", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3, "temperature": 0.5, "seed": 1}
        plain = {"model": self.sampler_weights, "prompt": ["hello"], "max_tokens": 3, "logprobs": 1, "stop": ["x"], "n": 2}
        training = {f"forward_backward#{i}": training_body(self.model, self.seq, rows(i, 2), forward_only=bool(i % 2)) for i in range(8)}
        return {
            **training,
            "client/config": {"sdk_version": "0.38.0"},
            "create_session": {"tags": ["a"], "user_metadata": {"a": "b"}, "sdk_version": "0.38.0", "display_name": "x"},
            "session_heartbeat": {"session_id": self.session.id},
            "create_model": {**self.session.model_body(rank=2, seed=1, train_mlp=True), "user_metadata": {"a": "b"}},
            "get_info": {"model_id": self.model},
            "optim_step": {**of_run, "adam_params": adam},
            "save_weights": saving,
            "save_weights_for_sampler": {**saving, "kind": "snapshot"},
            "save_weights_for_sampler#unnamed": {**of_run, "sampling_session_seq_id": self.seq},
            "save_weights_external": saving,
            "load_weights": {**of_run, "path": self.weights, "optimizer": True},
            "create_sampling_session": {
                "session_id": self.session.id,
                "sampling_session_seq_id": 7,
                "model_path": self.sampler_weights,
            },
            "asample": {**sample, "prompt_logprobs": True, "topk_prompt_logprobs": 2},
            "asample#tensor": {**sample, "target_prompt_logprobs": {"data": [1, 2], "dtype": "int64", "shape": [2, 1]}},
            "retrieve_future": {"request_id": self.sampled},
            "retrieve_futures": {"target": {"sampling_session_id": self.sampler}, "prev_cursor": 0, "timeout": 0.1},
            "cancel_future": {"request_id": self.sampled},
            "join_sampling_session": {"sampling_session_id": self.sampler},
            "weights_info": {"tinker_path": self.weights},
            "sessions/search": {"session_id": self.session.id, "limit": 3, "user_metadata": {}, "statuses": [{"type": "active"}]},
            "telemetry": {"events": [{"a": 1}], "session_id": self.session.id},
            "/v1/chat/completions": chat,
            "/v1/completions": plain,
        }

    def fill(self) -> None:
        """Sees to it that the number is used up, whatever became of the spoilt request that bore it."""
        self.session.train(self.model, self.seq, rows(0, 1))
        self.seq += 1

    def end(self) -> list[str]:
        """Problems of what was promised. Work that was lawful, but long, is dropped with the session."""
        self.session.http.post(f"sessions/{self.session.id}/finish", json={"reason": {"type": "success"}})
        problems = []
        for promise in self.promises:
            reply = self.session.retrieve(promise)
            if reply.headers["content-type"] == "application/json" and (result := reply.json()).get("category") == "server":
                problems.append(f"{promise}: {result}")
        self.session.http.close()
        return problems


class Bystander(threading.Thread):
    """Trains the same run over and over."""

    def __init__(self, server: RunningServer):
        super().__init__(daemon=True)
        self._server = server
        self.straight = self.losses()
        self.found: list[list[float]] = []
        self.error: Exception | None = None
        self._over = threading.Event()

    def losses(self) -> list[float]:
        # A session each time: what it trained is held for as long as it lasts.
        session = Session(self._server)
        model, losses = session.model(seed=3), []
        for step in range(STEPS):
            losses.append(session.loss(session.train(model, 2 * step + 1, rows(step))))
            session.result(session.step(model, 2 * step + 2))
        session.close()
        return losses

    def run(self) -> None:
        try:
            while not self._over.is_set():
                self.found.append(self.losses())
                self._over.wait(0.3)
        except Exception as error:
            self.error = error

    def end(self) -> float:
        """-> how far any loss was off."""
        self._over.set()
        self.join(60)
        if self.error:
            raise self.error
        return max(abs(a - b) for losses in self.found for a, b in zip(losses, self.straight, strict=True))


def fuzz(server: RunningServer, requests: int, seed: int, say: Callable[[str], None] = lambda text: None) -> Report:
    """So many spoilt requests, one after the other."""
    chance, report = random.Random(seed), Report()
    bystander = Bystander(server)
    process = psutil.Process(server.process.pid)
    _round(server, random.Random(0), ROUND, Report())
    before = process.memory_info().rss
    bystander.start()
    while report.requests < requests:
        known = len(report.problems)
        _round(server, chance, min(ROUND, requests - report.requests), report)
        for problem in report.problems[known:]:
            say(problem)
        if report.requests % 1200 == 0:
            say(f"{report.requests} {dict(report.statuses)} {process.memory_info().rss >> 20} MiB, {len(report.problems)} problems")
    report.worst_loss = bystander.end()
    report.bystander_runs = len(bystander.found)
    report.grown_mib = (process.memory_info().rss - before) / 2**20
    if not report.worst_loss <= TOLERANCE:
        report.problems.append(f"the bystander's losses are off by {report.worst_loss}")
    if report.grown_mib * 2**20 > MEMORY:
        report.problems.append(f"the server grew by {report.grown_mib:.0f} MiB")
    if "Traceback" in (log := server.log.read_text()):
        report.problems.append(f"the server's log: {log[log.index('Traceback') :][:3000]}")
    with server.http() as http:
        if http.get("healthz").status_code != 200:
            report.problems.append("the server isn't well")
    return report


def _round(server: RunningServer, chance: random.Random, count: int, report: Report) -> None:
    victim = Victim(server)
    for _ in range(count):
        path, body = chance.choice(list(victim.bodies().items()))
        protobuf = isinstance(body, bytes)
        headers = {"Content-Type": "application/x-protobuf" if protobuf else "application/json"}
        content = spoil_protobuf(body, chance) if protobuf else spoil_json(body, chance)
        if chance.random() < 0.1:
            content = spoil_protobuf(zstandard.compress(content), chance) if chance.random() < 0.5 else zstandard.compress(content)
            headers["Content-Encoding"] = chance.choice(["zstd", "zstd", "zstd", "gzip", "br", "gzip, zstd"])
        _post(victim, path.partition("#")[0], content, headers, report)
        if "forward" in path or "save" in path or "optim" in path or "load" in path:
            victim.fill()
    # What can run has run when a last request of the same run has been answered, unless it waits for a number that a fault invented.
    last = victim.session.train(victim.model, victim.seq, rows(0, 1))
    if last.status_code == 200:
        victim.session.retrieve(last.json()["request_id"])
    report.problems += victim.end()


def _post(victim: Victim, path: str, content: bytes, headers: dict[str, str], report: Report) -> None:
    began = time.monotonic()
    try:
        reply = victim.session.http.post(
            path if not path.startswith("/") else str(victim.session.http.base_url.join(path)), content=content, headers=headers
        )
    except httpx.TransportError as error:
        report.problems.append(f"{path}: {error!r} for {content[:300]!r}")
        return
    seconds = time.monotonic() - began
    report.requests += 1
    report.statuses[reply.status_code] += 1
    if path not in LONG_POLLS:
        report.slowest = max(report.slowest, seconds)
    if fault := _fault(path, reply, seconds):
        report.problems.append(f"{path}: {fault}: {reply.status_code} {reply.text[:300]} for {content[:600]!r} {headers}")
    elif reply.status_code == 200 and path == "asample":
        # Lawful answers may be long.
        victim.session.post("cancel_future", {"request_id": reply.json()["request_id"]})
    elif reply.status_code == 200 and path not in LONG_POLLS and "request_id" in (found := reply.json()):
        victim.promises.append(found["request_id"])


def _fault(path: str, reply: httpx.Response, seconds: float) -> str:
    if seconds > (25 if path in LONG_POLLS else SLOW_SECONDS):
        return f"{seconds:.1f} s"
    if 200 <= reply.status_code < 300:
        return "" if reply.headers["content-type"].partition(";")[0] in ("application/json", "application/x-protobuf") else "no JSON"
    pending = reply.status_code == 408 and path == "retrieve_future"
    if not 400 <= reply.status_code < 500 or (reply.status_code in RETRIED and not pending):
        return "status"
    try:
        told = reply.json()
    except ValueError:
        return "no JSON"
    return "" if pending or told.get("detail") or told.get("error") else "no reason"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="thinker-fuzz-") as folder:
        server = RunningServer(Path(folder))
        began = time.monotonic()
        try:
            report = fuzz(server, options.requests, options.seed, lambda text: print(text, flush=True))
        finally:
            server.stop()
    print(json.dumps({**report.to_dict(), "seconds": round(time.monotonic() - began, 1)}, indent=1))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
