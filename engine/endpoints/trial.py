"""Tries out what a server doesn't tell of itself: which losses it takes, and whether it trains all weights. Costs a few dozen tokens.

In a process of its own, for it needs the SDK (`apart`). Leaves nothing behind but an adapter that nobody saves.
"""

from __future__ import annotations

from typing import Any

from engine.endpoints import apart

LOSSES = ("cross_entropy", "importance_sampling", "ppo", "cispo", "dro", "gspo")
SECONDS = 300.0
_TOKENS = [1, 2, 3, 4]


def run(url: str, key: str, model: str) -> dict[str, Any]:
    """-> {losses: those it takes, full}. Raises EndpointError where nothing could be tried."""
    asked, advice = {"url": url, "key": key, "model": model}, "Try with another of its models."
    return apart.ask("engine.endpoints.trial", asked, SECONDS, "trying it out", advice=advice, where=model)


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


if __name__ == "__main__":
    apart.answer(lambda asked: _try(**asked))
