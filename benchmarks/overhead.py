"""What the SDK, HTTP and protobuf add to a training step.

    python benchmarks/overhead.py [--steps 30] [--rounds 3] [--batches 4 32 128]

The same step (forward_backward and optim_step on nano, LoRA rank 32, the demo's rows) by a call of the trainer in its own
process, and through the official SDK and HTTP from another process on the same cores. `awaited` waits for each step's end
before it sends the next; `pipelined` has two steps on their way, as training has. CPU seconds are of both processes. The
stated limit: 5 ms and 5 % of the direct step. Contenders take turns; medians of rounds. Leaves out: making the datums.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sft import ROOT, _datums, demo_rows

CONTENDERS = ("direct", "awaited", "pipelined")
WARM_UP = 3
RATE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 32, 128])
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        run = direct if options.contender == "direct" else through_http
        print(json.dumps(run(options.contender, options.batches, options.steps)))
        return
    rounds: dict[str, list[dict[str, list[float]]]] = {name: [] for name in CONTENDERS}
    for _ in range(options.rounds):
        for name in CONTENDERS:
            command = [sys.executable, __file__, "--contender", name, "--steps", str(options.steps)]
            command += ["--batches", *map(str, options.batches)]
            environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "TINKER_TELEMETRY": "0"}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
            rounds[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{name}: {rounds[name][-1]}", file=sys.stderr, flush=True)
    report(rounds, options.batches)


def direct(name: str, batches: list[int], steps: int) -> dict[str, list[float]]:
    """{rows: [wall, CPU seconds a step]} by calls of the trainer."""
    from tinker import types

    from engine import models
    from engine.server.model import BaseModel
    from engine.server.packing import Packed
    from engine.server.trainer import AdamParams, Trainer
    from engine.server.weights import LoraSpec
    from engine.server.wire import Datum

    base = BaseModel(models.nano_folder(), "cpu")
    trainer = Trainer(base, base.new_adapter(LoraSpec(32), 0), Packed.if_it_agrees(base))
    params = AdamParams(learning_rate=RATE, eps=1e-8)
    found = {}
    for rows in batches:
        data = [
            [Datum(tokens(datum), {key: value.to_numpy() for key, value in datum.loss_fn_inputs.items()}) for datum in batch]
            for batch in datums(rows, steps, types)
        ]

        def step(i: int, data: list = data) -> None:
            trainer.forward_backward(data[i], "cross_entropy", {}, forward_only=False)
            trainer.optim_step(params)

        found[str(rows)] = timed(step, steps, time.process_time)
    return found


def through_http(name: str, batches: list[int], steps: int) -> dict[str, list[float]]:
    """The same through the SDK, each step awaited or two on their way."""
    import psutil

    from engine import models

    with tempfile.TemporaryDirectory() as work:
        ready = Path(work) / "ready.json"
        command = [sys.executable, "-m", "engine.server", "--base-model", str(models.nano_folder()), "--name", "nano", "--port", "0"]
        command += ["--checkpoints", work, "--ready-file", str(ready), "--device", "cpu"]
        key = "tml-benchmark-on-loopback-only"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "THINKER_SERVER_KEY": key}
        server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while not ready.exists():
                time.sleep(0.05)
            import tinker
            from tinker import types

            service = tinker.ServiceClient(base_url=json.loads(ready.read_text())["url"], api_key=key)
            client = service.create_lora_training_client("nano", rank=32, seed=0, train_unembed=False).result()
            params = types.AdamParams(learning_rate=RATE, beta1=0.9, beta2=0.95, eps=1e-8)
            process = psutil.Process(server.pid)

            def cpu() -> float:
                times = process.cpu_times()
                return times.user + times.system + time.process_time()

            found = {}
            for rows in batches:
                data, pending = datums(rows, steps, types), deque()

                def step(i: int, data: list = data, pending: deque = pending) -> None:
                    if i < len(data):
                        pending.append((client.forward_backward(data[i], "cross_entropy"), client.optim_step(params)))
                    while pending and (name == "awaited" or i == len(data) or len(pending) > 2):
                        for future in pending.popleft():
                            future.result()

                found[str(rows)] = timed(step, steps, cpu, settle=lambda step=step, data=data: step(len(data)))
            return found
        finally:
            server.terminate()
            server.wait(20)


def timed(step: Callable[[int], Any], steps: int, cpu: Callable[[], float], settle: Callable[[], Any] = lambda: None) -> list[float]:
    """[wall, CPU seconds] a step, on average after the warm-up; `settle` waits for what is on its way."""
    for i in range(WARM_UP):
        step(i)
    settle()
    wall, spent = time.perf_counter(), cpu()
    for i in range(WARM_UP, WARM_UP + steps):
        step(i)
    settle()
    return [(time.perf_counter() - wall) / steps, (cpu() - spent) / steps]


def datums(rows: int, steps: int, types: Any) -> list[list[Any]]:
    """A batch of that many rows for each step, warm-up included."""
    pool = demo_rows(rows * (steps + WARM_UP))
    return [_datums(pool[i : i + rows], types)[0] for i in range(0, len(pool), rows)]


def tokens(datum: Any) -> Any:
    import numpy as np

    return np.array(datum.model_input.to_ints())


def report(rounds: dict[str, list[dict[str, list[float]]]], batches: list[int]) -> None:
    print(f"\nload average {os.getloadavg()[0]:.1f}\n")
    print("| rows a step | direct, ms (CPU) | awaited, ms (CPU) | pipelined, ms (CPU) | added, awaited | added, pipelined | limit |")
    print("|---|---|---|---|---|---|---|")
    for rows in map(str, batches):
        wall, cpu = (
            {name: 1000 * statistics.median(found[rows][which] for found in rounds[name]) for name in CONTENDERS} for which in (0, 1)
        )
        cells = [f"{wall[name]:.1f} ({cpu[name]:.1f})" for name in CONTENDERS]
        added = [f"{wall[name] - wall['direct']:+.1f} ({cpu[name] - cpu['direct']:+.1f})" for name in CONTENDERS[1:]]
        print(f"| {rows} | {' | '.join([*cells, *added])} | {5 + 0.05 * wall['direct']:.1f} ({5 + 0.05 * cpu['direct']:.1f}) |")


if __name__ == "__main__":
    main()
