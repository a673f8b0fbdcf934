"""Learning from pairs and from scores against TRL's DPOTrainer and GRPOTrainer, on the same model and data.

    pip install --no-deps --target TRL trl==1.16.0
    python benchmarks/trl_methods.py --trl TRL [--method dpo|rl] [--rounds 3] [--steps 30]

Both begin with the same adapter (nano, LoRA rank 32, twelve updates on Pig Latin), take the same rows in batches of the same size
and learn at the same constant rate. DPO: pairs that ship, beta 0.1, no NLL term; TRL as it comes, without gradient checkpointing,
and with its reference log-probabilities computed beforehand. RL: 16 prompts with 8 answers each of at most 40 tokens a step, exact
match, one update a step, no KL term; TRL as it comes and without gradient checkpointing, on the same CPU without vLLM.

Ours is the whole product at work: the command line runs the job (rendering, metrics into the database, best and worst answers
kept to look at), the server stands in another process, HTTP between them. Counted is all training from the moment the model is
loaded to the last update, the reference's log-probabilities and all warming up included; `CPU` is of all processes. Contenders
take turns; medians.
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
sys.path.append(str(ROOT))
CONTENDERS = {
    "dpo": ("thinker", "trl", "trl, no checkpointing", "trl, reference beforehand"),
    "rl": ("thinker", "trl", "trl, no checkpointing"),
}
BATCH = {"dpo": 32, "rl": 16}
RATE, RANK, GROUP, LONGEST = 5e-4, 32, 8, 40
FIGURES = "TRL_METHODS_FIGURES"  # the environment variable that names the file for a contender's figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=list(CONTENDERS), nargs="*", default=list(CONTENDERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--trl", type=Path, required=True, help="the folder that TRL was installed into")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        {"dpo": trl_dpo, "rl": trl_rl}[options.method[0]](options.contender, Path.cwd(), options.steps)
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        try:
            prepare(work, options.steps)
            for method in options.method:
                results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS[method]}
                for _ in range(options.rounds):
                    for name, found in results.items():
                        found.append(run(method, name, work, options))
                        print(f"{method}, {name}: {found[-1]}", file=sys.stderr, flush=True)
                report(method, options.steps, results)
        finally:
            from peers import servers

            servers(work, end=True)


def prepare(work: Path, steps: int) -> None:
    """The rows, and the adapter that all begin with, as a run of ours leaves it."""

    demos = ROOT / "engine" / "data" / "demos"
    pairs = (demos / "piglatin.pairs.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (work / "pairs.jsonl").write_text("".join(pairs[: steps * BATCH["dpo"]]), encoding="utf-8")
    rows = [json.loads(line) for line in (demos / "piglatin.train.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [
        {"prompt": row["messages"][0]["content"], "answer": row["messages"][1]["content"]} for row in rows if row.get("kind") != "replay"
    ]
    (work / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    recipe = {**quiet("start", 12, 32, 5e-3), "data": {"demo": "piglatin"}}
    (work / "recipe.yaml").write_text(json.dumps(recipe))
    told = ours(work, {})
    (work / "start.json").write_text(json.dumps(told))


def quiet(name: str, steps: int, batch: int, rate: float) -> dict[str, Any]:
    """A recipe in which nothing is measured and nothing is saved before the end."""
    training = {"steps": steps, "batch_size": batch, "learning_rate": rate, "schedule": "constant", "warmup": 0.0, "grad_clip_norm": 1.0}
    return {
        "name": name,
        "base_model": "nano",
        "lora": {"rank": RANK},
        "training": training,
        "evaluation": {"proof": False, "eval_every": 0, "samples_every": 0, "skills": False},
        "checkpoints": {"every_steps": 0, "every_seconds": 0},
    }


def run(method: str, name: str, work: Path, options: argparse.Namespace) -> dict[str, float]:
    """One training in processes of its own. -> {wall_s, cpu_s, last}."""
    figures = work / f"figures-{time.time_ns()}.json"
    if name == "thinker":
        recipe = quiet(method, options.steps, BATCH[method], RATE) | {"method": method}
        recipe |= {"start": {"checkpoint": json.loads((work / "start.json").read_text())["job_id"] + "@12"}}
        if method == "dpo":
            recipe |= {"data": {"path": str(work / "pairs.jsonl"), "held_out_fraction": 0}, "dpo": {"beta": 0.1, "nll": 0.0}}
        else:
            recipe |= {"data": {"path": str(work / "prompts.jsonl"), "held_out_fraction": 0}}
            recipe |= {"rl": {"group_size": GROUP, "max_new_tokens": LONGEST, "loss": "importance_sampling"}}
        (work / "recipe.yaml").write_text(json.dumps(recipe))
        ours(work, {FIGURES: str(figures), "THINKER_EXECUTE": "trl_methods:noted"})
    else:
        environment = surroundings(work, options.trl) | {FIGURES: str(figures)}
        command = [sys.executable, __file__, "--trl", str(options.trl), "--method", method, "--steps", str(options.steps)]
        done = subprocess.run([*command, "--contender", name], env=environment, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(figures.read_text())


def surroundings(work: Path, site: Path | None = None) -> dict[str, str]:
    path = [str(Path(__file__).parent), str(ROOT), *([str(site)] if site else [])]
    quiet_ones = {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "HF_HOME": str(work / "hub"), "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **quiet_ones, "PYTHONPATH": os.pathsep.join(path), "THINKER_HOME": str(work / "home")}


def ours(work: Path, more: dict[str, str]) -> dict[str, Any]:
    """The command line carries a run out, to its end. -> what it says of it."""
    command = [sys.executable, "-P", "-m", "engine.cli", "train", "--recipe", str(work / "recipe.yaml"), "--json"]
    done = subprocess.run(command, env=surroundings(work) | more, cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"our run failed:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def noted(run: Any) -> str:
    """Our training loop, with the time from the loaded model to the last update."""
    from peers import cpu_of, servers

    from engine import paths
    from engine.training.loop import execute

    home = paths.home().parent
    report_metrics, say_stage = run.metrics, run.stage
    began: list[float] = []
    last: dict[str, float] = {}
    reached: list[float] = []

    def now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time() + sum(map(cpu_of, servers(home)))

    def stage(text: str) -> None:
        if not began and text.startswith("loading "):
            began.extend(now())
        say_stage(text)

    def metrics(step: int, values: dict[str, float]) -> None:
        if step and began:
            wall, cpu = now()
            reached.extend(values[name] for name in ("preference_loss", "reward") if name in values)
            last.update({"wall_s": wall - began[0], "cpu_s": cpu - began[1], "last": statistics.mean(reached[-5:])})
        report_metrics(step, values)

    run.metrics, run.stage = metrics, stage
    try:
        return execute(run)
    finally:
        Path(os.environ[FIGURES]).write_text(json.dumps(last))


def start_of(work: Path) -> Any:
    """The model with the adapter that all begin with."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from engine import models

    model = AutoModelForCausalLM.from_pretrained(models.nano_folder(), dtype=torch.float32)
    saved = json.loads((work / "start.json").read_text())["checkpoint"].rpartition("/")[2]
    [adapter] = (work / "home" / "checkpoints").glob(f"*/sampler_weights/{saved}")
    return PeftModel.from_pretrained(model, adapter, is_trainable=True), AutoTokenizer.from_pretrained(models.nano_folder())


def settings(name: str, work: Path, steps: int, method: str) -> dict[str, Any]:
    found = {
        "output_dir": str(work / "trl"), "max_steps": steps, "learning_rate": RATE, "lr_scheduler_type": "constant", "logging_steps": 1,
        "save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True, "seed": 0, "max_grad_norm": 1.0,
        "per_device_train_batch_size": BATCH[method] * (GROUP if method == "rl" else 1),
    }  # fmt: skip
    if name != "trl":
        found["gradient_checkpointing"] = False
    if name.endswith("beforehand"):
        found["precompute_ref_log_probs"] = True
    return found


def trl_dpo(name: str, work: Path, steps: int) -> None:
    """The script that TRL's documentation leads to."""
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer

    model, tokenizer = start_of(work)
    data = load_dataset("json", data_files=str(work / "pairs.jsonl"), split="train")

    def chat(row: dict[str, str]) -> dict[str, Any]:
        sides = {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
        return {"prompt": [{"role": "user", "content": row["prompt"]}], **sides}

    data = data.map(chat, remove_columns=data.column_names)
    arguments = DPOConfig(**settings(name, work, steps, "dpo"), beta=0.1)
    ahead = [0.0, 0.0]

    class Trainer(DPOTrainer):
        """Says how long the reference took, which is asked when the trainer is made."""

        def _precompute_ref_logps(self, *args: Any, **others: Any) -> Any:
            began, cpu = time.perf_counter(), time.process_time()
            found = super()._precompute_ref_logps(*args, **others)
            ahead[0] += time.perf_counter() - began
            ahead[1] += time.process_time() - cpu
            return found

    trainer = Trainer(model=model, args=arguments, train_dataset=data, processing_class=tokenizer)
    timed(trainer, "loss", *ahead)


def trl_rl(name: str, work: Path, steps: int) -> None:
    """The same for scores."""
    from datasets import load_dataset
    from trl import GRPOConfig, GRPOTrainer

    model, tokenizer = start_of(work)
    data = load_dataset("json", data_files=str(work / "prompts.jsonl"), split="train")
    data = data.map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})

    def right(completions: list[Any], answer: list[str], **others: Any) -> list[float]:
        return [float(said[0]["content"].strip() == wanted) for said, wanted in zip(completions, answer, strict=True)]

    lengths = {"num_generations": GROUP, "max_completion_length": LONGEST}
    arguments = GRPOConfig(**settings(name, work, steps, "rl"), **lengths)
    trainer = GRPOTrainer(model=model, reward_funcs=right, args=arguments, train_dataset=data, processing_class=tokenizer)
    timed(trainer, "reward")


def timed(trainer: Any, watched: str, wall: float = 0.0, spent: float = 0.0) -> None:
    """Trains, and notes what it took beside what was done before."""
    began, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    figures = {"wall_s": wall + time.perf_counter() - began, "cpu_s": spent + time.process_time() - cpu}
    reached = [entry[watched] for entry in trainer.state.log_history if watched in entry]
    Path(os.environ[FIGURES]).write_text(json.dumps({**figures, "last": statistics.mean(map(float, reached[-5:]))}))


def report(method: str, steps: int, results: dict[str, list[dict[str, float]]]) -> None:
    middle = {name: {key: statistics.median(one[key] for one in rounds) for key in rounds[0]} for name, rounds in results.items()}
    watched = "loss" if method == "dpo" else "reward"
    print(f"\n{method}: {steps} steps, medians of {len(next(iter(results.values())))} rounds\n")
    print(f"| | training, s | CPU s | {watched}, mean of the last 5 steps | wall, of ours | CPU, of ours |\n|---|---|---|---|---|---|")
    own = middle["thinker"]
    for name, one in middle.items():
        ratios = f"{one['wall_s'] / own['wall_s']:.2f} x | {one['cpu_s'] / own['cpu_s']:.2f} x"
        print(f"| {name} | {one['wall_s']:.1f} | {one['cpu_s']:.1f} | {one['last']:.3f} | {ratios} |")


if __name__ == "__main__":
    main()
