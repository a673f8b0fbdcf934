from __future__ import annotations

import json
import threading

import pytest

from engine.jobs import logs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key tml-abcDEF_123-456!", "key tml-***!"),
        ("a\nhf_abcdefghijklmnop b", "a\nhf_*** b"),
        ("'sk-proj-1234567890abcdef'", "'sk-***'"),
        ("postgresql://ann:s3cret@db/x", "postgresql://ann:***@db/x"),
        ("postgresql://ann:s3c@ret@db/x", "postgresql://ann:***@db/x"),
        ("huggingface_hub hf_hub_download task-oriented-learning disk-full-again", None),
    ],
)
def test_secrets_are_masked(text, expected):
    assert logs.masked(text) == (text if expected is None else expected)


def test_a_result_may_have_a_field_named_token():
    value = {"token": 5, "text": "sk-abcdefghijk"}
    assert logs.masked(value) == {"token": "***", "text": "sk-***"}
    assert logs.masked(value, names=False) == {"token": 5, "text": "sk-***"}


def test_lines_go_to_both_logs():
    logs.log("info", "hello", job_id="j1", attempt=2, path="/x", headers={"Authorization": "Bearer abc"}, odd={1})
    logs.log("error", "elsewhere")
    [line] = logs.read_log("j1")
    assert {key: line[key] for key in ("level", "job", "attempt", "text", "path")} == {
        "level": "info", "job": "j1", "attempt": 2, "text": "hello", "path": "/x",
    }  # fmt: skip
    assert line["headers"] == {"Authorization": "***"} and line["odd"] == "{1}"
    assert [entry["text"] for entry in logs.read_log()] == ["hello", "elsewhere"]
    assert logs.read_log("unknown") == []


def test_a_line_that_was_cut_off_is_passed_over():
    logs.log("info", "whole")
    with logs.log_file().open("ab") as handle:
        handle.write(b'{"text": "ha')
    assert [entry["text"] for entry in logs.read_log()] == ["whole"]


def test_the_log_is_rotated(monkeypatch):
    monkeypatch.setattr(logs, "ROTATE_BYTES", 2000)

    def write(name):
        for number in range(60):
            logs.log("info", f"{name}-{number}")

    threads = [threading.Thread(target=write, args=(n,)) for n in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    names = sorted(path.name for path in logs.log_file().parent.iterdir() if path.name.startswith("thinker"))
    assert names == ["thinker.jsonl", "thinker.jsonl.1", "thinker.jsonl.2", "thinker.jsonl.3"]
    for name in names:
        for line in (logs.log_file().parent / name).read_text().splitlines():
            json.loads(line)
