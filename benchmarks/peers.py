"""A whole training, from the command to the adapter on disk, against a TRL script and LLaMA-Factory's command line.

    pip install --no-deps --target TRL trl==1.16.0
    pip install --no-deps --target LF llamafactory==0.9.5 ...        (and the older libraries that it asks for; see the README here)
    python benchmarks/peers.py --trl TRL --llamafactory LF [--rounds 5] [--only thinker trl ...]

The Pig Latin demo's training rows, nano, LoRA rank 32 on all linear layers, 50 steps of 32 rows, learning rate 5e-3, linear
decay; each as it comes apart from that (LLaMA-Factory with bf16 off, which fails on a CPU). Nobody evaluates; each saves its
adapter at the end. `first step` is the time from starting the command to the end of the first update, `CPU` and `memory` are
of all its processes: ours are the command line (which runs the job itself) and the server, started cold. CPU is what they
used until the command ended, memory the highest sum of their proportional set sizes (PSS), looked at five times a second.
One round before the counted ones warms caches. Contenders take turns; medians.
"""

from __future__ import annotations

import argparse
import contextlib
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
sys.path.append(str(ROOT))
CONTENDERS = ("thinker", "thinker, server up", "trl", "trl, no checkpointing", "llamafactory")
STEPS, BATCH, RATE, RANK = 50, 32, 5e-3, 32
FIRST_STEP = "PEERS_FIRST_STEP"  # the environment variable that names the file in which a contender notes the time
LOOK_EVERY = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=STEPS, help="of the training; 2 is enough for the time to the first")
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--trl", type=Path, help="the folder that TRL was installed into")
    parser.add_argument("--llamafactory", type=Path, help="the folder that LLaMA-Factory was installed into")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        if options.contender == "llamafactory":
            train_with_llamafactory(Path.cwd())
        else:
            train_with_trl(options.contender, Path.cwd(), options.steps)
        return
    sites = {"trl": options.trl, "llamafactory": options.llamafactory}
    names = [name for name in options.only if name.startswith("thinker") or sites[name.partition(",")[0]]]
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work, options.steps)
        try:
            for counted in range(options.rounds + 1):
                for name in names:
                    figures = run(name, work, sites, options.steps)
                    print(f"{name}: {figures}", file=sys.stderr, flush=True)
                    if counted:
                        results[name].append(figures)
        finally:
            servers(work, end=True)
    report(results)


def prepare(work: Path, steps: int) -> None:
    """The rows and the model as the others want them."""
    import shutil

    from engine import models

    source = ROOT / "engine" / "data" / "demos" / "piglatin.train.jsonl"
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    (work / "rows.jsonl").write_text("".join(json.dumps({"messages": row["messages"]}) + "\n" for row in rows), encoding="utf-8")
    shutil.copytree(models.nano_folder(), work / "nano")
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    about = {"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}
    (work / "dataset_info.json").write_text(json.dumps({"rows": about}))
    settings = {
        "model_name_or_path": str(work / "nano"), "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_target": "all",
        "lora_rank": RANK, "lora_alpha": RANK, "dataset_dir": str(work), "dataset": "rows", "cutoff_len": 1024, "max_steps": steps,
        "per_device_train_batch_size": BATCH, "gradient_accumulation_steps": 1, "learning_rate": RATE, "lr_scheduler_type": "linear",
        "logging_steps": 1, "save_strategy": "no", "output_dir": str(work / "lf"), "overwrite_output_dir": True, "bf16": False,
        "report_to": "none", "use_cpu": True, "plot_loss": False,
    }  # fmt: skip
    (work / "lf.json").write_text(json.dumps(settings))


def run(name: str, work: Path, sites: dict[str, Path | None], steps: int) -> dict[str, float]:
    """One training in a process of its own, to its end."""
    mark = work / f"first-{time.time_ns()}"
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "hub"), FIRST_STEP: str(mark)}
    path = [str(Path(__file__).parent)]
    if name.startswith("thinker"):
        path.insert(0, str(ROOT))
        environment |= {"THINKER_HOME": str(work / "home"), "THINKER_EXECUTE": "peers:noted"}
        off = ("evaluation.proof=false", "evaluation.eval_every=0", "evaluation.samples_every=0", "evaluation.skills=false")
        command = [sys.executable, "-P", "-m", "engine.cli", "train", str(work / "rows.jsonl"), "--steps", str(steps)]
        command += ["--batch-size", str(BATCH), "--lr", str(RATE), "--rank", str(RANK), "--json"]
        for setting in (*off, "data.held_out_fraction=0", "training.warmup=0"):
            command += ["--set", setting]
        servers(work, end=name == "thinker")
    else:
        path.insert(0, str(sites[name.partition(",")[0]]))
        command = [sys.executable, __file__, "--contender", name, "--steps", str(steps)]
    environment["PYTHONPATH"] = os.pathsep.join(path)
    return measured(command, environment, work, mark)


def measured(command: list[str], environment: dict[str, str], work: Path, mark: Path) -> dict[str, float]:
    """Runs the command. -> {first_step_s, first_cpu_s, wall_s, cpu_s, memory_mb, loss}, the loss as the mean of the last five steps."""
    before = sum(map(cpu_of, servers(work)))
    peak = looked = 0.0
    with (work / "out").open("wb") as out, (work / "err").open("wb") as err:
        started, started_at = time.perf_counter(), time.time()
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=err, stdin=subprocess.DEVNULL, cwd=work)
        ended = 0
        while not ended:
            if time.perf_counter() - looked >= LOOK_EVERY:
                looked = time.perf_counter()
                peak = max(peak, sum(map(memory_of, {*tree(process.pid), *servers(work)})))
            time.sleep(0.005)
            # The kernel's own account of the command and what it waited for; only our server outlives it.
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed:\n{(work / 'err').read_text()[-3000:]}")
    spent = usage.ru_utime + usage.ru_stime + sum(map(cpu_of, servers(work))) - before
    noted = json.loads(mark.read_text())
    first = {"first_step_s": noted["first"] - started_at, "first_cpu_s": noted["first_cpu"] - before}
    figures = {**first, "wall_s": wall, "cpu_s": spent, "memory_mb": peak / 1e6}
    return {**{name: round(value, 2) for name, value in figures.items()}, "loss": round(statistics.mean(noted["losses"][-5:]), 4)}


def servers(work: Path, end: bool = False) -> list[int]:
    """The processes of our servers; with `end`, after ending them."""
    import psutil

    found = []
    for record in work.glob("home/servers/*/server.json"):
        pid = json.loads(record.read_text())["pid"]
        if psutil.pid_exists(pid):
            if end:
                server = psutil.Process(pid)
                server.terminate()
                server.wait(20)
            else:
                found.append(pid)
    return found


def tree(pid: int) -> list[int]:
    import psutil

    with contextlib.suppress(psutil.Error):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def cpu_of(pid: int) -> float:
    import psutil

    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def memory_of(pid: int) -> int:
    """Its proportional set size in bytes: what it shares with others counts in part. 0 for one that has just ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    return 0


class Notes:
    """When the first update was over, and every step's loss, for who started this process."""

    def __init__(self) -> None:
        self.first, self.first_cpu, self.losses = 0.0, 0.0, []

    def step(self, loss: float | None = None) -> None:
        if not self.first:
            self.first = time.time()
            self.first_cpu = time.process_time() + sum(map(cpu_of, servers(Path.cwd())))
        self.losses += [] if loss is None else [loss]

    def write(self) -> None:
        Path(os.environ[FIRST_STEP]).write_text(json.dumps(vars(self)))


def noted(run: Any) -> str:
    """Our training loop, which reports each step when its update is over."""
    from engine.training.loop import execute

    notes, report_metrics = Notes(), run.metrics

    def metrics(step: int, values: dict[str, float]) -> None:
        notes.step(values.get("train_loss"))
        report_metrics(step, values)

    run.metrics = metrics
    try:
        return execute(run)
    finally:
        notes.write()


def train_with_trl(name: str, work: Path, steps: int) -> None:
    """The script that TRL's documentation leads to."""
    from datasets import load_dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    notes = Notes()
    settings = {
        "output_dir": str(work / "trl"), "max_steps": steps, "per_device_train_batch_size": BATCH, "learning_rate": RATE,
        "assistant_only_loss": True, "logging_steps": 1, "save_strategy": "no", "report_to": [], "use_cpu": True, "bf16": False,
    }  # fmt: skip
    if name.endswith("no checkpointing"):
        settings["gradient_checkpointing"] = False
    trainer = SFTTrainer(
        model=str(work / "nano"),
        args=SFTConfig(**settings),
        train_dataset=load_dataset("json", data_files=str(work / "rows.jsonl"), split="train"),
        peft_config=LoraConfig(r=RANK, lora_alpha=RANK, target_modules="all-linear"),
        callbacks=[callback(notes)],
    )
    trainer.train()
    trainer.save_model()
    notes.write()


def train_with_llamafactory(work: Path) -> None:
    """What its command line calls, with the settings from a file."""
    from llamafactory.train.tuner import run_exp

    notes = Notes()
    run_exp(args=json.loads((work / "lf.json").read_text()), callbacks=[callback(notes)])
    notes.write()


def callback(notes: Notes) -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            notes.step()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
            if logs and "loss" in logs:
                notes.step(float(logs["loss"]))

    return Clock()


def report(results: dict[str, list[dict[str, float]]]) -> None:
    print(f"\nload average {os.getloadavg()[0]:.1f}\n")
    print("| | first step, s (CPU) | whole command, s | CPU, s | memory, MB | loss at the end |\n|---|---|---|---|---|---|")
    for name, rounds in results.items():
        middle = {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}
        times = f"{middle['first_step_s']:.1f} ({middle['first_cpu_s']:.1f}) | {middle['wall_s']:.1f} | {middle['cpu_s']:.1f}"
        cells = f"{times} | {middle['memory_mb']:,.0f} | {middle['loss']:.3f}"
        print(f"| {name} | {cells} |")


if __name__ == "__main__":
    main()
