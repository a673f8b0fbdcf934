"""A real server in its own process, on loopback, with a real model; and small batches for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import httpx
import tinker
from tinker import types

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "engine" / "models" / "nano"
KEY = "tml-test-key-for-a-loopback-server"


class RunningServer:
    """`python -m engine.server`, started on construction and answering when that returns."""

    def __init__(self, folder: Path, *extra: str, port: int = 0, base_model: Path = NANO, env: dict[str, str] | None = None, limits=None):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "server.log"
        ready = folder / "ready.json"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "engine.server", "--base-model", str(base_model), "--name", "nano", "--port", str(port)]
        command += ["--checkpoints", str(folder / "checkpoints"), "--ready-file", str(ready), "--device", "cpu", *extra]
        environment = {**os.environ, "THINKER_SERVER_KEY": KEY, "PYTHONPATH": str(ROOT), **(env or {})}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, preexec_fn=limits)
        deadline = time.monotonic() + 60
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self.log.read_text())
            time.sleep(0.02)
        self.info = json.loads(ready.read_text())
        self.url: str = self.info["url"]
        self.port = int(self.url.rpartition(":")[2])

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def key(self) -> str:
        file = self.folder / "key"
        return file.read_text() if file.exists() else KEY

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url + "/api/v1/", headers={"X-API-Key": self.key}, timeout=30, trust_env=False)

    def client(self) -> tinker.ServiceClient:
        return tinker.ServiceClient(base_url=self.url, api_key=self.key)

    def checkpoint_folder(self, path: str) -> Path:
        run, kind, name = path.removeprefix("tinker://").split("/")
        return self.checkpoints / run.replace(":", ".") / kind / name

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(timeout=10)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                self.kill()


def text_tokens(text: str) -> list[int]:
    """nano's byte-level ids, by way of its own tokenizer file."""
    return _tokenizer().encode(text, add_special_tokens=False)


@cache
def _tokenizer():
    from engine.rendering import load_tokenizer

    return load_tokenizer(NANO)


def sft_datum(prompt: str, answer: str) -> types.Datum:
    """One supervised example: the prompt weighs 0, the answer 1; inputs and targets are shifted by one."""
    p, a = text_tokens(f"<|user|>{prompt}<|end|><|assistant|>"), text_tokens(f"{answer}<|end|>")
    tokens = p + a
    weights = [0.0] * (len(p) - 1) + [1.0] * len(a)
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": types.TensorData(data=tokens[1:], dtype="int64", shape=[len(tokens) - 1]),
            "weights": types.TensorData(data=weights, dtype="float32", shape=[len(tokens) - 1]),
        },
    )


WORDS = ["hello", "stream", "keyboard", "apple", "quiet", "string", "under", "basket", "chrome", "window", "engine", "thread"]


def batch(start: int = 0, size: int = 6) -> list[types.Datum]:
    """Rows of different lengths about real words."""
    rows: Sequence[str] = [WORDS[(start + i) % len(WORDS)] for i in range(size)]
    return [sft_datum(f"Pig Latin: {word}", f"{word[1:]}-{word[0]}ay") for word in rows]


def rl_datum(prompt: str, answer: str, logprobs: list[float], advantage: float) -> types.Datum:
    """One sampled answer with its sampler's log-probabilities; advantage 0 on the prompt."""
    p, a = text_tokens(f"<|user|>{prompt}<|end|><|assistant|>"), text_tokens(f"{answer}<|end|>")
    tokens = p + a
    pad = [0.0] * (len(p) - 1)
    n = len(tokens) - 1
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": types.TensorData(data=tokens[1:], dtype="int64", shape=[n]),
            "logprobs": types.TensorData(data=pad + logprobs[: len(a)], dtype="float32", shape=[n]),
            "advantages": types.TensorData(data=pad + [advantage] * len(a), dtype="float32", shape=[n]),
        },
    )
