"""What lies at an endpoint elsewhere: a run's checkpoints on a second server, listed, labelled, published, expiring, fetched, deleted."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine, keys
from engine.errors import EndpointError, EngineError, KeyNeeded, NotAllowed, NotFound, RecipeError, StateError
from engine.stored import Kept, summed
from tests.server.harness import KEY, RunningServer

pytestmark = pytest.mark.slow
SHORT = {"endpoint": "tinker", "training": {"steps": 4, "batch_size": 4}, "data": {"held_out_max": 4}, "checkpoints": {"every_steps": 2}}
SHORT["evaluation"] = {"skills": False, "proof": False, "eval_every": 0, "samples_every": 0}


@pytest.fixture(scope="module")
def trained(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A data directory with one run that was trained there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THINKER_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("TINKER_BASE_URL", server.url)
        with Engine() as engine:
            engine.keys.give("tinker", KEY)
            engine.run(engine.demo_recipe("piglatin", SHORT))
            yield engine
        for owner, name in keys.held():
            keys.unhold(owner, name)


@pytest.fixture
def engine(trained: Engine, monkeypatch: pytest.MonkeyPatch, server: RunningServer) -> Engine:
    from engine import paths

    monkeypatch.setenv("TINKER_BASE_URL", server.url)
    monkeypatch.setenv("THINKER_HOME", str(Path(trained.store.url.removeprefix("sqlite:///")).parent))
    assert paths.home().exists()
    return trained


def at(engine: Engine, step: int, kind: str) -> Kept:
    return next(one for one in engine.stored.listed("tinker") if (one.step, one.kind) == (step, kind))


def test_listed(engine: Engine) -> None:
    kept, job, model = engine.stored.listed("tinker"), engine.jobs()[0], engine.models()[0]
    assert {(one.step, one.kind) for one in kept} >= {(2, "weights"), (2, "sampler_weights"), (4, "weights"), (4, "sampler_weights")}
    assert {one.job_id for one in kept} == {job.id} and all(one.bytes and one.bytes > 1000 for one in kept)
    assert all(abs(one.saved_at - time.time()) < 300 and one.expires_at is None and not one.public for one in kept)
    assert [one.path for one in kept if one.used_by] and {one.path for one in kept if one.used_by} == {
        model.sampler_path,
        model.weights_path,
    }
    assert kept == sorted(kept, key=lambda one: -one.saved_at) and all(one.page == "" for one in kept), "no console knows this server"
    assert engine.stored.places() == ["tinker"] and summed(kept).startswith(f"{len(kept)} checkpoints, ")
    # At the end there is a second copy of what goes on, at the server itself.
    second = {one.path for one in kept if one.path.endswith("-backup")}
    assert {point.path for point in engine.checkpoints(job.id)} == {one.path for one in kept} - second and len(second) == 1


def test_labels_are_ours(engine: Engine, server: RunningServer) -> None:
    path = at(engine, 2, "weights").path
    engine.stored.label("tinker", path, "  the  early one ")
    assert at(engine, 2, "weights").label == "the early one" and "early" not in server.http().get("checkpoints").text
    with pytest.raises(RecipeError):
        engine.stored.label("tinker", path, "x" * 121)
    engine.stored.label("tinker", path, "")
    assert at(engine, 2, "weights").label == ""


def test_published_and_taken_back(engine: Engine) -> None:
    path = at(engine, 4, "sampler_weights").path
    engine.stored.publish("tinker", path)
    assert at(engine, 4, "sampler_weights").public
    engine.stored.publish("tinker", path, False)
    assert not at(engine, 4, "sampler_weights").public


def test_expiry(engine: Engine) -> None:
    path = at(engine, 2, "sampler_weights").path
    engine.stored.expire("tinker", path, 7200)
    assert at(engine, 2, "sampler_weights").expires_at == pytest.approx(time.time() + 7200, abs=60)
    engine.stored.expire("tinker", path, None)
    assert at(engine, 2, "sampler_weights").expires_at is None
    for seconds in (0, 60, -5, 10**10):
        with pytest.raises(RecipeError, match="an hour"):
            engine.stored.expire("tinker", path, seconds)


def test_fetched_as_a_peft_folder(engine: Engine, server: RunningServer, tmp_path: Path) -> None:
    """By the state it was saved with, whichever of the two is chosen; the same weights as the server's own."""
    from safetensors.numpy import load_file

    told: list[str] = []
    folder = engine.stored.download("tinker", at(engine, 4, "sampler_weights").path, tmp_path / "mine", told.append)
    assert {file.name for file in folder.iterdir()} >= {"adapter_model.safetensors", "adapter_config.json"} and told[
        0
    ] == "having it packed"
    assert json.loads((folder / "adapter_config.json").read_text())["peft_type"] == "LORA"
    own = load_file(server.checkpoint_folder(at(engine, 4, "sampler_weights").path) / "adapter_model.safetensors")
    fetched = load_file(folder / "adapter_model.safetensors")
    assert own.keys() == fetched.keys() and all((own[name] == fetched[name]).all() for name in own)
    with pytest.raises(StateError, match="isn't empty"):
        engine.stored.download("tinker", at(engine, 4, "weights").path, folder)
    packed = at(engine, None, "external_weights")
    assert packed.expires_at is not None, "the packed copy is gone after a day"
    with zipfile.ZipFile(io.BytesIO(engine.stored.archive("tinker", packed.path))) as names:
        assert {name.rpartition("/")[2] for name in names.namelist()} >= {"adapter_model.safetensors", "adapter_config.json"}


def test_a_download_that_fails_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    gone = at(engine, 4, "weights").path.replace("weights/", "weights/gone-")
    with pytest.raises(EngineError) as caught:
        engine.stored.download("tinker", gone, tmp_path / "mine")
    assert KEY not in str(caught.value) and not (tmp_path / "mine").exists()
    with pytest.raises(NotFound, match="no checkpoint's path"):
        engine.stored.download("tinker", "tinker://a/b/../../c", tmp_path / "mine")


def test_deleted(engine: Engine) -> None:
    path = at(engine, 2, "sampler_weights").path
    engine.stored.label("tinker", path, "soon gone")
    engine.stored.delete("tinker", path)
    assert path not in {one.path for one in engine.stored.listed("tinker")}
    with pytest.raises(NotFound):
        engine.stored.delete("tinker", path)
    job = engine.jobs()[0]
    kept = at(engine, 2, "weights").path
    waiting = engine.store.create_job(job.recipe, "local")
    claimed = engine.store.claim_job("test", 3600, waiting.id)
    engine.store.record(
        waiting.id, claimed.attempt,
        checkpoints=[{"step": 1, "kind": "weights", "path": kept, "reason": "pause", "loop_state": {}, "renderer": "auto"}],
    )  # fmt: skip
    with pytest.raises(StateError, match="may go on from it"):
        engine.stored.delete("tinker", kept)


def test_whose_they_are(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    with Engine("visitor-1") as visitor:
        assert visitor.stored.places() == []
        with pytest.raises(KeyNeeded):
            visitor.stored.listed("tinker")
        with pytest.raises(NotAllowed):
            visitor.stored.download("tinker", "tinker://a/weights/b")
    with pytest.raises(StateError, match="own folder"):
        engine.stored.listed("local")
    monkeypatch.setenv("TINKER_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(EndpointError, match="can't be reached"):
        engine.stored.listed("tinker")
