"""Who the server lets in, what it refuses to read, and how it says that it can't start."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import zstandard
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from tinker.proto import tinker_public_pb2 as pb

from engine.server.api import _on_large_body
from engine.server.security import MAX_BODY, BodyTooLarge, Guard
from tests.server.harness import KEY, NANO, ROOT, RunningServer
from tests.server.raw import Session, datum, dense, rows, training_body


class TestWhoMayCall:
    @pytest.mark.parametrize(
        "headers",
        [{}, {"X-API-Key": ""}, {"X-API-Key": KEY + "x"}, {"X-API-Key": KEY[:-1]}, {"Authorization": "Bearer tml-another"}],
        ids=["none", "empty", "longer", "shorter", "bearer"],
    )
    def test_not_without_the_key(self, server: RunningServer, headers: dict[str, str]) -> None:
        for method, path in (("GET", "thinker/status"), ("POST", "create_session"), ("POST", "forward_backward"), ("GET", "no/such/route")):
            reply = httpx.request(method, f"{server.url}/api/v1/{path}", headers=headers, trust_env=False)
            assert reply.status_code == 401 and "key" in reply.json()["detail"]
        assert httpx.get(f"{server.url}/api/v1/healthz", headers=headers, trust_env=False).json() == {"status": "ok"}

    def test_the_key_in_either_header(self, server: RunningServer) -> None:
        for headers in ({"X-API-Key": KEY}, {"Authorization": f"Bearer {KEY}"}):
            assert httpx.get(f"{server.url}/api/v1/thinker/status", headers=headers, trust_env=False).status_code == 200

    def test_only_by_names_of_this_machine(self, server: RunningServer) -> None:
        with server.http() as http:
            for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example", "[::2]", ""):
                for path in ("thinker/status", "healthz"):
                    assert http.get(path, headers={"Host": host}).status_code == 403, host
            for host in ("localhost", f"127.0.0.1:{server.port}", "LOCALHOST:1", "[::1]:80", "[::1]"):
                assert http.get("thinker/status", headers={"Host": host}).status_code == 200, host

    def test_a_further_name_has_to_be_allowed(self, other_server: RunningServer) -> None:
        with other_server.http() as http:
            assert http.get("thinker/status", headers={"Host": "gpu.example:8765"}).status_code == 200
            assert http.get("thinker/status", headers={"Host": "other.example"}).status_code == 403


class TestSizes:
    """With a small limit, in this process: the limit of a real server is 256 MiB."""

    LIMIT = 1000

    def call(self, content: bytes | AsyncIterator[bytes]) -> tuple[httpx.Response, list[int]]:
        read: list[int] = []

        async def echo(request: Request) -> JSONResponse:
            read.append(len(await request.body()))
            return JSONResponse({"size": read[-1]})

        app = Starlette(routes=[Route("/", echo, methods=["POST"])], exception_handlers={BodyTooLarge: _on_large_body})

        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(Guard(app, KEY, max_body=self.LIMIT))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.post("/", content=content, headers={"X-API-Key": KEY})

        return asyncio.run(run()), read

    def test_by_the_length_that_is_announced(self) -> None:
        assert self.call(b"x" * self.LIMIT)[0].json() == {"size": self.LIMIT}
        reply, read = self.call(b"x" * (self.LIMIT + 1))
        assert (reply.status_code, read) == (413, []) and "1,000 bytes" in reply.json()["detail"]

    def test_by_what_comes_when_no_length_is_announced(self) -> None:
        async def pieces(count: int) -> AsyncIterator[bytes]:
            for _ in range(count):
                yield b"x" * 100

        assert self.call(pieces(10))[0].json() == {"size": 1000}
        reply, read = self.call(pieces(11))
        assert (reply.status_code, read) == (413, []) and "1,000 bytes" in reply.json()["detail"]

    @pytest.mark.parametrize("length", [str(MAX_BODY + 1), "-1", "lots", "1e3"])
    def test_a_real_server_answers_before_it_reads(self, server: RunningServer, length: str) -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
            head = f"POST /api/v1/forward_backward HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {KEY}\r\nContent-Length: {length}\r\n\r\n"
            connection.sendall(head.encode())
            assert connection.recv(100).split()[1] in (b"413", b"400")


def tokens_are(*ids: int):
    def change(message: pb.Datum) -> None:
        message.model_input[0].encoded_text.tokens = np.asarray(ids, "<i4").tobytes()

    return change


def input_is(name: str, values: list, dtype: str = "<f4", shape: tuple[int, ...] | None = None):
    return lambda message: dense(message, name, np.asarray(values, dtype), shape)


def shaped(*shape: int, name: str = "weights"):
    def change(message: pb.Datum) -> None:
        del message.loss_fn_inputs[name].shape[:]
        message.loss_fn_inputs[name].shape.extend(shape)

    return change


def sparse(shape: tuple[int, ...], crow: list[int], col: list[int], values: list[float], name: str = "weights"):
    def change(message: pb.Datum) -> None:
        tensor = message.loss_fn_inputs[name]
        tensor.sparse_csr.values = np.asarray(values, "<f4").tobytes()
        tensor.sparse_csr.crow_indices = np.asarray(crow, "<i8").tobytes()
        tensor.sparse_csr.col_indices = np.asarray(col, "<i8").tobytes()
        tensor.dtype = pb.DTYPE_FLOAT32
        shaped(*shape, name=name)(message)

    return change


def no_tokens(message: pb.Datum) -> None:
    del message.model_input[:]


def an_image(message: pb.Datum) -> None:
    message.model_input.add().image.data = b"png"


def odd_bytes(message: pb.Datum) -> None:
    message.model_input[0].encoded_text.tokens = b"12345"


def odd_tensor(message: pb.Datum) -> None:
    message.loss_fn_inputs["weights"].dense += b"x"


def bfloat(message: pb.Datum) -> None:
    message.loss_fn_inputs["weights"].dtype = pb.DTYPE_BFLOAT16


def no_weights(message: pb.Datum) -> None:
    del message.loss_fn_inputs["weights"]


def an_extra(message: pb.Datum) -> None:
    dense(message, "surprise", np.zeros(3, "<f4"))


FAULTY = {
    "token ids out of vocabulary": (tokens_are(5, 10**6), "datum 1, tokens", "vocabulary"),
    "negative token ids": (tokens_are(-1, 2), "datum 1, tokens", "vocabulary"),
    "more tokens than the context": (tokens_are(*[5] * 1025), "datum 1", "context of 1,024"),
    "no tokens": (no_tokens, "datum 1", "no tokens"),
    "an image": (an_image, "datum 1", "only text"),
    "tokens that aren't whole": (odd_bytes, "datum 1, tokens", "no whole number"),
    "a tensor that isn't whole": (odd_tensor, "datum 1, weights", "no whole number"),
    "a type that isn't known": (bfloat, "datum 1, weights", "isn't supported"),
    "an input missing": (no_weights, "datum 1", "'weights'"),
    "an input too many": (an_extra, "datum 1", "'surprise'"),
    "NaN weights": (input_is("weights", [float("nan")] * 26), "datum 1", "weights"),
    "infinite weights": (input_is("weights", [float("inf")] * 26), "datum 1", "weights"),
    "too few weights": (input_is("weights", [1.0]), "datum 1", "weights"),
    "targets out of vocabulary": (input_is("target_tokens", [10**9] * 26, "<i8"), "datum 1, target_tokens", "vocabulary"),
    "targets that aren't integers": (input_is("target_tokens", [1.0] * 26), "datum 1, target_tokens", "integers"),
    "a shape that lies": (shaped(7), "datum 1, weights", "doesn't fit"),
    "a negative shape": (shaped(-1, -26), "datum 1, weights", "out of bounds"),
    "a huge shape": (shaped(2**62, 2**62), "datum 1, weights", "out of bounds"),
    "a huge axis beside none": (shaped(0, 2**62), "datum 1, weights", "out of bounds"),
    "a hundred axes": (shaped(*[1] * 100), "datum 1, weights", "out of bounds"),
    "a sparse bomb": (sparse((8_000, 9_000), [0] * 8_001, [], []), "datum 1", "values"),
    "sparse rows that contradict": (sparse((2, 2), [0, 1, 9], [0], [1.0]), "datum 1, weights", "contradict"),
    "sparse columns outside": (sparse((2, 2), [0, 1, 1], [5], [1.0]), "datum 1, weights", "contradict"),
    "sparse rows that run backwards": (sparse((2, 2), [0, 2, 1], [0], [1.0]), "datum 1, weights", "contradict"),
}


class TestMalformedTraining:
    @pytest.mark.parametrize("fault", FAULTY)
    def test_a_faulty_datum_is_named(self, session: Session, fault: str) -> None:
        change, where, what = FAULTY[fault]
        data = [*rows(0, 1), datum(list(range(20, 46)))]
        change(data[1])
        model_id = session.model()
        reply = session.train(model_id, 1, data)
        assert reply.status_code == 400, reply.text
        told = reply.json()
        assert told["where"].startswith(where) and what in told["detail"] and told["next_step"], told
        assert session.loss(session.train(model_id, 2, rows())) > 0

    @pytest.mark.parametrize(
        ("loss_fn", "config", "what"),
        [
            ("nonsense", {}, "it has cross_entropy"),
            ("", {}, "it has cross_entropy"),
            ("cross_entropy", {"clip_low_threshold": 1.0}, "clip_low_threshold"),
            ("ppo", {"clip_high_treshold": 1.0}, "clip_high_treshold"),
            ("ppo", {"clip_high_threshold": float("nan")}, "clip_high_threshold"),
            ("ppo", {}, "datum 0"),
        ],
    )
    def test_losses_and_options(self, session: Session, loss_fn: str, config: dict[str, float], what: str) -> None:
        model_id = session.model()
        reply = session.train(model_id, 1, rows(), loss_fn, config=config)
        assert reply.status_code == 400 and what in reply.json()["detail"].replace("It has", "it has"), reply.text
        assert session.loss(session.train(model_id, 2, rows())) > 0

    def test_an_empty_batch(self, session: Session) -> None:
        reply = session.train(session.model(), 1, [])
        assert reply.status_code == 400 and "empty" in reply.json()["detail"]


class TestMalformedBodies:
    @pytest.mark.parametrize("body", [b"", b"\xff" * 50, b"{}", b"\x0a\xff\xff\xff\xff\x0f", struct.pack(">Q", 7) * 100])
    def test_protobuf(self, session: Session, body: bytes) -> None:
        assert session.http.post("forward_backward", content=body).status_code in (400, 404)
        assert session.http.get("healthz").status_code == 200

    @pytest.mark.parametrize("path", ["create_session", "create_model", "optim_step", "asample", "retrieve_future", "load_weights"])
    @pytest.mark.parametrize("body", [b"{", b"[]", b"\xff\xfe", b"null", b'{"session_id": 1e999}', b"[" * 10_000, b'{"model_seq_id": "x"}'])
    def test_json(self, session: Session, path: str, body: bytes) -> None:
        reply = session.http.post(path, content=body)
        assert 400 <= reply.status_code < 408 or (path == "create_session" and reply.status_code == 200), reply.text

    def test_compression(self, session: Session) -> None:
        model_id = session.model()

        def send(body: bytes, encoding: str = "zstd") -> httpx.Response:
            return session.http.post("forward_backward", content=body, headers={"Content-Encoding": encoding})

        assert "isn't valid zstd" in send(b"not zstd").json()["detail"]
        assert "isn't understood" in send(b"x", "br").json()["detail"]
        packer, zeros = zstandard.ZstdCompressor().compressobj(), bytes(2**20)
        bomb = b"".join(packer.compress(zeros) for _ in range(MAX_BODY // len(zeros) + 1)) + packer.flush()
        assert len(bomb) < 100_000
        reply = send(bomb)
        assert reply.status_code == 400 and "unpacks to more than" in reply.json()["detail"]
        assert session.output(send(zstandard.compress(training_body(model_id, 1, rows())))).metrics["loss:sum"] > 0


class TestTheKey:
    def test_it_is_made_private_and_shown_nowhere(self, other_server: RunningServer) -> None:
        file = other_server.folder / "key"
        key = file.read_text()
        assert re.fullmatch(r"tml-[\w-]{40,}", key)
        if os.name == "posix":
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with other_server.http() as http:
            reply = http.get("thinker/status")
            assert reply.status_code == 200 and key not in reply.text
            assert http.get("thinker/status", headers={"X-API-Key": KEY}).status_code == 401, "the key of another server"
        assert key not in " ".join(psutil.Process(other_server.process.pid).cmdline())
        assert key not in other_server.log.read_text() and key not in (other_server.folder / "ready.json").read_text()

    def test_an_existing_key_is_kept_and_a_bad_one_refused(self, tmp_path: Path) -> None:
        from engine.errors import EndpointError
        from engine.server.security import read_or_make_keys

        file = tmp_path / "key"
        key = read_or_make_keys(file)
        assert list(key) == ["default"] and read_or_make_keys(file) == key
        file.write_text("hunter2")
        with pytest.raises(EndpointError, match="isn't a key"):
            read_or_make_keys(file)
        with pytest.raises(EndpointError, match="has no key"):
            read_or_make_keys(None)


@pytest.mark.slow
class TestNoStart:
    """Exit code 2 and one line that says why."""

    def start(self, tmp_path: Path, *options: str, model: Path = NANO) -> str:
        command = [sys.executable, "-m", "engine.server", "--base-model", str(model), "--checkpoints", str(tmp_path / "c")]
        command += ["--port", "0", *options]  # the usual one may be somebody's
        environment = {**os.environ, "THINKER_SERVER_KEY": KEY}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2 and not done.stdout, done.stderr
        lines = done.stderr.strip().splitlines()
        assert lines[-1].startswith("thinker serve: ") and "Traceback" not in done.stderr
        return lines[-1]

    def test_a_port_in_use(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            told = self.start(tmp_path, "--port", str(port))
        assert f"port {port}" in told and "--port" in told

    def test_a_model_without_a_tokenizer(self, tmp_path: Path) -> None:
        folder = copy_of_nano(tmp_path, lambda name: "token" not in name)
        told = self.start(tmp_path, model=folder)
        assert str(folder) in told and "tokenizer" in told

    def test_a_model_with_pickled_weights_only(self, tmp_path: Path) -> None:
        folder = copy_of_nano(tmp_path, lambda name: not name.endswith(".safetensors"))
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
        told = self.start(tmp_path, model=folder)
        assert str(folder) in told and "safetensors" in told

    def test_no_model_there(self, tmp_path: Path) -> None:
        assert str(tmp_path / "nowhere") in self.start(tmp_path, model=tmp_path / "nowhere")


def copy_of_nano(tmp_path: Path, keep) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in NANO.iterdir():
        if file.is_file() and keep(file.name):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder
