"""What the SDK, HTTP and protobuf add to a training step.

    python benchmarks/overhead.py [--blocks 9] [--rows 4 32 128]

The same step (forward_backward and optim_step on nano, LoRA rank 32, the demo's rows) by calls of the trainer in this
process, and through the official SDK and HTTP by a server in another process on the same cores. `awaited` waits for each
step's end before it sends the next; `pipelined` has two steps on their way, as training has. They take turns in blocks of
ten steps; what is added is the median of each turn's own difference. CPU seconds are of both processes. The stated limit:
5 ms and 5 % of the direct step. Leaves out: making the datums.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

from sft import ROOT, _datums, demo_rows

WAYS = ("direct", "awaited", "pipelined")
BLOCK = 10
RATE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=9)
    parser.add_argument("--rows", type=int, nargs="+", default=[4, 32, 128])
    options = parser.parse_args()
    os.environ.update(OMP_WAIT_POLICY="passive", TINKER_TELEMETRY="0")
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

            service = tinker.ServiceClient(base_url=json.loads(ready.read_text())["url"], api_key=key)
            client = service.create_lora_training_client("nano", rank=32, seed=0, train_unembed=False).result()
            trainer = own_trainer()
            gc.freeze()
            found = {rows: turns(rows, options.blocks, trainer, client, server.pid) for rows in options.rows}
        finally:
            server.terminate()
            server.wait(20)
    report(found)


def own_trainer() -> Any:
    """What the server has for a run."""
    import torch

    from engine import models
    from engine.server.model import BaseModel
    from engine.server.packing import Packed
    from engine.server.trainer import Trainer
    from engine.server.weights import LoraSpec

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    base = BaseModel(models.nano_folder(), "cpu")
    return Trainer(base, base.new_adapter(LoraSpec(32, train_unembed=False), 0), Packed.if_it_agrees(base))


def turns(rows: int, blocks: int, trainer: Any, client: Any, server: int) -> dict[str, list[tuple[float, float]]]:
    """(wall, CPU seconds) a step of each block, by way. One block of each warms up."""
    import numpy as np
    from tinker import types

    from engine.server.trainer import AdamParams
    from engine.server.wire import Datum

    pool = demo_rows(rows * BLOCK)
    batches = [_datums(pool[i : i + rows], types)[0] for i in range(0, len(pool), rows)]
    arrays = [
        [Datum(np.array(d.model_input.to_ints()), {name: value.to_numpy() for name, value in d.loss_fn_inputs.items()}) for d in batch]
        for batch in batches
    ]
    own, theirs = AdamParams(learning_rate=RATE, eps=1e-8), types.AdamParams(learning_rate=RATE, beta1=0.9, beta2=0.95, eps=1e-8)

    def direct() -> None:
        for batch in arrays:
            trainer.forward_backward(batch, "cross_entropy", {}, forward_only=False)
            trainer.optim_step(own)

    def through_http(ahead: int) -> None:
        pending: deque = deque()
        for batch in batches:
            pending.append((client.forward_backward(batch, "cross_entropy"), client.optim_step(theirs)))
            while len(pending) > ahead:
                for future in pending.popleft():
                    future.result()
        for futures in pending:
            for future in futures:
                future.result()

    ways = {"direct": direct, "awaited": lambda: through_http(0), "pipelined": lambda: through_http(2)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in WAYS}
    for counted in range(blocks + 1):
        for name in WAYS:
            wall, cpu = time.perf_counter(), cpu_seconds(server)
            ways[name]()
            if counted:
                found[name].append(((time.perf_counter() - wall) / BLOCK, (cpu_seconds(server) - cpu) / BLOCK))
    return found


def cpu_seconds(server: int) -> float:
    """Of this process and the server; the kernel's figures for threads are finer than those for processes."""
    tasks = Path(f"/proc/{server}/task").iterdir()
    return time.process_time() + sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def report(found: dict[int, dict[str, list[tuple[float, float]]]]) -> None:
    print(f"load average {os.getloadavg()[0]:.1f}\n")
    print("| rows a step | direct, ms (CPU) | awaited, ms (CPU) | pipelined, ms (CPU) | awaited adds | pipelined adds | limit |")
    print("|---|---|---|---|---|---|---|")
    for rows, blocks in found.items():
        middle = {name: [1000 * statistics.median(block[i] for block in blocks[name]) for i in (0, 1)] for name in WAYS}
        pairs = {name: list(zip(blocks[name], blocks["direct"], strict=True)) for name in WAYS[1:]}
        added = {name: [1000 * statistics.median(one[i] - plain[i] for one, plain in pair) for i in (0, 1)] for name, pair in pairs.items()}
        cells = [f"{wall:.1f} ({cpu:.1f})" for wall, cpu in middle.values()]
        cells += [f"{wall:+.1f} ({cpu:+.1f})" for wall, cpu in added.values()]
        wall, cpu = (5 + 0.05 * value for value in middle["direct"])
        cells.append(f"{wall:.1f} ({cpu:.1f})")
        print(f"| {rows} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
