"""Files that people bring, good and bad: each fault is named with its place and a remedy."""

from __future__ import annotations

import gzip
import json
import os
import sys
import tracemalloc

import pytest

from engine.data import read_examples
from engine.data.files import MAX_ROW_BYTES
from engine.errors import DataError

ROW = {"prompt": "Q", "completion": "A"}
LINE = json.dumps(ROW) + "\n"


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def fault(path, **options) -> DataError:
    with pytest.raises(DataError) as raised:
        read_examples(path, **options)
    assert raised.value.next_step
    return raised.value


def test_jsonl_json_and_csv_give_the_same_examples(write):
    for path in [
        write("a.jsonl", LINE * 2),
        write("b.ndjson", LINE + "\n\n" + LINE),
        write("c.json", json.dumps([ROW, ROW], indent=1)),
        write("d.csv", "prompt,completion\nQ,A\nQ,A\n"),
        write("e.tsv", "prompt\tcompletion\nQ\tA\nQ\tA\n"),
        write("f.csv", "prompt;completion\r\nQ;A\r\n\r\nQ;A\r\n"),
        write("g.json", LINE * 2),
        write("h.jsonl", json.dumps([ROW, ROW])),
        write("i", LINE * 2),
    ]:
        report = read_examples(path)
        assert [(example.prompt, example.answer) for example in report.examples] == [([{"role": "user", "content": "Q"}], "A")] * 2, path
        assert not report.problems


def test_a_byte_order_mark_is_no_matter(write):
    mark = b"\xef\xbb\xbf"
    for path in [
        write("a.jsonl", mark + LINE.encode()),
        write("b.json", mark + json.dumps([ROW]).encode()),
        write("c.csv", mark + b"prompt,completion\nQ,A\n"),
    ]:
        assert read_examples(path).examples[0].answer == "A"


def test_csv_text_may_hold_commas_quotes_and_line_breaks(write):
    path = write("a.csv", 'prompt,completion\n"one, ""two""\nthree",A\nQ,B\n')
    first, second = read_examples(path).examples
    assert first.prompt[0]["content"] == 'one, "two"\nthree'
    assert (first.row, second.row) == (2, 3)


def test_csv_rows_are_counted_as_a_spreadsheet_does(write):
    report = read_examples(write("a.csv", 'prompt,completion\n\n"one\ntwo",A\nQ\n'))
    assert ([example.row for example in report.examples], [problem.row for problem in report.problems]) == ([3], [4])


def test_long_csv_cells(write):
    assert len(read_examples(write("a.csv", "prompt,completion\nQ," + "x" * 200_000 + "\n")).examples[0].answer) == 200_000


def test_no_file_and_a_folder(tmp_path):
    assert "no such file" in fault(tmp_path / "absent.jsonl").message
    assert "folder" in fault(tmp_path).message


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", ""), ("b.csv", " \n\n"), ("c.json", "\n"), ("d.json", "[]")])
def test_empty_files(write, name, content):
    error = fault(write(name, content))
    assert "empty" in error.message and name in error.where


def test_csv_with_a_header_alone(write):
    assert "no rows" in fault(write("a.csv", "prompt,completion\n")).message


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "binary"),
        (gzip.compress(LINE.encode()), "gzip"),
        (b"PK\x03\x04" + bytes(50), "Excel"),
    ],
)
def test_binary_files(write, content, what):
    error = fault(write("data.jsonl", content))
    assert what in error.message and "data.jsonl" in error.where


def test_unknown_kind(write):
    assert ".docx" in fault(write("a.docx", "hello")).message


def test_broken_json_on_line_17_is_named_and_the_rest_is_read(write):
    report = read_examples(write("a.jsonl", LINE * 16 + '{"prompt": "Q", "completion": \n' + LINE * 3))
    assert len(report.examples) == 19
    (problem,) = report.problems
    assert (problem.row, problem.place) == (17, "line 17")
    assert "isn't JSON" in problem.message and "column 30" in problem.message and problem.fix
    assert report.stats["rows"] == 20


def test_broken_json_file_names_the_line(write):
    error = fault(write("a.json", '[\n{"prompt": "Q", "completion": "A"},\n{"prompt": }\n]'))
    assert error.where.endswith("a.json, line 3")


def test_nothing_usable_quotes_the_first_problem(write):
    error = fault(write("a.jsonl", "hello\nworld\n"))
    assert "none of the 2 rows" in error.message and "isn't JSON" in error.message and error.where.endswith("line 1")


def test_latin_1_is_named_by_line_and_byte(write):
    text = LINE + '{"prompt": "caf\u00e9", "completion": "A"}\n'
    for name, content, line in [
        ("a.jsonl", text, 2),
        ("b.csv", "prompt,completion\nQ,A\ncaf\u00e9,A\n", 3),
        ("c.json", f'[\n{LINE},\n"\u00e9"]', 4),
    ]:
        raw = content.encode("latin-1")
        error = fault(write(name, raw))
        assert f"offset {raw.index(0xE9)}" in error.message and "0xe9" in error.message
        assert error.where.endswith(f"line {line}") and "UTF-8" in error.next_step


def test_utf_16_is_named(write):
    for name in ("a.csv", "a.jsonl"):
        error = fault(write(name, LINE.encode("utf-16")))
        assert "UTF-16" in error.message and "UTF-8" in error.next_step


def test_a_100_mb_line_is_refused_in_bounded_memory(tmp_path):
    path = tmp_path / "big.jsonl"
    with path.open("wb") as file:
        file.write(LINE.encode() + b'{"prompt": "')
        for _ in range(100):
            file.write(b"x" * 2**20)
        file.write(b'", "completion": "A"}\n' + LINE.encode())
    tracemalloc.start()
    report = read_examples(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (problem,) = report.problems
    assert problem.row == 2 and "100.0 MB" in problem.message and "10 MB" in problem.message and problem.fix
    assert [example.row for example in report.examples] == [1, 3]
    assert peak < 4 * MAX_ROW_BYTES


def test_a_huge_csv_line_is_refused(write):
    error = fault(write("a.csv", "prompt,completion\nQ," + "x" * (MAX_ROW_BYTES + 10) + "\n"))
    assert "10 MB" in error.message and error.where.endswith("line 2")


def test_ragged_csv_rows(write):
    report = read_examples(write("a.csv", "prompt,completion\nQ,A\nWell, yes,A\nQ\nQ,A\n"))
    assert [(problem.row, problem.unit) for problem in report.problems] == [(3, "row"), (4, "row")]
    assert "3 columns" in report.problems[0].message and "header has 2" in report.problems[0].message
    assert len(report.examples) == 2


def test_a_repeated_column(write):
    assert "two columns" in fault(write("a.csv", "prompt,prompt\nQ,A\n")).message


def test_a_quote_that_is_never_closed(write):
    error = fault(write("a.csv", 'prompt,completion\n"Q,A\n' + "Q,A\n" * (MAX_ROW_BYTES // 4)))
    assert "quote" in error.next_step


def test_an_object_instead_of_a_list(write):
    error = fault(write("a.json", json.dumps({"version": 1, "data": [ROW]})))
    assert "an object, not a list" in error.message and "'data'" in error.next_step
    assert "text, not a list" in fault(write("b.json", '"hello"')).message


def test_rows_that_arent_objects(write):
    report = read_examples(write("a.jsonl", LINE + "[1]\n5\n" + LINE))
    assert [problem.row for problem in report.problems] == [2, 3]
    report = read_examples(write("a.json", json.dumps([ROW, "x"])))
    assert report.problems[0].place == "item 2"


def test_json_bombs(write):
    report = read_examples(write("a.jsonl", LINE + "[" * 100_000 + "\n" + '{"prompt": ' + "9" * 5000 + "}\n"))
    assert [problem.row for problem in report.problems] == [2, 3]


@pytest.mark.skipif(sys.platform == "win32" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs file permissions")
def test_a_file_that_may_not_be_read(write):
    path = write("a.jsonl", LINE)
    path.chmod(0)
    assert "can't read" in fault(path).message
