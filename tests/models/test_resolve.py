"""Base models as folders: what is taken, and what each refusal says."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from engine import models
from engine.errors import ModelError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A local copy of nano."""
    return Path(shutil.copytree(models.nano_folder(), tmp_path / "model"))


def test_nano_ships_whole_and_small():
    folder = models.resolve("nano")
    assert folder == models.nano_folder()
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3_000_000


def test_a_local_folder(folder: Path):
    assert models.resolve(str(folder)) == folder


@pytest.mark.parametrize(
    ("missing", "said"),
    [("config.json", "no config.json"), ("tokenizer.json", "no tokenizer"), ("model.safetensors", "no weights")],
)
def test_a_folder_without_what_is_needed(folder: Path, missing, said):
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=said) as caught:
        models.resolve(str(folder))
    assert caught.value.where == str(folder) and caught.value.next_step


def test_pickled_weights_are_refused(folder: Path):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="only pickled weights"):
        models.resolve(str(folder))


def test_an_adapter_is_told_apart(folder: Path):
    (folder / "config.json").rename(folder / "adapter_config.json")
    with pytest.raises(ModelError, match=re.escape("an adapter (LoRA), not a whole model")):
        models.resolve(str(folder))


@pytest.mark.parametrize("name", ["./absent", "~/absent-model", "/absent/model", r"C:\absent\model", "a/b/c", "two words"])
def test_paths_that_lead_nowhere_are_never_looked_up_on_the_hub(name):
    with pytest.raises(ModelError, match="no such model folder"):
        models.resolve(name)


def test_a_file_is_no_folder(folder: Path):
    with pytest.raises(ModelError, match="a file, not a model folder"):
        models.resolve(str(folder / "config.json"))


def test_hub_ids_that_cannot_be(folder: Path):
    with pytest.raises(ModelError, match="neither a model folder nor a hub id"):
        models.resolve("some--body/x")


def test_the_hub_out_of_reach_is_named():
    with pytest.raises(ModelError, match="can't download the model") as caught:
        models.resolve("somebody/some-model")
    assert "network" in caught.value.next_step and caught.value.where == "somebody/some-model"
