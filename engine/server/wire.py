"""Bytes of the Tinker wire to arrays and back. Knows nothing of models.

`forward_backward` requests and replies, and replies of `asample`, are protobuf (the classes ship in the official
SDK); everything else is JSON. Tensors travel as raw little-endian bytes; a reply packs one array per datum back to
back, with byte offsets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import zstandard
from google.protobuf.message import DecodeError
from tinker.proto import tinker_public_pb2 as pb

from engine.errors import DataError

if TYPE_CHECKING:
    from engine.server.logprobs import Scores
    from engine.server.requests import TensorBody

_DTYPES = {pb.DTYPE_FLOAT32: np.dtype("<f4"), pb.DTYPE_INT64: np.dtype("<i8"), pb.DTYPE_INT32: np.dtype("<i4")}
MAX_TARGETS = 4_000_000  # cells of target_prompt_logprobs
MAX_ELEMENTS = 64_000_000  # of one request, unpacked: as many as fit into the largest body


@dataclass
class Datum:
    """One training example: `tokens` int64 [T], and named inputs, each [T] or [T, K]."""

    tokens: np.ndarray
    inputs: dict[str, np.ndarray]


@dataclass
class TrainRequest:
    """A decoded forward_backward (or forward) request."""

    model_id: str
    seq_id: int
    data: list[Datum]
    loss_fn: str
    loss_config: dict[str, float | str]
    forward_only: bool


def decompress(body: bytes, encoding: str | None, limit: int) -> bytes:
    """The body without its content encoding, at most `limit` bytes. Raises DataError."""
    if encoding in (None, "", "identity"):
        return body
    if encoding != "zstd":
        raise DataError(f"content encoding {encoding!r} isn't understood", "Send zstd or no encoding.")
    try:
        with zstandard.ZstdDecompressor().stream_reader(body) as reader:
            plain = reader.read(limit + 1)
    except zstandard.ZstdError as error:
        raise DataError(f"the body isn't valid zstd: {error}", "Send the request again.") from error
    if len(plain) > limit:
        raise DataError(f"the body unpacks to more than {limit:,} bytes", "Send smaller batches.")
    return plain


def read_train_header(body: bytes) -> pb.ForwardBackwardRequest:
    """The parsed message, its tensors still bytes. Raises DataError."""
    message = pb.ForwardBackwardRequest()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise DataError("the body isn't a ForwardBackwardRequest", "Use the official SDK, or its protobuf classes.") from error
    return message


def read_train_request(message: pb.ForwardBackwardRequest) -> TrainRequest:
    """Arrays from a parsed message. Raises DataError that names the datum and the field."""
    data, elements = [], 0
    for index, datum in enumerate(message.data):
        where = f"datum {index}"
        for name, tensor in datum.loss_fn_inputs.items():
            # A few bytes of sparse rows can claim any shape, so shapes are added up before anything is unpacked.
            elements += _size(tensor, f"{where}, {name}")
        if elements > MAX_ELEMENTS:
            raise DataError(f"the inputs hold more than {MAX_ELEMENTS:,} values", "Send smaller batches.", where=where)
        chunks = []
        for chunk in datum.model_input:
            if not chunk.HasField("encoded_text"):
                raise DataError("only text chunks are supported here", "Send tokens, without images or audio.", where=where)
            chunks.append(_from_bytes(chunk.encoded_text.tokens, np.dtype("<i4"), f"{where}, tokens"))
        tokens = np.concatenate(chunks).astype(np.int64) if chunks else np.zeros(0, np.int64)
        inputs = {name: _tensor(tensor, f"{where}, {name}") for name, tensor in datum.loss_fn_inputs.items()}
        data.append(Datum(tokens, inputs))
    config: dict[str, float | str] = dict(message.loss_fn_config)
    for name, value in message.loss_fn_config_v2.items():
        config[name] = value.text if value.HasField("text") else value.number
    return TrainRequest(message.model_id, message.seq_id, data, message.loss_fn, config, message.forward_only)


def write_train_output(outputs: list[dict[str, np.ndarray]], metrics: dict[str, float]) -> bytes:
    """`outputs`: one dict a datum, e.g. {"logprobs": float32 [T] or [T, K]}; metric keys are `name:reduction`."""
    reply = pb.ForwardBackwardOutput(loss_fn_output_type="ArrayRecord")
    for start, stop in _runs_of_equal_width(outputs):
        record = reply.loss_fn_outputs.add()
        record.num_datums, record.type_tag = stop - start, "ArrayRecord"
        for name in outputs[start]:
            arrays = [np.ascontiguousarray(row[name], np.float32) for row in outputs[start:stop]]
            field = record.fields[name]
            field.dtype = pb.DTYPE_FLOAT32
            field.data = b"".join(array.tobytes() for array in arrays)
            field.offsets = np.concatenate([[0], np.cumsum([array.nbytes for array in arrays])]).astype("<i8").tobytes()
            field.trailing_shape.extend(arrays[0].shape[1:])
    for name, value in metrics.items():
        reply.metrics[name] = value
    return reply.SerializeToString()


def write_sample_response(
    sequences: list[tuple[list[int], list[float], bool]],
    prompt_logprobs: list[float] | None,
    scores: Scores | None = None,
    targets: TensorBody | None = None,
) -> bytes:
    """`sequences`: (token ids, their logprobs, stopped by itself); `prompt_logprobs`: one a prompt token, the first NaN.

    `scores`: what else was asked for; `targets`: the request's, whose layout the answer takes.
    """
    reply = pb.SampleResponse()
    for tokens, logprobs, stopped in sequences:
        sequence = reply.sequences.add()
        sequence.stop_reason = pb.STOP_REASON_STOP if stopped else pb.STOP_REASON_LENGTH
        sequence.tokens = np.asarray(tokens, "<i4").tobytes()
        sequence.logprobs = np.asarray(logprobs, "<f4").tobytes()
    if prompt_logprobs is not None:
        reply.prompt_logprobs = np.asarray(prompt_logprobs, "<f4").tobytes()
    if scores is not None:
        _write_scores(reply, scores, targets)
    return reply.SerializeToString()


def read_targets(body: TensorBody, rows: int) -> np.ndarray:
    """The token ids of `target_prompt_logprobs`, int64 [rows, K], -1 where none is asked for. Raises DataError."""
    where, shape = "target_prompt_logprobs", tuple(body.shape or [len(body.data)])
    # Sparse rows of a few bytes can claim any shape, so it is held against the prompt before anything is unpacked.
    if body.dtype != "int64" or len(shape) != 2 or shape[0] != rows or not 0 <= shape[1] * max(rows, 1) <= MAX_TARGETS:
        advice = "Row i is for token i + 1 of the prompt."
        raise DataError(f"token ids have to be an int64 tensor of the shape [{rows}, K]", advice, where=where)
    try:
        values = np.asarray(body.data, np.int64)
        if body.sparse_crow_indices is None:
            return values.reshape(shape)
        crow, col = (np.asarray(row, np.int64) for row in (body.sparse_crow_indices, body.sparse_col_indices or []))
    except (ValueError, OverflowError) as error:
        raise DataError("the shape doesn't fit the values", "Make shape and data agree.", where=where) from error
    return _spread(values, crow, col, shape, where, empty=-1)


def _write_scores(reply: pb.SampleResponse, scores: Scores, targets: TensorBody | None) -> None:
    if scores.topk_prompt is not None:
        _write_cells(reply.topk_prompt_logprobs, *scores.topk_prompt)
    for sequence, cells in zip(reply.sequences, scores.topk_samples or [], strict=bool(scores.topk_samples)):
        _write_cells(sequence.topk_sampled_logprobs, *cells)
    if scores.alternatives is not None:
        for tensor, values in zip((reply.prompt_alt_tokens.tokens, reply.prompt_alt_tokens.logprobs), scores.alternatives, strict=True):
            tensor.dtype = pb.DTYPE_INT32 if values.dtype.kind == "i" else pb.DTYPE_FLOAT32
            tensor.shape.extend(values.shape)
            tensor.dense = values.tobytes()
    if scores.targets is not None and targets is not None:
        tensor = reply.target_prompt_logprobs
        tensor.dtype = pb.DTYPE_FLOAT32
        tensor.shape.extend(scores.targets.shape)
        if targets.sparse_crow_indices is None:
            tensor.dense = scores.targets.tobytes()
            return
        crow, col = np.asarray(targets.sparse_crow_indices, "<i8"), np.asarray(targets.sparse_col_indices, "<i8")
        row = np.repeat(np.arange(len(crow) - 1), np.diff(crow))
        tensor.sparse_csr.values = scores.targets[row, col].astype("<f4").tobytes()
        tensor.sparse_csr.crow_indices, tensor.sparse_csr.col_indices = crow.tobytes(), col.tobytes()


def _write_cells(message: pb.TopkLogprobs, ids: np.ndarray, logprobs: np.ndarray) -> None:
    message.length, message.k = ids.shape
    message.token_ids, message.logprobs = ids.astype("<i4").tobytes(), logprobs.astype("<f4").tobytes()


def _runs_of_equal_width(outputs: list[dict[str, np.ndarray]]) -> list[tuple[int, int]]:
    """A record is rectangular past its first axis, so datums are grouped while their trailing shapes agree."""
    shapes = [{name: np.shape(array)[1:] for name, array in row.items()} for row in outputs]
    edges = [i for i in range(1, len(shapes)) if shapes[i] != shapes[i - 1]]
    bounds = [0, *edges, len(shapes)] if shapes else []
    return list(pairwise(bounds))


def _from_bytes(raw: bytes, dtype: np.dtype, where: str) -> np.ndarray:
    if len(raw) % dtype.itemsize:
        raise DataError(f"{len(raw)} bytes are no whole number of {dtype.name} values", "Send the request again.", where=where)
    return np.frombuffer(raw, dtype)


def _size(tensor: pb.Tensor, where: str) -> int:
    """How many values the tensor's shape claims."""
    shape = list(tensor.shape)
    # Each axis by itself, for beside an axis of 0 the product says nothing.
    if len(shape) > 2 or any(not 0 <= n <= MAX_ELEMENTS for n in shape):
        raise DataError(f"the shape {shape} is out of bounds", "Send one or two axes, and smaller batches.", where=where)
    return math.prod(shape)


def _tensor(tensor: pb.Tensor, where: str) -> np.ndarray:
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise DataError(f"tensor type {tensor.dtype} isn't supported", "Send float32 or int64.", where=where)
    shape = tuple(int(n) for n in tensor.shape)
    if tensor.HasField("sparse_csr"):
        return _from_csr(tensor.sparse_csr, dtype, shape, where)
    values = _from_bytes(tensor.dense, dtype, where)
    if not shape:
        return values
    if values.size != math.prod(shape):
        raise DataError(f"the shape {list(shape)} doesn't fit {values.size} values", "Make shape and data agree.", where=where)
    return values.reshape(shape)


def _from_csr(csr: pb.SparseCsr, dtype: np.dtype, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Compressed sparse rows, expanded: row r holds values[crow[r]:crow[r+1]] at columns col[...]."""
    values = _from_bytes(csr.values, dtype, where)
    crow = _from_bytes(csr.crow_indices, np.dtype("<i8"), where)
    col = _from_bytes(csr.col_indices, np.dtype("<i8"), where)
    return _spread(values, crow, col, shape, where)


def _spread(values: np.ndarray, crow: np.ndarray, col: np.ndarray, shape: tuple[int, ...], where: str, empty: int = 0) -> np.ndarray:
    sound = (
        len(shape) == 2
        and crow.size == shape[0] + 1
        and values.size == col.size
        and crow.size > 0
        and crow[0] == 0
        and crow[-1] == values.size
        and (np.diff(crow) >= 0).all()
        and (col.size == 0 or (col.min() >= 0 and col.max() < shape[1]))
    )
    if not sound:
        raise DataError("the sparse rows (CSR) contradict their shape", "Make indices, values and shape agree.", where=where)
    dense = np.full(shape, empty, values.dtype)
    dense[np.repeat(np.arange(shape[0]), np.diff(crow)), col] = values
    return dense
