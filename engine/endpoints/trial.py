"""Tries out what a server doesn't tell of itself: which losses it takes, and whether it trains all weights. Costs a few dozen tokens.

A process of its own, for it needs the SDK: `python -m engine.endpoints.trial` reads {url, key, model} as JSON from its input and writes
what it found as the last line of its output. Leaves nothing behind but an adapter that nobody saves.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from engine.errors import EndpointError

LOSSES = ("cross_entropy", "importance_sampling", "ppo", "cispo", "dro", "gspo")
SECONDS = 300.0
_TOKENS = [1, 2, 3, 4]


def run(url: str, key: str, model: str, seconds: float = SECONDS) -> dict[str, Any]:
    """-> {losses: those it takes, full}. Raises EndpointError where nothing could be tried."""
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")])), "TINKER_TELEMETRY": "0"}
    asked = json.dumps({"url": url, "key": key, "model": model})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "engine.endpoints.trial"],
            input=asked,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=env,
            cwd=root,
        )
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        raise EndpointError("trying it out took too long", "Try again when the server is less busy.", where=model) from error
    except (ValueError, IndexError, OSError) as error:
        raise EndpointError(
            "trying it out failed before anything was asked", "Run the command doctor, and see to what is missing."
        ) from error
    if found.get("error"):
        raise EndpointError(
            f"trying it out failed: {found['error'].replace(key, '***')[:300]}", "Try with another of its models.", where=model
        )
    return found


def _try(url: str, key: str, model: str) -> dict[str, Any]:
    from engine.endpoints.client import load_sdk

    tinker = load_sdk()
    service = tinker.ServiceClient(base_url=url, api_key=key, user_metadata={"purpose": "trial"})
    try:
        training = service.create_lora_training_client(model, rank=1).result(timeout=SECONDS / 2)
        taken = [loss for loss in LOSSES if _takes(training, loss)]
        return {"losses": taken, "full": _trains_all(service, model)}
    finally:
        service.close("success").result(timeout=5)


def _takes(training: Any, loss: str) -> bool:
    from tinker import types

    n = len(_TOKENS) - 1
    inputs = {"target_tokens": types.TensorData(data=_TOKENS[1:], dtype="int64", shape=[n])}
    for name in ("weights",) if loss == "cross_entropy" else ("logprobs", "advantages"):
        inputs[name] = types.TensorData(data=[1.0] * n if name == "weights" else [-1.0] * n, dtype="float32", shape=[n])
    row = types.Datum(model_input=types.ModelInput.from_ints(_TOKENS[:-1]), loss_fn_inputs=inputs)
    try:
        training.forward_backward([row], loss).result(timeout=60)
    except Exception:
        return False
    return True


def _trains_all(service: Any, model: str) -> bool:
    """A server that doesn't know the request may make an adapter instead: what came of it is looked at."""
    from engine.endpoints.full import create_full_training_client

    try:
        info = create_full_training_client(service, model).result(timeout=120).get_info()
        return info.is_lora is False
    except Exception:
        return False


def main() -> int:
    """The process's own work."""
    asked = json.loads(sys.stdin.read())
    try:
        found = _try(asked["url"], asked["key"], asked["model"])
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found), flush=True)
    # Threads of the SDK that still wait for an answer don't hold this up.
    os._exit(0)


if __name__ == "__main__":
    main()
