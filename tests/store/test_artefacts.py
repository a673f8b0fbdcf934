from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine import paths
from engine.errors import StorageError
from engine.store import artefacts

ROOT = Path(__file__).parents[2]


def test_whole_or_absent(tmp_path):
    path = tmp_path / "deep" / "a.json"
    artefacts.write_json_atomic(path, {"ö": 1})
    artefacts.write_json_atomic(path, {"ö": 2})
    assert json.loads(path.read_text(encoding="utf-8")) == {"ö": 2}
    with pytest.raises(TypeError):
        artefacts.write_json_atomic(path, object())
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on a file's size")
def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = artefacts.write_bytes_atomic(tmp_path / "w.bin", b"good")
    program = (
        "import pathlib, resource, signal, sys\n"
        "from engine.errors import StorageError\n"
        "from engine.store import artefacts\n"
        # A file-size limit fails writes half-way, as a full disk does.
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    artefacts.write_bytes_atomic(pathlib.Path(sys.argv[1]), b'x' * 5000)\n"
        "except StorageError:\n"
        "    sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", program, str(path)], cwd=ROOT, check=False).returncode == 7
    assert path.read_bytes() == b"good" and [p.name for p in tmp_path.iterdir() if p.is_file()] == ["w.bin"]


def test_what_a_killed_process_left_goes_and_what_another_writes_stays(tmp_path):
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    (tmp_path / f".a.json.{done.pid}.0123abcd.tmp").write_text("{")
    (tmp_path / f".adapter.{done.pid}.0123abcd.tmp").mkdir()
    (tmp_path / f".copied.{done.pid}.0123abcd.old").mkdir()
    kept = [f".b.json.{os.getppid()}.0123abcd.tmp", ".stray.tmp", "a.json"]
    for name in kept:
        (tmp_path / name).write_text("{}")
    artefacts.sweep(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} - {"thinker_home"} == {*kept, "copied"}


def test_a_folder_in_the_way(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "x").write_text("")
    with pytest.raises(StorageError, match="can't be written"):
        artefacts.write_bytes_atomic(tmp_path / "w", b"x")


def test_copies_into_the_job_folder(tmp_path):
    source = tmp_path / "data.jsonl"
    source.write_bytes(b"{}\n" * 1000)
    copy = artefacts.copy_to_job(source, "abc", "data.jsonl")
    assert copy == paths.home() / "jobs" / "abc" / "data.jsonl" and copy.read_bytes() == source.read_bytes()
    with pytest.raises(StorageError):
        artefacts.copy_to_job(tmp_path / "absent", "abc", "x")
    (tmp_path / "adapter" / "deep").mkdir(parents=True)
    for text in ("old", "new"):
        (tmp_path / "adapter" / "deep" / "w").write_text(text)
        copied = artefacts.copy_to_job(tmp_path / "adapter", "abc", "adapter")
        assert (copied / "deep" / "w").read_text() == text
    artefacts.remove_job_folder("abc")
    assert not (paths.home() / "jobs" / "abc").exists()
