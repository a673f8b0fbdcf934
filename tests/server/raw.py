"""The wire without the SDK: single requests over plain HTTP, repeated, reordered or malformed as a test needs them."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
from tinker.proto import tinker_public_pb2 as pb

from tests.server.harness import RunningServer, batch

ADAM = {"learning_rate": 3e-3, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "grad_clip_norm": 1.0}
# AdamW's first step with so large an eps is lr x gradient / eps: a gradient that was counted twice shows in the weights.
LINEAR = {"learning_rate": 1.0, "beta1": 0.9, "beta2": 0.95, "eps": 1e3}


def datum(tokens: list[int], targets: list[int] | None = None, weights: list[float] | None = None) -> pb.Datum:
    """A cross-entropy datum as it travels."""
    targets = [*tokens[1:], 1] if targets is None else targets
    weights = [1.0] * len(tokens) if weights is None else weights
    message = pb.Datum()
    message.model_input.add().encoded_text.tokens = np.asarray(tokens, "<i4").tobytes()
    dense(message, "target_tokens", np.asarray(targets, "<i8"))
    dense(message, "weights", np.asarray(weights, "<f4"))
    return message


def dense(message: pb.Datum, name: str, values: np.ndarray, shape: tuple[int, ...] | None = None) -> None:
    """Sets one input; `shape` may lie."""
    tensor = message.loss_fn_inputs[name]
    tensor.dtype = {"f": pb.DTYPE_FLOAT32, "i": pb.DTYPE_INT64}[values.dtype.kind]
    tensor.dense = values.tobytes()
    del tensor.shape[:]
    tensor.shape.extend(values.shape if shape is None else shape)


def rows(start: int = 0, size: int = 6) -> list[pb.Datum]:
    """The harness's batch as it travels."""
    found = []
    for row in batch(start, size):
        inputs = row.loss_fn_inputs
        found.append(datum(row.model_input.to_ints(), list(inputs["target_tokens"].data), list(inputs["weights"].data)))
    return found


def training_body(model_id: str, seq: int, data: list[pb.Datum], loss_fn: str = "cross_entropy", **more: Any) -> bytes:
    """A forward_backward request."""
    config = more.pop("config", {})
    message = pb.ForwardBackwardRequest(model_id=model_id, seq_id=seq, data=data, loss_fn=loss_fn, **more)
    for name, value in config.items():
        message.loss_fn_config[name] = value
    return message.SerializeToString()


class Session:
    """One session, opened on construction; requests are sent only when a test says so."""

    def __init__(self, server: RunningServer):
        self.http = server.http()
        self.id = self.ok("create_session", {"tags": []})["session_id"]
        self._models = 0

    def post(self, path: str, body: dict[str, Any]) -> httpx.Response:
        return self.http.post(path, json=body)

    def ok(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        reply = self.post(path, body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def train(self, model_id: str, seq: int, data: list[pb.Datum], loss_fn: str = "cross_entropy", **more: Any) -> httpx.Response:
        return self.http.post("forward_backward", content=training_body(model_id, seq, data, loss_fn, **more))

    def step(self, model_id: str, seq: int, adam: dict[str, float] = ADAM) -> str:
        return self.ok("optim_step", {"model_id": model_id, "seq_id": seq, "adam_params": adam})["request_id"]

    def save(self, model_id: str, seq: int, name: str, **more: Any) -> httpx.Response:
        return self.post("save_weights", {"model_id": model_id, "seq_id": seq, "path": name, **more})

    def retrieve(self, request_id: str) -> httpx.Response:
        return self.post("retrieve_future", {"request_id": request_id})

    def result(self, request_id: str) -> dict[str, Any]:
        """A JSON result, an error's text included."""
        reply = self.retrieve(request_id)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def output(self, reply: httpx.Response) -> pb.ForwardBackwardOutput:
        """What a posted forward_backward gave in the end."""
        assert reply.status_code == 200, reply.text
        found = self.retrieve(reply.json()["request_id"])
        assert found.headers["content-type"] == "application/x-protobuf", found.text
        message = pb.ForwardBackwardOutput()
        message.ParseFromString(found.content)
        return message

    def loss(self, reply: httpx.Response) -> float:
        return self.output(reply).metrics["loss:sum"]

    def model(self, seed: int = 1, rank: int = 4) -> str:
        """A new run's id."""
        reply = self.ok("create_model", self.model_body(seed=seed, rank=rank))
        self.result(reply["request_id"])
        return reply["model_id"]

    def model_body(self, base_model: str = "nano", **lora: Any) -> dict[str, Any]:
        self._models += 1
        return {"session_id": self.id, "model_seq_id": self._models, "base_model": base_model, "lora_config": {"rank": 4, **lora}}

    def sampler(self, seq: int = 0, **which: str) -> str:
        """A sampling session's id; of the base by default."""
        body = {"session_id": self.id, "sampling_session_seq_id": seq, **(which or {"base_model": "nano"})}
        return self.ok("create_sampling_session", body)["sampling_session_id"]

    def sample_body(self, sampler_id: str, seq: int, tokens: list[int], n: int = 1, **params: Any) -> dict[str, Any]:
        chunks = [{"type": "encoded_text", "tokens": tokens}]
        return {
            "sampling_session_id": sampler_id,
            "seq_id": seq,
            "prompt": {"chunks": chunks},
            "num_samples": n,
            "sampling_params": {"max_tokens": 4, **params},
        }

    def close(self) -> None:
        self.http.post(f"sessions/{self.id}/finish", json={"reason": {"type": "success"}})
        self.http.close()
