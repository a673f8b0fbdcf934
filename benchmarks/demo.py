"""A demo, as a newcomer runs it: how long it learns and what comes of it.

    python benchmarks/demo.py [--demo NAME] [SEED ...]     Pig Latin and three seeds if nothing is said

Each seed runs `train --demo NAME --json` in a process and a data directory of its own, so server start, loading and the
proof are all in the wall time. The stated limits: exact match from below 0.05 to at least 0.90 on at least 300 prompts,
general skills at least 0.60, and for Pig Latin within 60 s of training on two CPU cores. Leaves out: other models and peers.
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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"before": 0.05, "after": 0.90, "skills": 0.60, "seconds": 60.0, "prompts": 300}


def run(demo: str, seed: int) -> dict[str, Any]:
    """One run. -> {seed, before, after, skills, training_s, wall_s, cpu_s, tokens_per_s}."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "THINKER_HOME": home}
        command = [sys.executable, "-m", "engine.cli", "train", "--demo", demo, "--seed", str(seed), "--json"]
        started = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
        wall = time.perf_counter() - started
        cpu = end_servers(Path(home))
    result = json.loads(done.stdout.splitlines()[-1])
    held_out = result["held_out"]
    assert held_out["after"]["count"] >= LIMITS["prompts"]
    return {
        "seed": seed,
        "before": held_out["before"]["exact_match"],
        "after": held_out["after"]["exact_match"],
        "skills": result["skills"]["after"],
        "training_s": result["seconds"],
        "wall_s": wall,
        "server_cpu_s": cpu,
        "tokens_per_s": result["tokens"] / result["seconds"],
    }


def end_servers(home: Path) -> float:
    """Ends the servers that this run started. -> their CPU seconds."""
    import psutil

    seconds = 0.0
    for record in home.glob("servers/*/server.json"):
        process = psutil.Process(json.loads(record.read_text())["pid"])
        times = process.cpu_times()
        seconds += times.user + times.system
        process.terminate()
        process.wait(15)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures a demo as a newcomer runs it.")
    parser.add_argument("seeds", nargs="*", type=int, default=[0, 1, 2], help="a run for each (0 1 2)")
    parser.add_argument("--demo", default="piglatin", help="which (piglatin)")
    options = parser.parse_args()
    rows = [run(options.demo, seed) for seed in options.seeds]
    names = list(rows[0])
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print(
            "| "
            + " | ".join(f"{value:.3g}" if isinstance(value, float) and value < 100 else f"{value:.0f}" for value in row.values())
            + " |"
        )
    middle = {name: statistics.median(row[name] for row in rows) for name in names[1:]}
    print("| median | " + " | ".join(f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in middle.values()) + " |")
    sound = all(
        row["before"] < LIMITS["before"]
        and row["after"] >= LIMITS["after"]
        and row["skills"] >= LIMITS["skills"]
        and (row["training_s"] <= LIMITS["seconds"] or options.demo != "piglatin")
        for row in rows
    )
    print("within the stated limits" if sound else "OUTSIDE the stated limits")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
