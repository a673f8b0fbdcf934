"""What goes wrong most often, as a person meets it: one paragraph with the place and what to do, before anything is started."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from engine import models

GOOD = json.dumps({"prompt": "a", "completion": "b"})


@pytest.fixture
def refused(call, thinker_home: Path):
    """The command is refused; nothing was started or noted. Gives back the error's JSON form."""

    def check(*arguments, names: tuple[str, ...]) -> dict:
        done = call(*arguments, "--json", fresh=True)
        assert done.code == 1
        error = done.json["error"]
        assert done.err.startswith("thinker: ") and len(done.err.strip().splitlines()) == 1, "one paragraph"
        assert error["next_step"] and all(name in done.err for name in names), done.err
        assert not list(thinker_home.glob("servers/*")) and not list(thinker_home.glob("jobs/*"))
        assert call("jobs", "--json", fresh=True).json == {"jobs": []}
        return error

    return check


@pytest.mark.parametrize(
    ("name", "content", "names"),
    [
        ("empty.jsonl", b"", ("empty.jsonl", "empty")),
        ("blank.jsonl", b"\n\n  \n", ("blank.jsonl",)),
        ("binary.jsonl", bytes(range(256)) * 8, ("binary.jsonl",)),
        ("zipped.csv", b"PK\x03\x04" + b"x" * 100, ("zipped.csv", "Excel")),
        ("wrong.jsonl", f"{GOOD}\n".encode() * 3 + b'{"prompt": "caf\xe9", "completion": "b"}', ("wrong.jsonl", "line 4", "UTF-8")),
        ("columns.jsonl", b'{"foo": 1, "bar": 2}\n', ("columns.jsonl", "foo")),
        ("none.jsonl", b'{"prompt": ""}\n', ("none.jsonl",)),
        ("broken.json", b'[{"prompt": "a",\n "completion": }]', ("broken.json", "line 2")),
        ("notes.docx", b"text", ("notes.docx", ".docx")),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", [("train",), ("data", "check")])
def test_files_that_can_not_be_used(refused, tmp_path: Path, command, name, content, names):
    file = tmp_path / name
    file.write_bytes(content)
    error = refused(*command, file, names=names)
    assert error["kind"] == "DataError" and str(file) in error["where"]


def test_broken_json_on_line_17(refused, call, tmp_path: Path):
    file = tmp_path / "seventeen.jsonl"
    broken = '{"prompt": "a", "comple'
    file.write_text("\n".join([GOOD] * 16 + [broken] + [GOOD] * 3), encoding="utf-8")
    checked = call("data", "check", file)
    assert checked.code == 1 and "line 17" in checked.out
    file.write_text("\n" * 16 + broken, encoding="utf-8")
    refused("train", file, names=("seventeen.jsonl", "line 17"))


@pytest.mark.parametrize(
    ("arguments", "kind", "names"),
    [
        (["nosuch.jsonl"], "DataError", ("nosuch.jsonl", "no such file")),
        (["."], "DataError", ("folder",)),
        (["--demo", "nosuch"], "NotFound", ("nosuch", "piglatin")),
        (["--recipe", "nosuch.yaml"], "RecipeError", ("nosuch.yaml",)),
        ([], "RecipeError", ("data file", "--demo")),
        (["a.jsonl", "--demo", "piglatin"], "RecipeError", ("not several",)),
        (["--demo", "piglatin", "--steps", "0"], "RecipeError", ("training.steps",)),
        (["--demo", "piglatin", "--set", "training.speed=3"], "RecipeError", ("training.speed",)),
        (["--demo", "piglatin", "--set", "nothing"], "RecipeError", ("--set",)),
        (["--demo", "piglatin", "--set", "name=[1"], "RecipeError", ("--set",)),
        (["--demo", "piglatin", "--set", "lora=3", "--set", "lora.rank=3"], "RecipeError", ("lora",)),
        (["--demo", "piglatin", "--set", "endpoint=moon"], "RecipeError", ("moon", "local")),
        (["--demo", "piglatin", "--renderer", "llama3"], "ModelError", ("llama3", "auto")),
        (["--demo", "piglatin", "--model", "./nosuch"], "ModelError", ("./nosuch",)),
    ],
)
def test_choices_that_can_not_be(refused, tmp_path, monkeypatch, arguments, kind, names):
    monkeypatch.chdir(tmp_path)
    assert refused("train", *arguments, names=names)["kind"] == kind


def test_a_model_folder_without_a_tokenizer(refused, tmp_path: Path):
    folder = Path(shutil.copytree(models.nano_folder(), tmp_path / "model"))
    (folder / "tokenizer.json").unlink()
    error = refused("train", "--demo", "piglatin", "--model", folder, names=("tokenizer.json",))
    assert error["kind"] == "ModelError" and error["where"] == str(folder)


def test_unknown_runs_and_models(refused):
    for command in ("show", "watch", "pause", "stop", "resume", "delete"):
        assert refused(command, "nosuch", names=("nosuch",))["kind"] == "NotFound"
    assert refused("chat", "hello", "--model", "nosuch", names=("nosuch", "models"))["kind"] == "NotFound"


def test_a_data_directory_that_can_not_be(call, tmp_path: Path, thinker_home: Path):
    thinker_home.write_text("a file is in the way", encoding="utf-8")
    refused = call("jobs", "--json", fresh=True)
    assert refused.code == 1 and refused.json["error"]["kind"] == "StorageError"
    assert str(thinker_home) in refused.err and "THINKER_HOME" in refused.err
