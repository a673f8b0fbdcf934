"""What was made, listed, changed and fetched through the official RestClient; and that it outlives the server."""

from __future__ import annotations

import json
import time
import urllib.parse
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import tinker
import torch
from safetensors.torch import load
from tinker import types

from engine.server.links import Links
from tests.server.harness import RunningServer, batch, text_tokens
from tests.server.raw import Session

HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def rest(server: RunningServer) -> tinker.RestClient:
    return tinker.RestClient(base_url=server.url, api_key=server.key)


@pytest.fixture(scope="module")
def run(service: tinker.ServiceClient) -> tinker.TrainingClient:
    client = service.create_lora_training_client("nano", rank=4, seed=1, user_metadata={"purpose": "lists"}).result(timeout=60)
    client.forward_backward(batch(), "cross_entropy")
    client.optim_step(types.AdamParams(learning_rate=1e-2)).result(timeout=60)
    return client


@pytest.fixture(scope="module")
def path(run: tinker.TrainingClient) -> str:
    return run.save_weights_external("for-elsewhere").result(timeout=60).path


def saved(run: tinker.TrainingClient, name: str, **more: object) -> str:
    return run.save_state(name, **more).result(timeout=60).path


class TestRuns:
    def test_one(self, rest: tinker.RestClient, run: tinker.TrainingClient) -> None:
        path = saved(run, "one")
        sampler = run.save_weights_for_sampler("one").result(timeout=60).path
        found = rest.get_training_run(run.model_id).result(timeout=20)
        assert (found.training_run_id, found.base_model, found.is_lora, found.lora_rank) == (run.model_id, "nano", True, 4)
        assert (found.model_owner, found.corrupted, found.user_metadata) == ("default", False, {"purpose": "lists"})
        assert abs(found.last_request_time - datetime.now(UTC)) < timedelta(minutes=1)
        assert (found.last_checkpoint.tinker_path, found.last_sampler_checkpoint.tinker_path) == (path, sampler)
        assert rest.get_training_run_by_tinker_path(path).result(timeout=20) == found

    def test_pages_newest_first(self, rest: tinker.RestClient, service: tinker.ServiceClient) -> None:
        made = [service.create_lora_training_client("nano", rank=2, seed=n).result(timeout=60).model_id for n in range(3)]
        page = rest.list_training_runs(limit=2).result(timeout=20)
        assert [found.training_run_id for found in page.training_runs] == [made[2], made[1]]
        assert (page.cursor.offset, page.cursor.limit) == (0, 2) and page.cursor.total_count >= 3
        following = rest.list_training_runs(limit=1, offset=2).result(timeout=20)
        assert [found.training_run_id for found in following.training_runs] == [made[0]]
        assert rest.list_training_runs(offset=10_000).result(timeout=20).training_runs == []

    @pytest.mark.parametrize("query", ["limit=-1", "limit=x", "offset=-1", "limit=1000000"])
    def test_pages_that_are_none(self, session: Session, query: str) -> None:
        assert session.http.get(f"training_runs?{query}").status_code == 400

    def test_one_that_is_not_there(self, rest: tinker.RestClient, session: Session) -> None:
        for name in ("nobody", "a:train:1", "x" * 500, "a b"):
            with pytest.raises(tinker.NotFoundError):
                rest.get_training_run(name).result(timeout=20)
        for name in ("%2e%2e", "%2e%2e%2fetc", "..%2f.."):
            assert session.http.get(f"training_runs/{name}").status_code == 404
            assert session.http.get(f"training_runs/{name}/checkpoints").status_code == 404

    def test_another_spelling_is_another_run(self, session: Session, run: tinker.TrainingClient) -> None:
        """Colons are dots on disk, but a run has one name."""
        assert session.http.get(f"training_runs/{run.model_id}").status_code == 200
        assert session.http.get(f"training_runs/{run.model_id.replace(':', '.')}").status_code == 404


class TestCheckpoints:
    def test_of_a_run_and_of_the_user(self, rest: tinker.RestClient, service: tinker.ServiceClient) -> None:
        run = service.create_lora_training_client("nano", rank=2, seed=5).result(timeout=60)
        first = saved(run, "first", user_metadata={"step": "1"})
        second = run.save_weights_for_sampler("second", ttl_seconds=3600).result(timeout=60).path
        a, b = rest.list_checkpoints(run.model_id).result(timeout=20).checkpoints
        assert (a.checkpoint_id, a.checkpoint_type, a.tinker_path) == ("weights/first", "training", first)
        assert (b.checkpoint_id, b.checkpoint_type, b.tinker_path) == ("sampler_weights/second", "sampler", second)
        assert (a.user_metadata, a.public, a.expires_at) == ({"step": "1"}, False, None)
        assert b.expires_at - b.time == pytest.approx(HOUR, abs=timedelta(seconds=1))
        assert a.size_bytes > b.size_bytes > 10_000, "the optimizer weighs something"
        everything = rest.list_user_checkpoints(limit=2).result(timeout=20)
        assert everything.checkpoints == [b, a] and everything.cursor.total_count >= 2

    def test_what_is_needed_to_load_one(self, rest: tinker.RestClient, service: tinker.ServiceClient) -> None:
        run = service.create_lora_training_client("nano", rank=2, seed=6, train_mlp=False, train_unembed=False).result(timeout=60)
        info = rest.get_weights_info_by_tinker_path(saved(run, "some")).result(timeout=20)
        assert (info.base_model, info.is_lora, info.lora_rank) == ("nano", True, 2)
        assert (info.train_attn, info.train_mlp, info.train_unembed) == (True, False, False)

    def test_deleting(self, rest: tinker.RestClient, server: RunningServer, run: tinker.TrainingClient) -> None:
        path, other = saved(run, "gone"), saved(run, "stays")
        rest.delete_checkpoint_from_tinker_path(path).result(timeout=20)
        assert not server.checkpoint_folder(path).exists() and server.checkpoint_folder(other).exists()
        with pytest.raises(tinker.NotFoundError):
            rest.get_weights_info_by_tinker_path(path).result(timeout=20)
        with pytest.raises(tinker.NotFoundError):
            rest.delete_checkpoint(run.model_id, "weights/gone").result(timeout=20)
        assert saved(run, "gone") == path, "the name is free again"

    def test_a_name_used_again_is_read_anew(self, rest: tinker.RestClient, service: tinker.ServiceClient) -> None:
        run = service.create_lora_training_client("nano", rank=4, seed=7).result(timeout=60)
        prompt, greedy = types.ModelInput.from_ints(text_tokens("<|user|>Hi<|end|><|assistant|>")), types.SamplingParams(max_tokens=3)

        def scored() -> list[float | None]:
            path = run.save_weights_for_sampler("same").result(timeout=60).path
            sampler = service.create_sampling_client(model_path=path).result(timeout=60)
            values = sampler.sample(prompt, 1, greedy, include_prompt_logprobs=True).result(timeout=60).prompt_logprobs
            rest.delete_checkpoint_from_tinker_path(path).result(timeout=20)
            return values

        before = scored()
        run.forward_backward(batch(), "cross_entropy")
        run.optim_step(types.AdamParams(learning_rate=1e-2)).result(timeout=60)
        assert scored() != before

    def test_time_to_live(self, rest: tinker.RestClient, run: tinker.TrainingClient) -> None:
        path = saved(run, "aging")

        def expires() -> datetime | None:
            return next(c for c in rest.list_checkpoints(run.model_id).result(timeout=20).checkpoints if c.tinker_path == path).expires_at

        rest.set_checkpoint_ttl_from_tinker_path(path, 7200).result(timeout=20)
        assert expires() - datetime.now(UTC) == pytest.approx(2 * HOUR, abs=timedelta(minutes=1))
        with pytest.raises(tinker.BadRequestError, match="ttl_seconds"):
            rest.set_checkpoint_ttl_from_tinker_path(path, 60).result(timeout=20)
        rest.set_checkpoint_ttl_from_tinker_path(path, None).result(timeout=20)
        assert expires() is None

    def test_publishing(self, rest: tinker.RestClient, run: tinker.TrainingClient) -> None:
        path = saved(run, "shown")

        def public() -> bool:
            return next(c for c in rest.list_checkpoints(run.model_id).result(timeout=20).checkpoints if c.tinker_path == path).public

        for _ in range(2):
            rest.publish_checkpoint_from_tinker_path(path).result(timeout=20)
            assert public()
        rest.unpublish_checkpoint_from_tinker_path(path).result(timeout=20)
        assert not public()

    def test_names_that_lead_elsewhere(self, session: Session, run: tinker.TrainingClient) -> None:
        for name in ("weights/%2e%2e", "weights/..%2f..%2f..", "%2e%2e/x", "other/x", "weights/.hidden", "weights/none"):
            assert session.http.delete(f"training_runs/{run.model_id}/checkpoints/{name}").status_code == 404, name


class TestSessions:
    def test_list_and_one(self, rest: tinker.RestClient, server: RunningServer) -> None:
        client = tinker.ServiceClient(base_url=server.url, api_key=server.key, user_metadata={"job": "7"}, display_name="Nightly run B")
        made = client.create_lora_training_client("nano", rank=2).result(timeout=60).model_id
        session_id = made.partition(":")[0]
        client.create_sampling_client(base_model="nano").result(timeout=60)
        assert rest.list_sessions(limit=1).result(timeout=20).sessions == [session_id]
        found = rest.get_session(session_id).result(timeout=20)
        assert found.training_run_ids == [made] and len(found.sampler_ids) == 1
        assert found.sampler_ids[0].startswith(session_id)
        assert (found.user_metadata, found.display_name) == ({"job": "7"}, "Nightly run B")
        assert rest.get_sampler(found.sampler_ids[0]).result(timeout=20).model_path is None
        client.close("success").result(timeout=20)
        with pytest.raises(tinker.NotFoundError):
            rest.get_session("nobody").result(timeout=20)

    @pytest.mark.filterwarnings("ignore::tinker.lib.experimental.ExperimentalWarning")
    def test_search(self, rest: tinker.RestClient, server: RunningServer) -> None:
        ids = {}
        for name, metadata, end in (("Red fox", {"k": "1"}, "success"), ("red hen", {"k": "2"}, None), ("Blue fox", {"k": "1"}, None)):
            client = tinker.ServiceClient(base_url=server.url, api_key=server.key, user_metadata=metadata, display_name=name)
            run = client.create_lora_training_client("nano", rank=2).result(timeout=60)
            saved(run, "a")
            ids[run.model_id.partition(":")[0]] = name
            if end:
                client.close(end).result(timeout=20)

        def names(**wanted: object) -> list[str]:
            page = rest.search_sessions(types.SessionSearchRequest(**wanted)).result(timeout=20)
            return [ids[found.session_id] for found in page.sessions if found.session_id in ids]

        assert names(display_name="fox red") == ["Red fox"]
        assert names(display_name="red") == ["red hen", "Red fox"]
        assert names(user_metadata={"k": "1"}) == ["Blue fox", "Red fox"]
        assert names(display_name="fox", statuses=[{"type": "active"}]) == ["Blue fox"]
        assert names(display_name="fox", statuses=[{"type": "client_finished", "reasons": ["success"]}]) == ["Red fox"]
        assert names(display_name="fox", statuses=[{"type": "client_finished", "reasons": ["errored"]}]) == []
        first = rest.search_sessions(types.SessionSearchRequest(display_name="red", limit=1)).result(timeout=20)
        assert ids[first.sessions[0].session_id] == "red hen" and first.sessions[0].checkpoints_count == 1
        assert first.sessions[0].checkpoint_storage_bytes > 1000
        rest_of = rest.search_sessions(types.SessionSearchRequest(display_name="red", limit=1, cursor=first.next_cursor)).result(timeout=20)
        assert [ids[found.session_id] for found in rest_of.sessions] == ["Red fox"] and rest_of.next_cursor is None
        with pytest.raises(tinker.BadRequestError, match="no projects"):
            names(project_ids=["p"])


class TestExternalWeights:
    @pytest.fixture
    def urls(self, rest: tinker.RestClient, path: str) -> dict[str, str]:
        return rest.get_external_weights_urls(path).result(timeout=20).urls

    def test_fetched_without_a_key(self, rest: tinker.RestClient, path: str, run: tinker.TrainingClient, server: RunningServer) -> None:
        assert path == f"tinker://{run.model_id}/external_weights/for-elsewhere"
        found = rest.get_external_weights_urls(path).result(timeout=20)
        assert set(found.urls) == {"adapter_model.safetensors", "adapter_config.json"}
        assert HOUR - timedelta(minutes=1) < found.expires - datetime.now(UTC) <= HOUR
        got = {name: httpx.get(url, trust_env=False) for name, url in found.urls.items()}
        assert all(reply.status_code == 200 for reply in got.values())
        config = got["adapter_config.json"].json()
        assert (config["peft_type"], config["r"], config["base_model_name_or_path"]) == ("LORA", 4, "nano")
        tensors = load(got["adapter_model.safetensors"].content)
        kept = load((server.checkpoint_folder(saved(run, "same")) / "adapter_model.safetensors").read_bytes())
        assert all(torch.equal(tensors[name], kept[name]) for name in kept) and len(tensors) == len(kept)
        listed = next(c for c in rest.list_checkpoints(run.model_id).result(timeout=20).checkpoints if c.tinker_path == path)
        assert listed.checkpoint_type == "external"

    def test_a_link_is_good_for_one_file(self, urls: dict[str, str], server: RunningServer) -> None:
        url = urlsplit(urls["adapter_config.json"])
        query = dict(urllib.parse.parse_qsl(url.query))

        def status(path: str = url.path, **changes: str) -> int:
            changed = urllib.parse.urlencode({**query, **changes})
            return httpx.get(f"{server.url}{path}?{changed}", trust_env=False).status_code

        assert status() == 200
        assert status(expires=str(int(query["expires"]) + 60)) == 403
        assert status(signature=query["signature"][:-1] + ("0" if query["signature"][-1] != "0" else "1")) == 403
        assert status(signature="") == 403 and status(expires="", signature="") == 403 and status(expires="9" * 6000) == 403
        assert status(signature="\u00e4" * 64) == 403 and status(expires="\u0663") == 403
        for other in ("adapter_model.safetensors", "checkpoint.json", "run.json", "..%2f..%2fcheckpoint.json", "%2e%2e"):
            assert status(url.path.replace("adapter_config.json", other)) in (403, 404), other
        for other in ("another", "%2e%2e", "..%2fweights%2fone"):
            assert status(url.path.replace("for-elsewhere", other)) in (403, 404), other
        assert httpx.get(f"{server.url}/api/v1/signed/%2e%2e/create_session", trust_env=False).status_code == 404
        assert httpx.post(f"{server.url}{url.path}?{url.query}", trust_env=False).status_code == 405
        assert httpx.get(f"{server.url}{url.path}?{url.query}", trust_env=False, headers={"Host": "evil.example"}).status_code == 403

    def test_a_link_runs_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        links = Links({"ann": "tml-a", "bob": "tml-b"})
        expires = int(time.time()) + 10
        signature = dict(urllib.parse.parse_qsl(links.path("ann", "r", "n", "f", expires).partition("?")[2]))["signature"]
        assert links.good("ann", "r", "n", "f", str(expires), signature)
        for owner in ("bob", "eve", None):
            assert not links.good(owner, "r", "n", "f", str(expires), signature)
        assert not Links({"ann": "tml-c"}).good("ann", "r", "n", "f", str(expires), signature), "the key was changed"
        later = time.time() + 11
        monkeypatch.setattr(time, "time", lambda: later)
        assert not links.good("ann", "r", "n", "f", str(expires), signature)

    def test_what_is_deleted_can_not_be_fetched(self, rest: tinker.RestClient, run: tinker.TrainingClient) -> None:
        path = run.save_weights_external("brief").result(timeout=60).path
        url = rest.get_external_weights_urls(path).result(timeout=20).urls["adapter_config.json"]
        rest.delete_checkpoint_from_tinker_path(path).result(timeout=20)
        assert httpx.get(url, trust_env=False).status_code == 404

    def test_what_can_not_be_saved_or_loaded(self, path: str, run: tinker.TrainingClient, service: tinker.ServiceClient) -> None:
        with pytest.raises(tinker.BadRequestError, match="doesn't encrypt"):
            run.save_weights_external("secret", age_encryption_recipients=["age1x"]).result(timeout=60)
        with pytest.raises(tinker.BadRequestError, match="already"):
            run.save_weights_external("for-elsewhere").result(timeout=60)
        with pytest.raises(tinker.BadRequestError, match="for download"):
            service.create_training_client_from_state(path).result(timeout=60)

    def test_other_kinds_have_no_links(self, session: Session, run: tinker.TrainingClient) -> None:
        saved(run, "plain")
        reply = session.http.get(f"training_runs/{run.model_id}/checkpoints/weights/plain/external_weights_urls")
        assert reply.status_code == 400 and "for download" in reply.json()["detail"]


def urlsplit(url: str) -> urllib.parse.SplitResult:
    return urllib.parse.urlsplit(url)


@pytest.mark.slow
def test_all_of_it_outlives_the_server(tmp_path: Path) -> None:
    first = RunningServer(tmp_path)
    client = tinker.ServiceClient(base_url=first.url, api_key=first.key, user_metadata={"job": "1"}, display_name="Before")
    run = client.create_lora_training_client("nano", rank=2, seed=1, user_metadata={"a": "b"}).result(timeout=60)
    path = saved(run, "kept")
    run.save_weights_external("out").result(timeout=60)
    empty = client.create_lora_training_client("nano", rank=2, seed=2).result(timeout=60).model_id
    rest = tinker.RestClient(base_url=first.url, api_key=first.key)
    url = rest.get_external_weights_urls(f"tinker://{run.model_id}/external_weights/out").result(timeout=20).urls["adapter_config.json"]
    before = rest.list_training_runs().result(timeout=20)
    first.kill()
    # From before runs were written down.
    old = tmp_path / "checkpoints" / "old.train.1" / "weights" / "w"
    old.mkdir(parents=True)
    about = json.loads((first.checkpoint_folder(path) / "checkpoint.json").read_text())
    (old / "checkpoint.json").write_text(json.dumps({**about, "path": "tinker://old:train:1/weights/w", "created_at": 5.0}))
    (tmp_path / "checkpoints" / "stray").mkdir()
    (tmp_path / "checkpoints" / "damaged").mkdir()
    (tmp_path / "checkpoints" / "damaged" / "run.json").write_text("{")
    second = RunningServer(tmp_path, port=first.port)
    try:
        after = rest.list_training_runs().result(timeout=20)
        assert [found.training_run_id for found in after.training_runs] == [empty, run.model_id, "old:train:1"]
        same = [found.model_copy(update={"last_request_time": None}) for found in before.training_runs]
        assert [found.model_copy(update={"last_request_time": None}) for found in after.training_runs[:2]] == same
        assert rest.list_user_checkpoints().result(timeout=20).cursor.total_count == 3
        session_id = run.model_id.partition(":")[0]
        found = rest.get_session(session_id).result(timeout=20)
        assert (sorted(found.training_run_ids), found.sampler_ids) == (sorted([run.model_id, empty]), [])
        assert (found.user_metadata, found.display_name) == ({"job": "1"}, "Before")
        assert session_id in rest.list_sessions().result(timeout=20).sessions
        assert httpx.get(url, trust_env=False).status_code == 200, "the key is the same, so the link is"
        service = second.client()
        loaded = service.create_training_client_from_state_with_optimizer(path).result(timeout=60)
        assert loaded.forward_backward(batch(), "cross_entropy").result(timeout=60).metrics["loss:sum"] > 0
        service.close("success").result(timeout=20)
    finally:
        second.stop()
