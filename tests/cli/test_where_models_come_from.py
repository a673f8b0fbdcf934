"""A user's own data on a local model folder and on a hub id: the same command, the same way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from engine import models
from tests.cli.conftest import QUICK
from tests.fakes.hub import FakeHub
from tests.running import cli, end_processes, shouting


@pytest.fixture
def desk(tmp_path: Path):
    """A folder to work in, with data and a model in it."""
    shouting(tmp_path / "loud.jsonl")
    shutil.copytree(models.nano_folder(), tmp_path / "my-model")
    yield tmp_path
    end_processes(tmp_path / "home")


@pytest.mark.slow
def test_a_local_folder(desk: Path):
    done = cli(desk / "home", "train", "loud.jsonl", "--model", "./my-model", *QUICK, "--json")
    assert done.code == 0, done.err
    assert done.json["held_out"]["after"]["perplexity"] < done.json["held_out"]["before"]["perplexity"] / 2
    assert done.json["skills"] == {"before": None, "after": None}, "what another model could do before isn't known"
    # The model is found again from any folder.
    said = cli(desk / "home", "chat", "Shout word3", "--max-tokens", "8", "--json", cwd=desk / "my-model")
    assert said.json["answer"].startswith("WORD")
    [model] = cli(desk / "home", "models", "--json").json["models"]
    assert model["base_model"] == str(desk / "my-model")


@pytest.mark.slow
def test_a_hub_id(desk: Path):
    (desk / "my-model" / "pytorch_model.bin").write_bytes(b"a pickle, which is not for us")
    with FakeHub({"somebody/small": desk / "my-model"}) as hub:
        env = hub.environment(desk / "hub-cache")
        done = cli(desk / "home", "train", "loud.jsonl", "--model", "somebody/small", *QUICK, "--json", **env)
        assert done.code == 0, done.err
        assert any(path.endswith("/model.safetensors") for path in hub.requests)
        assert not any(path.endswith(".bin") for path in hub.requests)
        unknown = cli(desk / "home", "train", "loud.jsonl", "--model", "somebody/absent", "--json", **env)
        assert unknown.code == 1 and unknown.json["error"]["kind"] == "ModelError"
        assert "the hub has no model of that name" in unknown.err and "somebody/absent" in unknown.err
    # What was downloaded is used without the hub.
    said = cli(desk / "home", "chat", "Shout word3", "--max-tokens", "8", "--json", **{**env, "HF_HUB_OFFLINE": "1"})
    assert said.code == 0 and said.json["answer"].startswith("WORD"), said.err
    [model] = cli(desk / "home", "models", "--json").json["models"]
    assert model["base_model"] == "somebody/small"
