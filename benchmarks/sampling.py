"""Sampling on `nano`: ours against Hugging Face's `generate`, tokens a second and tokens a CPU second.

    python benchmarks/sampling.py [--rounds 5] [--tokens 128] [--model FOLDER] [--batches 1,16,128]

Two processes: this one holds `generate`, the plain sampler and the fast one, the other is
our server, asked by the official SDK over HTTP with a request for each row. The same prompts, the same number of new
tokens for all (stop=[], so no row ends early), greedy and at temperature 1. Each round runs all of them in turn, and the
median of the rounds counts, so that other programs on the machine slow all alike; ratios are medians of each round's own
ratio. CPU seconds are the process's (the server's own for the SDK). Leaves out: adapters, early stops and shared
prompts, which favour us.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WAYS = ("generate", "plain", "fast", "server")


def prompts_of(batch: int, vocab: int) -> list[list[int]]:
    """Distinct ones of 20 to 50 tokens."""
    pick = random.Random(batch)
    return [[pick.randrange(8, vocab) for _ in range(pick.randint(20, 50))] for _ in range(batch)]


class Bench:
    """All ways to sample, ready."""

    def __init__(self, folder: Path, home: Path, tokens: int):
        import psutil
        import tinker
        import torch
        from transformers import AutoModelForCausalLM

        from engine.server.decode import Decoder
        from engine.server.model import BaseModel
        from engine.server.sampler import Sampler
        from tests.server.harness import RunningServer

        self.tokens = tokens
        self.base = BaseModel(folder, "cpu", "float32")
        # A copy of its own for `generate`: ours has a look-up for adapters in each layer.
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
        torch.utils.deterministic.fill_uninitialized_memory = False
        self.plain, self.fast = Sampler(self.base), Decoder(self.base)
        self.server = RunningServer(home, base_model=folder)
        self.process = psutil.Process(self.server.process.pid)
        self.service = tinker.ServiceClient(base_url=self.server.url, api_key=self.server.key)
        self.sdk = self.service.create_sampling_client(base_model="nano").result()

    def ways(self, batch: int, temperature: float) -> dict[str, Callable[[], int]]:
        """Each does the same work. -> the number of tokens that came out."""
        import torch
        from tinker import types

        from engine.server.sampler import SampleJob

        prompts = prompts_of(batch, self.base.vocab_size)
        width = max(map(len, prompts))
        tokens, mask = torch.zeros(batch, width, dtype=torch.long), torch.zeros(batch, width, dtype=torch.long)
        for i, prompt in enumerate(prompts):
            tokens[i, width - len(prompt) :], mask[i, width - len(prompt) :] = torch.tensor(prompt), 1
        jobs = [SampleJob(prompt, max_tokens=self.tokens, temperature=temperature) for prompt in prompts]
        params = types.SamplingParams(max_tokens=self.tokens, temperature=temperature, stop=[])
        chance = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}

        def generate() -> int:
            out = self.model.generate(
                input_ids=tokens, attention_mask=mask, max_new_tokens=self.tokens, min_new_tokens=self.tokens, pad_token_id=0, **chance
            )
            return out[:, width:].numel()

        def server() -> int:
            futures = [self.sdk.sample(types.ModelInput.from_ints(prompt), 1, params) for prompt in prompts]
            return sum(len(future.result().sequences[0].tokens) for future in futures)

        def ours(sampler) -> int:
            return sum(len(sequences[0][0]) for sequences, _ in sampler.sample(None, jobs))

        return {"generate": generate, "plain": lambda: ours(self.plain), "fast": lambda: ours(self.fast), "server": server}

    def measure(self, batch: int, temperature: float, rounds: int) -> dict[str, dict[str, list[float]]]:
        """-> way: {"wall": tokens a second of each round, "cpu": tokens a CPU second of each round}."""
        found: dict[str, dict[str, list[float]]] = {way: {"wall": [], "cpu": []} for way in WAYS}
        ways = self.ways(batch, temperature)
        for _ in range(rounds + 1):
            for way, work in ways.items():
                cpu, wall = self._cpu(way), time.perf_counter()
                count = work()
                wall, cpu = time.perf_counter() - wall, self._cpu(way) - cpu
                assert count == batch * self.tokens
                found[way]["wall"].append(count / wall)
                found[way]["cpu"].append(count / max(cpu, 1e-3))
        # The first round warms up.
        return {way: {name: values[1:] for name, values in series.items()} for way, series in found.items()}

    def close(self) -> None:
        self.service.close("success").result(timeout=20)
        self.server.stop()

    def _cpu(self, way: str) -> float:
        if way != "server":
            return time.process_time()
        times = self.process.cpu_times()
        return times.user + times.system


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batches", default="1,16,128")
    parser.add_argument("--model", type=Path, default=ROOT / "engine" / "models" / "nano")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        bench = Bench(options.model, Path(home), options.tokens)
        try:
            print(f"load average before: {os.getloadavg()[0]:.1f}; {os.cpu_count()} CPUs; {options.tokens} new tokens a row\n")
            print(
                "| batch | temperature | "
                + " | ".join(f"{way} tok/s (tok/CPU s)" for way in WAYS)
                + " | fast / generate | server / generate |"
            )
            print("|---|---|" + "---|" * (len(WAYS) + 2))
            for batch in map(int, options.batches.split(",")):
                for temperature in (0.0, 1.0):
                    found = bench.measure(batch, temperature, options.rounds)
                    cells = [f"{statistics.median(found[way]['wall']):,.0f} ({statistics.median(found[way]['cpu']):,.0f})" for way in WAYS]
                    for way in ("fast", "server"):
                        wall, cpu = (
                            statistics.median(a / b for a, b in zip(found[way][kind], found["generate"][kind], strict=True))
                            for kind in ("wall", "cpu")
                        )
                        cells.append(f"{wall:.2f} ({cpu:.2f})")
                    print(f"| {batch} | {temperature:g} | " + " | ".join(cells) + " |", flush=True)
            print(f"\nload average after: {os.getloadavg()[0]:.1f}")
        finally:
            bench.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
