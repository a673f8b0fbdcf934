"""Training speed against TRL's SFTTrainer, on the same work.

    python benchmarks/sft.py [--model nano|5m|50m] [--steps 30] [--rounds 3]        (needs: pip install trl)

Same model, LoRA rank 32 from the same initial weights, AdamW, constant learning rate, batches of the same rows in the
same order (packing makes its own), loss on the answers only. Each contender runs in processes of its own, ours as a
server with the official SDK as its client, HTTP and protobuf included. Counted are real tokens, never padding, after
two steps of warming up; `per cpu-s` is by CPU seconds of all its processes, the steadier figure on a shared machine.
Contenders take turns, round by round; medians are reported. Leaves out: loading and start-up.
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
sys.path.insert(0, str(ROOT))
CONTENDERS = ("trl default", "trl no checkpointing", "trl packing", "trl packing float32", "thinker reference", "thinker")
SIZES = {
    "5m": {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "intermediate_size": 768, "vocab_size": 264},
    "50m": {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8, "intermediate_size": 1536, "vocab_size": 16384},
}
WARM_UP = 2
LEARNING_RATE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano", choices=["nano", *SIZES])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS))
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        job = json.loads((options.work / "job.json").read_text())
        run = run_trl if options.contender.startswith("trl") else run_thinker
        print(json.dumps(run(options.contender, job)))
        return
    with tempfile.TemporaryDirectory() as work:
        job = prepare(options.model, options.steps, Path(work))
        results: dict[str, list[dict[str, float]]] = {name: [] for name in options.only}
        for _ in range(options.rounds):
            for name in options.only:
                results[name].append(in_a_process(name, Path(work)))
                print(f"{name}: {results[name][-1]}", file=sys.stderr, flush=True)
    report(options.model, job, results)


def prepare(model: str, steps: int, work: Path) -> dict[str, Any]:
    """Model, initial adapter and rows on disk, so that all contenders begin alike."""
    import numpy as np
    import torch

    from engine import models
    from engine.server.checkpoints import CheckpointInfo, CheckpointPath, CheckpointStore
    from engine.server.model import BaseModel, LoraSpec

    torch.manual_seed(0)
    folder = models.nano_folder() if model == "nano" else make_model(SIZES[model], work / "model")
    base = BaseModel(folder, "cpu", "float32")
    spec = LoraSpec(32, train_unembed=False)
    path = CheckpointPath("bench", "weights", "start")
    info = CheckpointInfo(str(path), "bench", 32, True, True, False, 0, time.time())
    CheckpointStore(work / "checkpoints").save(path, info, base.new_adapter(spec, 0), None)
    if model == "50m":
        draw, batch = np.random.default_rng(0), 8
        lengths = np.clip(np.exp(draw.normal(4.9, 0.7, steps * batch)).astype(int), 20, 442)
        rows = [(draw.integers(8, 16384, n).tolist(), [0.0] * (n // 3) + [1.0] * (n - n // 3)) for n in lengths]
    else:
        batch, rows = 32, demo_rows(steps * 32)
    job = {"folder": str(folder), "steps": steps, "batch": batch, "rows": rows, "work": str(work)}
    (work / "job.json").write_text(json.dumps(job))
    return job


def demo_rows(count: int) -> list[tuple[list[int], list[float]]]:
    """The demo's rows, rendered: (tokens, weights)."""
    from engine import models
    from engine.data import load_data
    from engine.recipe import Recipe
    from engine.rendering import get_renderer, load_tokenizer
    from engine.training.schedule import rows_of_step

    renderer = get_renderer("auto", load_tokenizer(models.nano_folder()))
    data = load_data(Recipe.make({"data": {"demo": "piglatin"}}))
    rendered = [row for example in data.train for row in renderer.examples(example.messages)]
    return [(rendered[i].tokens, rendered[i].weights) for i in rows_of_step(0, count, len(rendered), 0)]


def make_model(size: dict[str, int], folder: Path) -> Path:
    """A random Qwen3 of that size, with nano's tokenizer."""
    import shutil

    from transformers import Qwen3Config, Qwen3ForCausalLM

    from engine import models

    heads = size["num_attention_heads"]
    config = Qwen3Config(
        **size, num_key_value_heads=heads, head_dim=size["hidden_size"] // heads, max_position_embeddings=1024, tie_word_embeddings=True
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(models.nano_folder() / file, folder / file)
    return folder


def in_a_process(name: str, work: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--contender", name, "--work", str(work)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=work)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def run_thinker(name: str, job: dict[str, Any]) -> dict[str, float]:
    """Our server in a process of its own, driven by the official SDK from this one."""
    import psutil

    work = Path(job["work"])
    ready = work / f"ready-{time.time_ns()}.json"
    command = [sys.executable, "-m", "engine.server", "--base-model", job["folder"], "--name", "bench", "--port", "0"]
    command += ["--checkpoints", str(work / "checkpoints"), "--ready-file", str(ready), "--device", "cpu"]
    command += ["--reference"] if name.endswith("reference") else []
    key = "tml-benchmark-on-loopback-only"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "THINKER_SERVER_KEY": key, "TINKER_TELEMETRY": "0"}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.environ["TINKER_TELEMETRY"] = "0"
    try:
        while not ready.exists():
            time.sleep(0.05)
        import tinker

        service = tinker.ServiceClient(base_url=json.loads(ready.read_text())["url"], api_key=key)
        client = service.create_training_client_from_state("tinker://bench/weights/start").result()
        return _train(client, job, psutil.Process(server.pid))
    finally:
        server.terminate()
        server.wait(20)


def _train(client: Any, job: dict[str, Any], server: Any) -> dict[str, float]:
    from tinker import types

    def cpu() -> float:
        times = server.cpu_times()
        return times.user + times.system + time.process_time()

    batches = [_datums(job["rows"][i : i + job["batch"]], types) for i in range(0, len(job["rows"]), job["batch"])]
    params = types.AdamParams(learning_rate=LEARNING_RATE, beta1=0.9, beta2=0.95, eps=1e-8, grad_clip_norm=1.0)
    losses, futures = [], []
    for step, (batch, _) in enumerate(batches):
        if step == WARM_UP:
            losses = [future.result().metrics["loss:sum"] for future in futures]
            started, cpu_started = time.perf_counter(), cpu()
        futures.append(client.forward_backward(batch, "cross_entropy"))
        update = client.optim_step(params)
    update.result()
    wall, spent = time.perf_counter() - started, cpu() - cpu_started
    losses = [future.result().metrics["loss:sum"] for future in futures]
    return _figures(sum(tokens for _, tokens in batches[WARM_UP:]), wall, spent, losses, server.memory_info().rss)


def _datums(rows: list, types: Any) -> tuple[list[Any], int]:
    total = sum(sum(weights[1:]) for _, weights in rows)
    datums = []
    for tokens, weights in rows:
        n = len(tokens) - 1
        inputs = {
            "target_tokens": types.TensorData(data=tokens[1:], dtype="int64", shape=[n]),
            "weights": types.TensorData(data=[w / total for w in weights[1:]], dtype="float32", shape=[n]),
        }
        datums.append(types.Datum(model_input=types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=inputs))
    return datums, sum(len(tokens) for tokens, _ in rows)


def run_trl(name: str, job: dict[str, Any]) -> dict[str, float]:
    """SFTTrainer as it comes, or with gradient checkpointing off, or packing too, or that without its bfloat16."""
    import torch
    import transformers
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    transformers.logging.set_verbosity_error()
    work = Path(job["work"])
    model = AutoModelForCausalLM.from_pretrained(job["folder"], dtype=torch.float32)
    model = PeftModel.from_pretrained(model, work / "checkpoints" / "bench" / "weights" / "start", is_trainable=True)
    rows = job["rows"]
    labels = [[t if w else -100 for t, w in zip(tokens, weights, strict=True)] for tokens, weights in rows]
    data = Dataset.from_dict({"input_ids": [tokens for tokens, _ in rows], "labels": labels})
    extra: dict[str, Any] = {} if name == "trl default" else {"gradient_checkpointing": False}
    if name.endswith("float32"):
        extra["bf16"] = False
    if "packing" in name:
        extra |= {"packing": True, "max_length": 512, "per_device_train_batch_size": max(1, job["batch"] * 42 // 512)}
    settings = {
        "output_dir": str(work / "trl"), "per_device_train_batch_size": job["batch"], "num_train_epochs": 1, "max_length": 512,
        "learning_rate": LEARNING_RATE, "lr_scheduler_type": "constant", "adam_beta1": 0.9, "adam_beta2": 0.95, "max_grad_norm": 1.0,
        "report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_steps": 1, "use_cpu": True, "seed": 0,
    }  # fmt: skip

    class Clock(TrainerCallback):
        """Begins to count once the first two steps are over."""

        def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
            if state.global_step == WARM_UP:
                self.started, self.cpu = time.perf_counter(), time.process_time()
            self.ended, self.cpu_ended = time.perf_counter(), time.process_time()

    class InOrder(SFTTrainer):
        """The same rows in the same order as everybody else."""

        def _get_train_sampler(self, *args: Any, **others: Any) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    clock = Clock()
    trainer = InOrder(
        model=model,
        args=SFTConfig(**{**settings, **extra}),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(job["folder"]),
        callbacks=[clock],
    )
    steps = trainer.train().global_step
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    tokens = sum(len(row) for row, _ in rows) * (steps - WARM_UP) / steps
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return _figures(tokens, clock.ended - clock.started, clock.cpu_ended - clock.cpu, losses, peak)


def _figures(tokens: float, wall: float, cpu: float, losses: list[float], memory: float) -> dict[str, float]:
    """Loss is the mean of the last five steps; memory in MB."""
    return {"per_cpu_s": tokens / cpu, "per_s": tokens / wall, "loss": statistics.mean(losses[-5:]), "memory_mb": memory / 1e6}


def report(model: str, job: dict[str, Any], results: dict[str, list[dict[str, float]]]) -> None:
    tokens = [len(row) for row, _ in job["rows"]]
    mean = sum(tokens) / len(tokens)
    print(f"\n{model}: {len(tokens)} rows of {mean:.0f} tokens on average, {job['steps']} steps of {job['batch']} rows\n")
    print("| | real tokens per cpu-s | real tokens/s | loss at the end | memory, MB |\n|---|---|---|---|---|")
    for name, rounds in results.items():
        middle = {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}
        print(f"| {name} | {middle['per_cpu_s']:,.0f} | {middle['per_s']:,.0f} | {middle['loss']:.4f} | {middle['memory_mb']:,.0f} |")
    if "thinker" in results:
        own = statistics.median(figures["per_cpu_s"] for figures in results["thinker"])
        for name, rounds in results.items():
            if name != "thinker":
                print(f"\nthinker / {name}: {own / statistics.median(figures['per_cpu_s'] for figures in rounds):.2f} x", end="")
        print()


if __name__ == "__main__":
    main()
