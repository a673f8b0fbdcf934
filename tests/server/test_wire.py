"""Bytes to arrays and back, checked against the SDK's own writer and reader."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zstandard
from tinker import types
from tinker.proto import tinker_public_pb2 as pb
from tinker.proto.request_conv import forward_backward_request_to_proto
from tinker.proto.response_conv import deserialize_proto_response

from engine.errors import DataError
from engine.server import wire


def request(*data: types.Datum, **more) -> pb.ForwardBackwardRequest:
    config = more.pop("loss_fn_config", None)
    body = types.ForwardBackwardInput(data=list(data), loss_fn="cross_entropy", loss_fn_config=config)
    return forward_backward_request_to_proto(types.ForwardBackwardRequest(forward_backward_input=body, model_id="m", seq_id=3))


def test_what_the_sdk_writes_is_read() -> None:
    dense = types.TensorData(data=[0.0, 1.5, -2.0], dtype="float32", shape=[3])
    table = types.TensorData(data=[1, 2, 3, 4, 5, 6], dtype="int64", shape=[3, 2])
    chunks = [types.EncodedTextChunk(tokens=[7, 8]), types.EncodedTextChunk(tokens=[9])]
    datum = types.Datum(model_input=types.ModelInput(chunks=chunks), loss_fn_inputs={"weights": dense, "target_tokens": table})
    got = wire.read_train_request(wire.read_train_header(request(datum, loss_fn_config={"a": 0.5}).SerializeToString()))
    assert (got.model_id, got.seq_id, got.loss_fn, got.loss_config, got.forward_only) == ("m", 3, "cross_entropy", {"a": 0.5}, False)
    [only] = got.data
    assert only.tokens.dtype == np.int64 and only.tokens.tolist() == [7, 8, 9]
    assert only.inputs["weights"].dtype == np.float32 and only.inputs["weights"].tolist() == [0.0, 1.5, -2.0]
    assert only.inputs["target_tokens"].dtype == np.int64 and only.inputs["target_tokens"].tolist() == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_sparse_rows() -> None:
    """As PyTorch lays CSR out."""
    matrix = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 4.0]])
    sparse = matrix.to_sparse_csr()
    message = pb.ForwardBackwardRequest()
    tensor = message.data.add().loss_fn_inputs["weights"]
    tensor.dtype = pb.DTYPE_FLOAT32
    tensor.shape.extend(matrix.shape)
    tensor.sparse_csr.values = sparse.values().numpy().tobytes()
    tensor.sparse_csr.crow_indices = sparse.crow_indices().numpy().tobytes()
    tensor.sparse_csr.col_indices = sparse.col_indices().numpy().tobytes()
    np.testing.assert_array_equal(wire.read_train_request(message).data[0].inputs["weights"], matrix.numpy())


def test_claims_are_added_up_over_the_whole_request() -> None:
    """Each tensor is lawful alone; a request of a few kilobytes can't ask for gigabytes."""
    message = pb.ForwardBackwardRequest()
    for _ in range(10):
        tensor = message.data.add().loss_fn_inputs["weights"]
        tensor.dtype = pb.DTYPE_FLOAT32
        tensor.shape.extend([1000, 10_000])
        tensor.sparse_csr.crow_indices = bytes(8 * 1001)
    with pytest.raises(DataError, match="more than 64,000,000 values") as caught:
        wire.read_train_request(message)
    assert caught.value.where == "datum 6"


def test_what_is_written_the_sdk_reads() -> None:
    rows = [np.array([-0.5, -1.0]), np.array([-2.0]), np.array([[-1.0, -2.0], [-3.0, -4.0]]), np.array([-7.0, -8.0, -9.0])]
    reply = wire.write_train_output([{"logprobs": row} for row in rows], {"loss:sum": 1.25})
    got = deserialize_proto_response(reply, types.ForwardBackwardOutput)
    assert got.metrics == {"loss:sum": 1.25}
    assert len(got.loss_fn_outputs) == 4
    for row, output in zip(rows, got.loss_fn_outputs, strict=True):
        np.testing.assert_array_equal(np.array(output["logprobs"].data).reshape(output["logprobs"].shape), row)
    empty = deserialize_proto_response(wire.write_train_output([], {"loss:sum": 0.0}), types.ForwardBackwardOutput)
    assert not empty.loss_fn_outputs


def test_samples_are_read_by_the_sdk() -> None:
    reply = wire.write_sample_response([([5, 6], [-0.25, -0.5], True), ([7], [-1.0], False)], [float("nan"), -3.0])
    got = deserialize_proto_response(reply, types.SampleResponse)
    found = [(list(sequence.tokens), list(sequence.logprobs), sequence.stop_reason) for sequence in got.sequences]
    assert found == [([5, 6], [-0.25, -0.5], "stop"), ([7], [-1.0], "length")]
    assert got.prompt_logprobs == [None, -3.0]
    assert deserialize_proto_response(wire.write_sample_response([], None), types.SampleResponse).prompt_logprobs is None


def test_decompress() -> None:
    packed = zstandard.compress(b"x" * 1000)
    assert wire.decompress(b"abc", None, 10) == wire.decompress(b"abc", "identity", 10) == b"abc"
    assert wire.decompress(packed, "zstd", 1000) == b"x" * 1000
    refused = ((packed, "zstd", 999, "more than 999"), (packed, "gzip", 1000, "'gzip'"), (b"x", "zstd", 9, "isn't valid"))
    for body, encoding, limit, words in refused:
        with pytest.raises(DataError, match=words):
            wire.decompress(body, encoding, limit)
