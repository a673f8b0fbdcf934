"""The SDK's habits, and what the server has to make of them: requests out of order, twice, late, or of an earlier life."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import tinker
import torch
import zstandard
from safetensors.torch import load_file
from tinker import types

from tests.server.harness import KEY, ROOT, RunningServer, batch, text_tokens
from tests.server.raw import LINEAR, Session, rows, training_body

RETRIED = {408, 409, 429, *range(500, 600)}  # the SDK posts again after these, for minutes or for ever


def refused(reply: httpx.Response, status: int = 400) -> str:
    """Why; with a status that ends the matter."""
    assert reply.status_code == status and reply.status_code not in RETRIED, reply.text
    return reply.json()["detail"]


def adapter(server: RunningServer, path: str) -> dict[str, torch.Tensor]:
    return load_file(server.checkpoint_folder(path) / "adapter_model.safetensors")


def saved(server: RunningServer, session: Session, model_id: str, seq: int, name: str = "w") -> dict[str, torch.Tensor]:
    return adapter(server, session.result(session.save(model_id, seq, name).json()["request_id"])["path"])


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class TestOrder:
    def test_requests_run_by_number_whatever_order_they_come_in(self, server: RunningServer, session: Session) -> None:
        straight, mixed = session.model(), session.model()
        for seq, start in ((1, 0), (3, 6)):
            session.train(straight, seq, rows(start))
            session.step(straight, seq + 1)
        # Their effects don't commute: the second gradient depends on the first update.
        session.step(mixed, 4)
        later = session.train(mixed, 3, rows(6)).json()["request_id"]
        session.step(mixed, 2)
        waiting = session.ok("create_session", {})  # the server answers others while the run waits
        assert waiting["session_id"] != session.id
        session.train(mixed, 1, rows(0))
        assert session.retrieve(later).status_code == 200
        assert_equal(saved(server, session, mixed, 5), saved(server, session, straight, 5))

    def test_runs_do_not_wait_for_each_other(self, session: Session) -> None:
        stuck, free = session.model(), session.model()
        held_up = session.train(stuck, 2, rows()).json()["request_id"]
        assert session.loss(session.train(free, 1, rows())) > 0
        session.train(stuck, 1, rows())
        assert session.retrieve(held_up).status_code == 200


class TestTwice:
    """Posted again before it runs, while it runs, and after it was retrieved: it acts once and answers the same."""

    def test_forward_backward_and_optim_step(self, server: RunningServer, session: Session) -> None:
        once, twice = session.model(), session.model()
        session.train(once, 1, rows())
        session.step(once, 2, LINEAR)
        step = session.step(twice, 2, LINEAR)
        assert session.step(twice, 2, LINEAR) == step
        replies = [session.train(twice, 1, rows()) for _ in range(3)]
        first = session.output(replies[0])
        replies.append(session.train(twice, 1, rows()))
        assert {reply.json()["request_id"] for reply in replies} == {f"{twice}:1"}
        assert all(session.output(reply) == first for reply in replies)
        norm = session.result(step)
        assert (session.step(twice, 2, LINEAR), session.result(step)) == (step, norm)
        assert_equal(saved(server, session, twice, 3), saved(server, session, once, 3))

    def test_create_model(self, session: Session) -> None:
        body = session.model_body(seed=5)
        first = session.ok("create_model", body)
        assert session.ok("create_model", body) == first
        session.loss(session.train(first["model_id"], 1, rows()))
        session.result(session.step(first["model_id"], 2))
        losses = [session.loss(session.train(first["model_id"], 3, rows()))]
        assert session.ok("create_model", body) == first
        losses.append(session.loss(session.train(first["model_id"], 4, rows())))
        assert losses[0] == losses[1], "what was learned is still there"

    def test_saving_and_loading(self, server: RunningServer, session: Session) -> None:
        model_id = session.model()
        replies = [session.save(model_id, 1, "a") for _ in range(2)]
        path = session.result(replies[0].json()["request_id"])["path"]
        replies.append(session.save(model_id, 1, "a"))
        assert [reply.status_code for reply in replies] == [200] * 3 and len({reply.text for reply in replies}) == 1
        named = {"model_id": model_id, "seq_id": 2, "path": "a"}
        assert session.ok("save_weights_for_sampler", named) == session.ok("save_weights_for_sampler", named)
        session.train(model_id, 3, rows())
        session.result(session.step(model_id, 4))
        load = {"model_id": model_id, "seq_id": 5, "path": path, "optimizer": True}
        request_id = session.ok("load_weights", load)["request_id"]
        session.result(request_id)
        session.train(model_id, 6, rows())
        session.result(session.step(model_id, 7))
        before = saved(server, session, model_id, 8, "b")
        assert session.ok("load_weights", load)["request_id"] == request_id
        assert_equal(saved(server, session, model_id, 9, "c"), before)

    def test_loading_into_a_new_run(self, server: RunningServer, session: Session) -> None:
        path = session.result(session.save(session.model(), 1, "a").json()["request_id"])["path"]
        body = {"session_id": session.id, "model_seq_id": 50, "path": path, "optimizer": True}
        first = session.ok("load_weights", body)
        model_id = session.result(first["request_id"])["model_id"]
        assert model_id == f"{session.id}:train:50"
        session.train(model_id, 1, rows())
        session.result(session.step(model_id, 2))
        assert session.ok("load_weights", body) == first
        before, after = adapter(server, path), saved(server, session, model_id, 3)
        assert any(not torch.equal(after[name], before[name]) for name in after), "what was learned is still there"

    def test_sampling(self, session: Session) -> None:
        sampler_id = session.sampler()
        assert session.sampler() == sampler_id
        body = session.sample_body(sampler_id, 1, text_tokens("Hi"), n=2, temperature=2.0)
        first = session.ok("asample", body)
        assert len(first["sample_sequence_ids"]) == 2
        answer = session.retrieve(first["request_id"]).content
        assert session.ok("asample", body) == first
        assert session.retrieve(first["request_id"]).content == answer
        other = session.ok("asample", {**body, "seq_id": 2})
        assert session.retrieve(other["request_id"]).content != answer

    def test_a_number_long_past_is_refused_rather_than_run(self, session: Session) -> None:
        model_id = session.model()
        assert "long past" in refused(session.train(model_id, 0, rows()))
        assert "long past" in refused(session.train(model_id, -5, rows()))


class TestRefusals:
    def test_a_refused_request_uses_its_number_up(self, session: Session) -> None:
        model_id = session.model()
        assert "this server has no loss" in refused(session.train(model_id, 1, rows(), "no_such_loss"))
        assert "this server has no loss" in refused(session.train(model_id, 1, rows()))  # the same number: the same answer
        assert session.loss(session.train(model_id, 2, rows())) > 0

    def test_a_refusal_ahead_of_its_turn_holds_nothing_up(self, session: Session) -> None:
        model_id = session.model()
        refused(session.train(model_id, 2, []))
        third = session.train(model_id, 3, rows())
        session.train(model_id, 1, rows())
        assert session.loss(third) > 0

    def test_the_sdk_goes_on_after_a_refusal(self, service: tinker.ServiceClient) -> None:
        client = service.create_lora_training_client("nano", rank=4, seed=1).result(timeout=60)
        started = time.monotonic()
        with pytest.raises(tinker.BadRequestError, match="no loss"):
            client.forward_backward(batch(), "stable_reinforce").result(timeout=60)
        with pytest.raises(tinker.BadRequestError, match="can't be a checkpoint's name"):
            client.save_state("a/b").result(timeout=60)
        assert time.monotonic() - started < 30
        client.forward_backward(batch(), "cross_entropy")
        assert client.optim_step(types.AdamParams()).result(timeout=60).metrics["grad_norm:mean"] > 0

    @pytest.mark.parametrize("name", ["", "a/b", "../up", ".hidden", "x" * 129, "a b", "tinker://a", "nul\0"])
    def test_a_bad_name(self, session: Session, name: str) -> None:
        model_id = session.model()
        if name:
            assert "can't be a checkpoint's name" in refused(session.save(model_id, 1, name))
        else:
            assert session.result(session.save(model_id, 1, name).json()["request_id"])["path"].startswith(f"tinker://{model_id}/weights/")
        assert session.loss(session.train(model_id, 2, rows())) > 0

    def test_a_name_taken_and_overwrite(self, server: RunningServer, session: Session) -> None:
        model_id = session.model()
        # The second comes before the first has run, the third after.
        first = session.save(model_id, 1, "same").json()["request_id"]
        assert "already" in refused(session.save(model_id, 2, "same"))
        path = session.result(first)["path"]
        before = adapter(server, path)
        assert "already" in refused(session.save(model_id, 3, "same"))
        session.train(model_id, 4, rows())
        session.step(model_id, 5)
        assert session.result(session.save(model_id, 6, "same", overwrite=True).json()["request_id"])["path"] == path
        after = adapter(server, path)
        assert any(not torch.equal(after[name], before[name]) for name in after)
        assert [entry.name for entry in server.checkpoint_folder(path).parent.iterdir()] == ["same"]
        sampler = session.post("save_weights_for_sampler", {"model_id": model_id, "seq_id": 7, "path": "same"})
        assert sampler.status_code == 200, "the kinds have names of their own"

    @pytest.mark.parametrize(
        "path", ["", "tinker://no-run/sampler_weights/a", "tinker://a/b", "tinker://../weights/x", "/etc", "tinker://a/weights/.."]
    )
    def test_a_path_that_leads_nowhere(self, session: Session, path: str) -> None:
        new = {"session_id": session.id, "model_seq_id": 9, "path": path, "optimizer": True}
        refused(session.post("load_weights", new), 404)
        model_id = session.model()
        refused(session.post("load_weights", {"model_id": model_id, "seq_id": 1, "path": path, "optimizer": False}), 404)
        assert session.loss(session.train(model_id, 2, rows())) > 0
        refused(session.post("create_sampling_session", {"session_id": session.id, "sampling_session_seq_id": 1, "model_path": path}), 404)

    def test_what_does_not_fit(self, session: Session) -> None:
        assert "not 'llama'" in refused(session.post("create_model", session.model_body("llama")), 404)
        for lora in ({"rank": 0}, {"rank": 513}, {"train_mlp": False, "train_attn": False, "train_unembed": False}, {"seed": 2**70}):
            assert "lora_config" in refused(session.post("create_model", session.model_body(**lora)))
        assert "lora_config" in refused(session.post("create_model", {**session.model_body(), "lora_config": None}))
        small, large = session.model(rank=4), session.model(rank=8)
        path = session.result(session.save(small, 1, "a").json()["request_id"])["path"]
        assert "another shape" in refused(session.post("load_weights", {"model_id": large, "seq_id": 1, "path": path, "optimizer": True}))
        sampler = session.ok("save_weights_for_sampler", {"model_id": small, "seq_id": 2, "path": "a"})["request_id"]
        sampler_path = session.result(sampler)["path"]
        body = {"session_id": session.id, "model_seq_id": 9, "path": sampler_path, "optimizer": True}
        assert "no optimizer state" in refused(session.post("load_weights", body))
        body = {"session_id": session.id, "sampling_session_seq_id": 1, "model_path": path}
        assert "not for sampling" in refused(session.post("create_sampling_session", body))

    @pytest.mark.parametrize(
        ("params", "field"),
        [
            ({"max_tokens": 0}, "max_tokens"),
            ({"temperature": -1}, "temperature"),
            ({"top_p": 0}, "top_p"),
            ({"top_k": 0}, "top_k"),
            ({"stop": [""]}, "stop"),
            ({"seed": "x"}, "seed"),
        ],
    )
    def test_sampling_parameters(self, session: Session, params: dict, field: str) -> None:
        sampler_id = session.sampler()
        assert field in refused(session.post("asample", session.sample_body(sampler_id, 1, text_tokens("Hi"), **params)))
        later = session.ok("asample", session.sample_body(sampler_id, 2, text_tokens("Hi")))["request_id"]
        assert session.retrieve(later).status_code == 200

    def test_extreme_but_lawful_sampling(self, session: Session) -> None:
        sampler_id = session.sampler()
        prompt = text_tokens("<|user|>Spell apple<|end|><|assistant|>")
        temperatures = [{"temperature": value} for value in (1e-30, 100)]
        others = [{"top_k": 2**40}, {"top_p": 1e-30}, {"seed": -1}, {"seed": 2**80}, {"max_tokens": 2**60, "temperature": 0}]
        for seq, params in enumerate(temperatures + others):
            reply = session.retrieve(session.ok("asample", session.sample_body(sampler_id, seq, prompt, **params))["request_id"])
            assert reply.headers["content-type"] == "application/x-protobuf", (params, reply.text)

    def test_adam_params(self, session: Session) -> None:
        model_id = session.model()
        for seq, (name, value) in enumerate([("learning_rate", -1), ("beta1", 1.0), ("eps", -1e-8), ("grad_clip_norm", -1)], 1):
            reply = session.post("optim_step", {"model_id": model_id, "seq_id": seq, "adam_params": {name: value}})
            assert "adam_params" in refused(reply)
        session.train(model_id, 5, rows())
        assert session.result(session.step(model_id, 6))["metrics"]["grad_norm:mean"] > 0


class TestLives:
    @pytest.mark.slow
    def test_ids_of_an_earlier_life_are_404_at_once(self, tmp_path: Path) -> None:
        first = RunningServer(tmp_path)
        old = Session(first)
        model_id, sampler_id = old.model(), old.sampler()
        future = old.train(model_id, 1, rows()).json()["request_id"]
        path = old.result(old.save(model_id, 2, "kept").json()["request_id"])["path"]
        sdk = first.client()
        client = sdk.create_lora_training_client("nano", rank=4).result(timeout=60)
        first.kill()
        second = RunningServer(tmp_path, port=first.port)
        try:
            started = time.monotonic()
            assert refused(old.train(model_id, 3, rows()), 404)
            assert refused(old.retrieve(future), 404)
            assert refused(old.post("optim_step", {"model_id": model_id, "seq_id": 4}), 404)
            assert refused(old.save(model_id, 5, "late"), 404)
            assert refused(old.post("get_info", {"model_id": model_id}), 404)
            assert refused(old.post("create_model", old.model_body()), 404)
            assert refused(old.post("asample", old.sample_body(sampler_id, 1, [5])), 404)
            assert old.http.get(f"samplers/{sampler_id}").status_code == 404
            assert refused(old.post("session_heartbeat", {"session_id": old.id}), 410)
            with pytest.raises(tinker.NotFoundError, match="restarted"):
                client.forward_backward(batch(), "cross_entropy").result(timeout=60)
            # Left to itself, the SDK would go on asking for minutes.
            assert time.monotonic() - started < 30
            new = Session(second)
            resumed = new.ok("load_weights", {"session_id": new.id, "model_seq_id": 1, "path": path, "optimizer": True})
            assert new.result(resumed["request_id"])["path"] == path
        finally:
            sdk.holder.close()
            second.stop()

    def test_finish_frees_and_answers_what_waits(self, session: Session) -> None:
        model_id, sampler_id = session.model(), session.sampler()
        stuck = session.train(model_id, 2, rows()).json()["request_id"]  # 1 never comes
        runs = session.http.get("thinker/status").json()["runs"]
        session.ok(f"sessions/{session.id}/finish", {"reason": {"type": "success"}})
        assert session.http.get("thinker/status").json()["runs"] == runs - 1
        assert "session ended" in session.result(stuck)["error"]
        for reply in (session.train(model_id, 1, rows()), session.post("asample", session.sample_body(sampler_id, 1, [5]))):
            refused(reply, 404)
        refused(session.post("create_model", session.model_body()))
        refused(session.post("session_heartbeat", {"session_id": session.id}), 410)
        session.ok(f"sessions/{session.id}/finish", {"reason": {"type": "success"}})
        refused(session.post("sessions/unheard-of/finish", {}), 404)

    def test_heartbeat(self, session: Session) -> None:
        session.ok("session_heartbeat", {"session_id": session.id})
        refused(session.post("session_heartbeat", {"session_id": "unheard-of"}), 410)


def test_compressed_and_plain_are_the_same(session: Session) -> None:
    plain, packed = session.model(seed=3), session.model(seed=3)
    body = zstandard.compress(training_body(packed, 1, rows()))
    compressed = session.http.post("forward_backward", content=body, headers={"Content-Encoding": "zstd"})
    assert session.output(compressed) == session.output(session.train(plain, 1, rows()))
    as_json = zstandard.compress(json.dumps({"model_id": packed}).encode())
    assert session.http.post("get_info", content=as_json, headers={"Content-Encoding": "zstd"}).status_code == 200


def test_the_client_is_told_whether_to_compress(server: RunningServer, other_server: RunningServer) -> None:
    seen = []
    for running, compressed in ((server, True), (other_server, False)):
        with running.http() as http:
            told = http.post("client/config", json={"sdk_version": "0"})
            assert told.json()["proto_compress_fwdbwd"] is compressed
            assert told.headers["connection"] == "close", "the SDK leaves the connection that it asks this over to be found as garbage"
            assert http.post("client/dynamic_config", json={"sdk_version": "0"}).status_code == 200
        client = running.client()
        training = client.create_lora_training_client("nano", rank=4, seed=2).result(timeout=60)
        outputs = training.forward(batch(), "cross_entropy").result(timeout=60).loss_fn_outputs
        seen.append([list(row["logprobs"].data) for row in outputs])
        client.close("success").result(timeout=20)
    assert seen[0] == seen[1]


def test_telemetry_is_accepted(session: Session) -> None:
    assert session.ok("telemetry", {"events": [], "platform": "x"})["status"] == "accepted"


def test_time_to_live(server: RunningServer, session: Session) -> None:
    model_id = session.model()
    for seq, ttl in enumerate((0, 3599, 10 * 365 * 24 * 3600 + 1, -1), 1):
        assert "ttl_seconds" in refused(session.save(model_id, seq, "a", ttl_seconds=ttl))
    path = session.result(session.save(model_id, 5, "a", ttl_seconds=3600).json()["request_id"])["path"]
    file = server.checkpoint_folder(path) / "checkpoint.json"
    about = json.loads(file.read_text())
    assert about["expires_at"] == pytest.approx(about["created_at"] + 3600)
    load = {"session_id": session.id, "model_seq_id": 9, "path": path, "optimizer": True}
    file.write_text(json.dumps({**about, "expires_at": time.time() - 1}))
    refused(session.post("load_weights", load), 404)
    assert session.save(model_id, 6, "a").status_code == 200, "an expired checkpoint's name is free"


def test_ephemeral_samplers_are_few(session: Session) -> None:
    model_id = session.model()
    for number in range(1, 19):
        reply = session.ok("save_weights_for_sampler", {"model_id": model_id, "seq_id": number, "sampling_session_seq_id": number})
        assert session.result(reply["request_id"])["sampling_session_id"] == f"{session.id}:sample:{number}"
    gone, oldest = (session.post("asample", session.sample_body(f"{session.id}:sample:{number}", 1, [5])) for number in (2, 3))
    assert "It ended" in refused(gone, 404)
    assert session.retrieve(oldest.json()["request_id"]).status_code == 200
    assert "Send one of them" in refused(session.post("save_weights_for_sampler", {"model_id": model_id, "seq_id": 19}))


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("optimizer", [True, False])
def test_the_old_way_of_loading(server: RunningServer, service: tinker.ServiceClient, optimizer: bool) -> None:
    """`load_state` into an existing run gives what creating a client from the state gives, momentum included or not."""
    params = types.AdamParams(learning_rate=3e-2, eps=1e-2)

    def two_steps(client: tinker.TrainingClient) -> dict[str, torch.Tensor]:
        for start in (0, 6):
            client.forward_backward(batch(start), "cross_entropy")
            client.optim_step(params)
        return adapter(server, client.save_state(f"end-{os.urandom(4).hex()}").result(timeout=60).path)

    first = service.create_lora_training_client("nano", rank=4, seed=8).result(timeout=60)
    two_steps(first)
    path = first.save_state(f"half-{optimizer}").result(timeout=60).path
    other = service.create_lora_training_client("nano", rank=4, seed=9).result(timeout=60)
    two_steps(other)
    (other.load_state_with_optimizer if optimizer else other.load_state)(path).result(timeout=60)
    create = service.create_training_client_from_state_with_optimizer if optimizer else service.create_training_client_from_state
    assert_equal(two_steps(other), two_steps(create(path).result(timeout=60)))


def test_a_proxy_is_passed_by(server: RunningServer) -> None:
    """With the proxy variables set to a dead port, our client reaches the server on this machine."""
    script = f"""
from engine.endpoints.client import Client
class Here:
    url, base_model = {server.url!r}, "nano"
    def ready(self, say): pass
    def alive(self): return True
    def key(self): return {KEY!r}
client = Client(Here(), {{}})
print(client.create("nano", 4, 1, True, True, True).model_id)
client.close()
"""
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"), "http://127.0.0.1:9")
    environment = {name: value for name, value in os.environ.items() if name.upper() != "NO_PROXY"} | proxies
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and ":train:" in done.stdout, done.stderr
