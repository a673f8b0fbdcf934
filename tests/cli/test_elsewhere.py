"""What is elsewhere, by commands: a server named and trained on within a limit, then resumed; its checkpoints listed, fetched, deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import QUICK
from tests.running import Done, end_processes, shouting
from tests.server.harness import KEY, RunningServer

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def nothing_runs_on(thinker_home: Path) -> Iterator[None]:
    yield
    end_processes(thinker_home)


def test_from_naming_it_to_taking_the_model_home(call: Callable[..., Done], server: RunningServer, tmp_path: Path) -> None:
    assert "none yet" in call("servers", "list", fresh=True).out
    made = call("servers", "add", "lab", server.url, "--json", stdin=f"{KEY}\n", fresh=True)
    assert made.code == 0 and made.json["models"] == ["nano"] and made.json["key"] is True and KEY not in made.out + made.err
    doctor = call("doctor", "--json", fresh=True).json["checks"]
    found = next(check for check in doctor if check["name"] == "lab")
    assert found["ok"] and "1 model to train" in found["says"] and "cross_entropy" in found["says"]
    assert next(check for check in doctor if check["name"] == "Tinker key")["ok"] is None

    data = shouting(tmp_path / "loud.jsonl")
    trained = call("train", data, *QUICK, "--at", "lab", "--set", "budget.max_tokens=100000", "--json", fresh=True)
    assert trained.code == 0, trained.err
    stored = call("stored", "list", "--at", "lab", "--json", fresh=True).json["stored"]
    assert {one["job_id"] for one in stored} == {trained.json["job_id"]}
    path = next(one["path"] for one in stored if one["kind"] == "weights")
    assert call("stored", "label", path, "the first", "--at", "lab", fresh=True).code == 0
    assert "the first" in call("stored", "list", "--at", "lab", fresh=True).out
    folder = tmp_path / "mine"
    assert call("stored", "download", path, "--at", "lab", "--to", folder, fresh=True).code == 0
    assert (folder / "adapter_config.json").is_file()
    assert call("stored", "expire", path, "--hours", "2", "--at", "lab", fresh=True).code == 0
    refused = call("stored", "delete", path, "--at", "lab", fresh=True)
    assert refused.code == 1 and "--yes" in refused.err
    for action in (("publish", path, "--yes"), ("unpublish", path), ("delete", path, "--yes")):
        assert call("stored", *action, "--at", "lab", fresh=True).code == 0
    assert path not in {one["path"] for one in call("stored", "list", "--at", "lab", "--json", fresh=True).json["stored"]}
    assert call("servers", "forget", "lab", fresh=True).code == 0
    gone = call("stored", "list", "--at", "lab", fresh=True)
    assert gone.code == 1 and "no endpoint" in gone.err


def test_a_limit_and_more(call: Callable[..., Done], tmp_path: Path) -> None:
    data = shouting(tmp_path / "loud.jsonl")
    stopped = call("train", data, *QUICK, "--set", "evaluation.proof=false", "--set", "budget.max_tokens=900", "--json", fresh=True)
    assert stopped.code == 1 and "its limit is 900" in stopped.err
    job_id = call("jobs", "--json", fresh=True).json["jobs"][0]["id"]
    again = call("resume", job_id, fresh=True)
    assert again.code == 1 and "at its limit" in again.err
    assert call("resume", job_id, "--max-tokens", "0", fresh=True).code == 0
    assert call("watch", job_id, "--json", fresh=True).json["state"] == "done"
