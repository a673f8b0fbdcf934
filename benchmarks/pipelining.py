"""What sending steps ahead is worth over a network, and where the time of learning from scores goes.

    python benchmarks/pipelining.py [--delays 0 50 150 300] [--steps 30] [--rounds 3] [--methods sft dpo rl rl-ahead]

Our server stands behind a proxy on this machine that holds back everything that passes: half of the delay on the way there, half
on the way back, as a network does that adds so many milliseconds to each round trip. The same run (nano, the same rows) goes through
it twice, with steps sent ahead as they always are and with every step awaited before anything of the next is sent, by the command
line and the `tinker` endpoint. `rl-ahead` also draws the next step's answers while this step's are learned from (`rl.ahead`, so from
weights that are one update old), and is held against the same awaited steps as `rl`. Counted are steps after the first three. For RL
the time of an awaited step is split into drawing answers, scoring them and the rest, which is learning. Ways take turns; medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
WAYS = {"ahead": 2, "awaited": 0}
WARM_UP = 3
FIGURES, IN_FLIGHT = "PIPELINING_FIGURES", "PIPELINING_IN_FLIGHT"  # environment variables for a run's process
KEY = "tml-benchmark-on-loopback-only"


class Far:
    """A proxy that makes a server seem far away."""

    def __init__(self, to: int, delay_ms: float):
        self._to, self._half = to, delay_ms / 2000
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(self._pour(reader, there), self._pour(there_reader, writer))

    async def _pour(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Everything in its order, each piece late by the same time however much is on its way."""
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def pass_on() -> None:
            data = b"."
            while data:
                due, data = await held.get()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                writer.write(data)
                await writer.drain()
            writer.close()

        passing = asyncio.create_task(pass_on())
        try:
            while data := await reader.read(2**16):
                held.put_nowait((time.monotonic() + self._half, data))
        except OSError:
            pass
        held.put_nowait((time.monotonic() + self._half, b""))
        await asyncio.gather(passing, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delays", type=float, nargs="*", default=[0, 50, 150, 300])
    parser.add_argument("--methods", nargs="*", default=["sft", "dpo", "rl", "rl-ahead"])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    results: dict[tuple[str, float], dict[str, list[dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        server, port = start_server(work)
        try:
            for method in options.methods:
                for delay in options.delays:
                    far = Far(port, delay)
                    found = results[method, delay] = {way: [] for way in WAYS}
                    for _ in range(options.rounds):
                        for way in WAYS:
                            found[way].append(run(method, way, far.url, work, options.steps))
                            print(f"{method}, {delay:.0f} ms, {way}: {found[way][-1]}", file=sys.stderr, flush=True)
                    far.close()
        finally:
            server.terminate()
            server.wait(20)
    report(results)


def start_server(work: Path) -> tuple[subprocess.Popen, int]:
    from engine import models

    ready = work / "ready.json"
    command = [sys.executable, "-m", "engine.server", "--base-model", str(models.nano_folder()), "--name", "nano", "--port", "0"]
    command += ["--checkpoints", str(work / "checkpoints"), "--ready-file", str(ready), "--device", "cpu"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "THINKER_SERVER_KEY": KEY, "OMP_WAIT_POLICY": "passive"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not ready.exists():
        if server.poll() is not None:
            raise SystemExit("the server didn't start")
        time.sleep(0.05)
    return server, int(json.loads(ready.read_text())["url"].rpartition(":")[2])


def recipe(name: str, way: str, steps: int) -> dict[str, Any]:
    method, ahead = name.removesuffix("-ahead"), name.endswith("-ahead") and way == "ahead"
    training = {"steps": steps, "batch_size": 4 if method == "rl" else 16, "learning_rate": 5e-4, "schedule": "constant"}
    found = {
        "name": name,
        "method": method,
        "base_model": "nano",
        "endpoint": "tinker",
        "data": {"demo": "piglatin", "held_out_fraction": 0},
        "lora": {"rank": 16},
        "training": training,
        "evaluation": {"proof": False, "eval_every": 0, "samples_every": 0, "skills": False},
        "checkpoints": {"every_steps": 0, "every_seconds": 0},
    }
    if method == "rl":
        found["rl"] = {"group_size": 4, "max_new_tokens": 24, "skip_flat": False, "ahead": ahead}
    return found


def run(method: str, way: str, url: str, work: Path, steps: int) -> dict[str, float]:
    """One run to its end. -> {steps_per_s, and for RL sampling_s, scoring_s, learning_s of a step}."""
    told, figures = work / "recipe.yaml", work / "figures.json"
    told.write_text(json.dumps(recipe(method, way, steps)))
    path = os.pathsep.join([str(Path(__file__).parent), str(ROOT)])
    more = {"TINKER_BASE_URL": url, "TINKER_API_KEY": KEY, "TINKER_TELEMETRY": "0", "OMP_WAIT_POLICY": "passive", "PYTHONPATH": path}
    more |= {"THINKER_HOME": str(work / "home"), "THINKER_EXECUTE": "pipelining:noted", FIGURES: str(figures), IN_FLIGHT: str(WAYS[way])}
    command = [sys.executable, "-P", "-m", "engine.cli", "train", "--recipe", str(told), "--json"]
    done = subprocess.run(command, env={**os.environ, **more}, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the run failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    return json.loads(figures.read_text())


def noted(run: Any) -> str:
    """Our training loop with so many steps in flight, and the time that its steps took."""
    from engine.training import loop
    from engine.training.desk import Desk

    loop.IN_FLIGHT = int(os.environ[IN_FLIGHT])
    Desk.ahead = bool(loop.IN_FLIGHT)
    report_metrics, times, parts = run.metrics, [], []

    def metrics(step: int, values: dict[str, float]) -> None:
        if step:
            times.append(time.perf_counter())
            parts.append((values.get("sampling_seconds", 0.0), values.get("scoring_seconds", 0.0)))
        report_metrics(step, values)

    run.metrics = metrics
    try:
        return loop.execute(run)
    finally:
        counted = len(times) - WARM_UP
        wall = times[-1] - times[WARM_UP - 1]
        figures = {"steps_per_s": counted / wall}
        if any(sampling for sampling, _ in parts):
            sampling, scoring = (statistics.mean(column) for column in zip(*parts[WARM_UP:], strict=True))
            figures |= {"sampling_s": sampling, "scoring_s": scoring, "learning_s": wall / counted - sampling - scoring}
        Path(os.environ[FIGURES]).write_text(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def report(results: dict[tuple[str, float], dict[str, list[dict[str, float]]]]) -> None:
    print("| method | added to a round trip | steps/s awaited | steps/s sent ahead | faster by |\n|---|---|---|---|---|")
    for (method, delay), found in results.items():
        awaited, ahead = (statistics.median(one["steps_per_s"] for one in found[way]) for way in ("awaited", "ahead"))
        print(f"| {method} | {delay:.0f} ms | {awaited:.2f} | {ahead:.2f} | {100 * (ahead / awaited - 1):.0f} % |")
    split = {delay: found["awaited"] for (method, delay), found in results.items() if method == "rl"}
    if split:
        print("\n| added to a round trip | drawing answers, s | scoring, s | learning, s |\n|---|---|---|---|")
        for delay, rounds in split.items():
            middle = [statistics.median(one[name] for one in rounds) for name in ("sampling_s", "scoring_s", "learning_s")]
            print(f"| {delay:.0f} ms | " + " | ".join(f"{value:.3f}" for value in middle) + " |")


if __name__ == "__main__":
    main()
