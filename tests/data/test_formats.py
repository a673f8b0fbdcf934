"""Layouts, names of columns, and rows that can't be used."""

from __future__ import annotations

import json

import pytest

from engine.data import read_examples
from engine.errors import DataError

USER, ANSWER = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
SYSTEM = {"role": "system", "content": "S"}


@pytest.fixture
def read(tmp_path):
    def read(*rows, **options):
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_examples(path, **options)

    return read


@pytest.mark.parametrize(
    ("row", "format", "messages"),
    [
        ({"messages": [USER, ANSWER]}, "messages", [USER, ANSWER]),
        ({"messages": [SYSTEM, USER, ANSWER, USER, ANSWER]}, "messages", [SYSTEM, USER, ANSWER, USER, ANSWER]),
        ({"messages": [USER, ANSWER], "system": "S"}, "messages", [SYSTEM, USER, ANSWER]),
        ({"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]}, "messages", [USER, ANSWER]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, ANSWER]}, "messages", [USER, ANSWER]),
        ({"messages": [{"role": "developer", "content": "S"}, USER, ANSWER]}, "messages", [SYSTEM, USER, ANSWER]),
        ({"messages": json.dumps([USER, ANSWER])}, "messages", [USER, ANSWER]),
        ({"prompt": "Q", "completion": "A"}, "prompt_completion", [USER, ANSWER]),
        ({"prompt": "Q", "completion": "A", "system": "S"}, "prompt_completion", [SYSTEM, USER, ANSWER]),
        ({"prompt": [SYSTEM, USER], "completion": [ANSWER]}, "prompt_completion", [SYSTEM, USER, ANSWER]),
        ({"question": "Q", "answer": "A"}, "prompt_completion", [USER, ANSWER]),
        ({"Question": "Q", "Response": "A"}, "prompt_completion", [USER, ANSWER]),
        ({"input": "Q", "output": "A"}, "prompt_completion", [USER, ANSWER]),
        ({"instruction": "Q", "output": "A"}, "alpaca", [USER, ANSWER]),
        ({"instruction": "Q", "input": "", "output": "A"}, "alpaca", [USER, ANSWER]),
        ({"instruction": "Q", "input": "more", "output": "A", "system": "S"}, "alpaca",
         [SYSTEM, {"role": "user", "content": "Q\n\nmore"}, ANSWER]),
        ({"instruction": "Q", "input": None, "output": "A", "history": [["Q", "A"]]}, "alpaca", [USER, ANSWER, USER, ANSWER]),
    ],
)  # fmt: skip
def test_layouts(read, row, format, messages):
    report = read(row)
    assert (report.format, report.examples[0].messages, report.examples[0].row) == (format, messages, 1)
    assert read(row, format=format).examples == report.examples


def test_mapping(read):
    row = {"Frage": "Q", "Antwort": "A", "prompt": "not this"}
    report = read(row, mapping={"prompt": "Frage", "completion": "Antwort"})
    assert report.examples[0].messages == [USER, ANSWER]
    assert report.mapping == {"prompt": "Frage", "completion": "Antwort"}
    with pytest.raises(DataError, match="'Fragen' that the file doesn't have"):
        read(row, mapping={"prompt": "Fragen"})
    with pytest.raises(DataError, match="'query' isn't a standard field"):
        read(row, mapping={"query": "Frage"})


def test_layout_that_cant_be_told_lists_the_columns(read):
    with pytest.raises(DataError, match="a, b") as raised:
        read({"a": "1", "b": "2"})
    assert "map" in raised.value.next_step
    with pytest.raises(DataError, match="format alpaca: instruction and output"):
        read({"prompt": "Q", "completion": "A"}, format="alpaca")
    with pytest.raises(DataError, match="no format called"):
        read({"prompt": "Q"}, format="xml")


GOOD = {"messages": [USER, ANSWER]}
PAIR = {"prompt": "Q", "completion": "A"}


@pytest.mark.parametrize(
    ("good", "bad", "field", "message"),
    [
        (PAIR, {"prompt": "Q"}, "completion", "missing"),
        (PAIR, {"prompt": "Q", "completion": 42}, "completion", "a number, not text"),
        (PAIR, {"prompt": "Q", "completion": None}, "completion", "null, not text"),
        (PAIR, {"prompt": "Q", "completion": " "}, "completion", "the answer is empty"),
        (PAIR, {"prompt": "", "completion": "A"}, "prompt", "the prompt is empty"),
        (PAIR, {"prompt": "\ud800", "completion": "A"}, "", "half a character"),
        (GOOD, {"messages": "hello"}, "messages", "text, not a list"),
        (GOOD, {"messages": []}, "messages", "empty"),
        (GOOD, {"messages": [USER]}, "messages", "the last message is the user's"),
        (GOOD, {"messages": [USER, ANSWER, USER]}, "messages", "the last message is the user's"),
        (GOOD, {"messages": [ANSWER]}, "messages", "starts with an answer"),
        (GOOD, {"messages": [USER, {"role": "assistant", "content": ""}]}, "messages", "the answer is empty (message 2)"),
        (GOOD, {"messages": [USER, {"role": "assistant"}]}, "messages", "message 2 has no content"),
        (GOOD, {"messages": [USER, {"role": "assistant", "content": 1}]}, "messages", "a number, not text"),
        (GOOD, {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{}]}]}, "messages", "calls tools"),
        (GOOD, {"messages": [{"role": "alien", "content": "Q"}, ANSWER]}, "messages", "unknown role 'alien'"),
        (GOOD, {"messages": [{"content": "Q"}, ANSWER]}, "messages", "no role"),
        (GOOD, {"messages": ["Q", "A"]}, "messages", "message 1 is text"),
        ({"instruction": "Q", "output": "A", "history": []}, {"instruction": "Q", "output": "A", "history": ["x"]}, "history", "pairs"),
    ],
)
def test_bad_rows_are_named_and_the_good_ones_kept(read, good, bad, field, message):
    report = read(good, bad, good)
    assert [example.row for example in report.examples] == [1, 3]
    (problem,) = report.problems
    assert (problem.row, problem.field) == (2, field)
    assert message in problem.message and problem.fix
    assert report.stats == report.stats | {"rows": 3, "examples": 2, "problems": 1}


def test_problem_names_your_own_column(read):
    report = read({"Frage": "Q", "Antwort": "A"}, {"Frage": "Q"}, mapping={"prompt": "Frage", "completion": "Antwort"})
    assert str(report.problems[0]).startswith("line 2, Antwort: the field is missing")


def test_replay_rows_keep_their_mark(read):
    report = read({**PAIR, "kind": "replay"}, PAIR)
    assert [example.kind for example in report.examples] == ["replay", "task"]
    assert report.stats["replay"] == 1 and report.stats["repeated_prompts"] == 1
