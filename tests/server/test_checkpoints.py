"""Checkpoints on disk: whole or not there, whatever happens while they're written."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.errors import NotFound, StateError, StorageError
from engine.server import checkpoints
from engine.server.checkpoints import CheckpointInfo, CheckpointPath, CheckpointStore, check_name, check_ttl
from engine.server.layers import Layer
from engine.server.weights import Adapter, LoraSpec

PATH = CheckpointPath("run:train:1", "weights", "step-1")
DEAD = 2**22 + 1  # no Linux process has so high a number


def info(path: CheckpointPath = PATH, **more) -> CheckpointInfo:
    values = {"rank": 2, "train_mlp": True, "train_attn": True, "train_unembed": False, "steps": 3, "created_at": time.time()}
    return CheckpointInfo(**{"path": str(path), "base_model": "nano", "has_optimizer": True, **values, **more})


def adapter(value: float) -> Adapter:
    linear = nn.Linear(3, 4)
    pair = (nn.Parameter(torch.full((2, 3), value)), nn.Parameter(torch.zeros(4, 2)))
    return Adapter(LoraSpec(2), {"x": pair}, {"x": Layer("x", "mlp", "base_model.model.x", linear, "weight", 3, 4)})


def save(store: CheckpointStore, value: float = 1.0, path: CheckpointPath = PATH, **more) -> None:
    store.save(path, info(path, **more), adapter(value), {"0.exp_avg": torch.full((2, 3), value)})


def value_of(store: CheckpointStore, path: CheckpointPath = PATH) -> float:
    return float(store.load_adapter(path)[1]["base_model.model.x.lora_A.weight"][0, 0])


def folder(store: CheckpointStore, path: CheckpointPath = PATH) -> Path:
    return store.root / path.run.replace(":", ".") / path.kind / path.name


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def test_round_trip(store: CheckpointStore) -> None:
    save(store, 2.5, user_metadata={"renderer": "chatml"})
    found, tensors = store.load_adapter(PATH)
    assert found.spec.rank == 2 and found.user_metadata == {"renderer": "chatml"} and list(tensors)
    assert value_of(store) == 2.5 and float(store.load_optimizer(PATH)["0.exp_avg"].sum()) == 15.0
    peft = json.loads((folder(store) / "adapter_config.json").read_text())
    assert (peft["peft_type"], peft["r"], peft["lora_alpha"], peft["target_modules"]) == ("LORA", 2, 32, ["x"])
    assert peft["base_model_name_or_path"] == "nano"
    store.delete(PATH)
    assert not store.exists(PATH) and not folder(store).exists()
    for call in (store.info, store.load_adapter, store.load_optimizer, store.delete):
        with pytest.raises(NotFound):
            call(PATH)


def test_without_optimizer(store: CheckpointStore) -> None:
    store.save(PATH, info(has_optimizer=False), adapter(0.0), None)
    with pytest.raises(NotFound, match="no optimizer"):
        store.load_optimizer(PATH)


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("at", ["save_file", "_write_json", "sync_path"])
def test_a_full_disk_leaves_what_was_there(store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, at: str, replaces: bool) -> None:
    if replaces:
        save(store, 1.0)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, at, full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        save(store, 2.0)
    assert "Make room" in caught.value.next_step and str(store.root) in caught.value.where
    monkeypatch.undo()
    assert store.exists(PATH) is replaces and not list(folder(store).parent.glob(".*"))
    if replaces:
        assert value_of(store) == 1.0
    save(store, 3.0)
    assert value_of(store) == 3.0


def test_a_folder_that_can_not_be_made(store: CheckpointStore) -> None:
    (store.root / "run.train.1").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="couldn't be saved"):
        save(store)


def test_files_that_are_damaged(store: CheckpointStore) -> None:
    save(store)
    weights = folder(store) / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5])
    with pytest.raises(StorageError, match="damaged") as caught:
        store.load_adapter(PATH)
    assert str(weights) in caught.value.where
    # One bit in the middle of the numbers: the file can be read, and would be wrong.
    weights.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(StorageError, match="damaged"):
        store.load_adapter(PATH)
    weights.unlink()
    with pytest.raises(StorageError, match="can't be read"):
        store.load_adapter(PATH)
    weights.write_bytes(whole)
    about = folder(store) / "checkpoint.json"
    noted = json.loads(about.read_text())
    assert noted["digests"]["adapter_model.safetensors"] == hashlib.sha256(whole).hexdigest()
    # One from before contents were noted down loads as it always did.
    about.write_text(json.dumps({**noted, "digests": {}}))
    assert store.load_adapter(PATH)[1]
    (folder(store) / "checkpoint.json").write_text("{")
    assert not store.exists(PATH)


class TestAfterACrash:
    def leftover(self, store: CheckpointStore, suffix: str, pid: int = DEAD) -> Path:
        """A finished checkpoint under the name that it has while it's being written or replaced."""
        save(store, 7.0)
        other = folder(store).parent / f".step-1.{pid}.0123abcd.{suffix}"
        os.rename(folder(store), other)
        return other

    def test_a_draft_goes(self, store: CheckpointStore) -> None:
        draft = self.leftover(store, "tmp")
        again = CheckpointStore(store.root)
        assert not draft.exists() and not again.exists(PATH)

    def test_what_was_being_replaced_comes_back(self, store: CheckpointStore) -> None:
        old = self.leftover(store, "old")
        again = CheckpointStore(store.root)
        assert not old.exists() and value_of(again) == 7.0

    def test_what_was_replaced_goes(self, store: CheckpointStore) -> None:
        old = self.leftover(store, "old")
        save(store, 8.0)
        again = CheckpointStore(store.root)
        assert not old.exists() and value_of(again) == 8.0

    def test_another_server_at_work_is_left_alone(self, store: CheckpointStore) -> None:
        """Servers of several base models share one folder, and one may start while another saves."""
        draft = self.leftover(store, "tmp", pid=os.getppid())
        CheckpointStore(store.root)
        assert draft.exists()

    def test_drafts_of_single_files_go(self, store: CheckpointStore) -> None:
        save(store)
        drafts = [folder(store) / f".checkpoint.json.{DEAD}.0123abcd.tmp", folder(store).parents[1] / f".run.json.{DEAD}.0123abcd.tmp"]
        for draft in drafts:
            draft.write_text("{")
        assert CheckpointStore(store.root).exists(PATH) and not any(draft.exists() for draft in drafts)

    def test_a_foreign_file_is_no_trouble(self, store: CheckpointStore) -> None:
        save(store)
        stray = folder(store).parent / ".stray.tmp"
        stray.write_text("")
        assert CheckpointStore(store.root).exists(PATH)


def test_the_expired_are_not_there_and_go_at_the_next_start(store: CheckpointStore) -> None:
    save(store, expires_at=time.time() + 60)
    other = CheckpointPath("run:train:1", "weights", "expired")
    save(store, path=other, expires_at=time.time() - 1)
    assert store.exists(PATH) and not store.exists(other)
    CheckpointStore(store.root)
    assert folder(store).exists() and not folder(store, other).exists()


def test_paths() -> None:
    assert CheckpointPath.parse(str(PATH)) == PATH
    for text in (
        "", "weights", "tinker://", "tinker://a/weights", "tinker://a/weights/b/c", "tinker://a/other_weights/b", "tinker://../weights/b",
        "tinker://a/weights/..", "tinker://a/weights/.b", "tinker:///weights/b", "tinker://a\\b/weights/c", "tinker://a/weights/b\0", "TINKER://a/weights/b",
        "tinker://a/weights/" + "b" * 129, "tinker://tinker://a/weights/b", "tinker://a/weights/b\n",
    ):  # fmt: skip
        with pytest.raises(NotFound, match="is no checkpoint path"):
            CheckpointPath.parse(text)


def test_names_and_times_to_live() -> None:
    for name in ("a", "step-000001", "A.b_c-9", "x" * 128):
        check_name(name)
    for name in ("", ".", "..", "-a", "a/b", "a\\b", "a b", "a\n", "é", "x" * 129):
        with pytest.raises(StateError):
            check_name(name)
    for seconds in (None, 3600, 10 * 365 * 24 * 3600):
        check_ttl(seconds)
    for seconds in (0, -1, 3599, 10 * 365 * 24 * 3600 + 1):
        with pytest.raises(StateError, match="3600"):
            check_ttl(seconds)
