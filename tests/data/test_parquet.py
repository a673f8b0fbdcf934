"""Parquet files, good and bad."""

from __future__ import annotations

from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from engine.data import files, read_examples
from engine.errors import DataError


def write(path: Path, rows: list[dict]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def test_columns_and_chats(tmp_path: Path) -> None:
    pairs = write(tmp_path / "pairs.parquet", [{"question": f"Q{n}", "answer": f"A{n}", "score": n} for n in range(200)])
    report = read_examples(pairs)
    assert [example.answer for example in report.examples] == [f"A{n}" for n in range(200)]
    assert report.examples[-1].row == 200 and not report.problems
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    # What the file begins with counts, not what it is called.
    assert read_examples(write(tmp_path / "chats.data", [{"messages": messages}])).examples[0].messages == messages


def test_bad_rows_are_named(tmp_path: Path) -> None:
    report = read_examples(write(tmp_path / "a.parquet", [{"prompt": "Q", "completion": "A"}, {"prompt": "Q", "completion": None}]))
    assert [str(problem) for problem in report.problems] == ['row 2, completion: the field is null, not text. Write it as text: "...".']


def test_a_huge_row_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_ROW_BYTES", 1000)
    report = read_examples(write(tmp_path / "a.parquet", [{"prompt": "Q", "completion": "A" * size} for size in (10, 5000, 20)]))
    assert [len(example.answer) for example in report.examples] == [10, 20]
    assert "the row is" in report.problems[0].message


@pytest.mark.parametrize(("name", "content"), [("a.parquet", b"PAR1" + bytes(50)), ("a.parquet", b"prompt,completion\n1,2\n")])
def test_what_is_no_parquet(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="Parquet") as raised:
        read_examples(tmp_path / name)
    assert raised.value.next_step


def test_a_file_that_unpacks_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_PARQUET_BYTES", 1000)
    with pytest.raises(DataError, match="unpacks to"):
        read_examples(write(tmp_path / "a.parquet", [{"prompt": f"{n}" * 50, "completion": "A"} for n in range(100)]))


def test_a_file_that_is_cut_short(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [{"prompt": f"{n}", "completion": "A"} for n in range(100)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="can't read the Parquet"):
        read_examples(path)
