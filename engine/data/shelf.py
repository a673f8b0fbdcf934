"""One kept data set on disk: the file as it came, its chats one a line, where each line begins, and what was wrong.

    datasets/ID/original.csv    chats.jsonl    offsets.bin    report.json

Rows are read a page at a time, whatever the size of the whole. Knows nothing of names and owners.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from engine import paths
from engine.data.examples import Example, Message, Problem, Report, Shape
from engine.data.files import read_rows
from engine.data.formats import read_examples
from engine.errors import DataError
from engine.store.artefacts import read_json

CHATS, OFFSETS, REPORT = "chats.jsonl", "offsets.bin", "report.json"
_PROBLEMS_KEPT = 500
_SAMPLE_ROWS = 5
_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Row:
    """A conversation: its place among the usable rows, from 0, and its row in the file that it came in."""

    position: int
    row: int
    messages: list[Message]
    kind: str
    shape: Shape = "answers"
    rejected: str | None = None
    good: bool | None = None
    columns: dict[str, Any] = field(default_factory=dict)

    @property
    def example(self) -> Example:
        """For the renderers."""
        kind = "replay" if self.kind == "replay" else "task"
        return Example(self.messages, self.row, kind, self.rejected, self.good, self.columns)


def folder(dataset_id: str) -> Path:
    """Where a data set's files are. Raises DataError for what can't be an id."""
    if not _ID.fullmatch(dataset_id):
        raise DataError(f"{dataset_id!r} is no id of a data set", "Choose one from the library.", where="data.dataset")
    return paths.folder("datasets") / dataset_id


def chats_file(dataset_id: str) -> Path:
    """What a run reads. Raises DataError where it isn't there."""
    file = folder(dataset_id) / CHATS
    if not file.is_file():
        advice = "Choose another data set, or add the file again."
        raise DataError(f"the data set {dataset_id} isn't in the library, or its columns were never mapped", advice, where="data.dataset")
    return file


def original(dataset_id: str) -> Path:
    """The file as it came. Raises DataError where it isn't there."""
    found = next(iter(sorted(folder(dataset_id).glob("original*"))), None)
    if found is None:
        raise DataError("the file of this data set is gone from the disk", "Delete the data set and add the file again.")
    return found


def read_into(place: Path, file: Path, format: str, mapping: dict[str, str]) -> tuple[Report, dict[str, Any]]:
    """Reads `file` and writes its chats, offsets and report into the folder `place`. -> the report and its figures. Raises DataError."""
    report = read_examples(file, format, mapping)
    stats = figures(report)
    offsets = array("Q")
    with (place / CHATS).open("wb") as chats:
        for example in report.examples:
            offsets.append(chats.tell())
            chats.write(json.dumps(_line(example, report.shape), ensure_ascii=False).encode() + b"\n")
        offsets.append(chats.tell())
    (place / OFFSETS).write_bytes(offsets.tobytes())
    kept = {"problems": [_told(problem) for problem in report.problems[:_PROBLEMS_KEPT]], "groups": _groups(report.problems)}
    (place / REPORT).write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")
    return report, stats


def problems(dataset_id: str) -> dict[str, Any]:
    """{problems: the first 500 rows that were left out, groups: alike ones counted}."""
    return read_json(folder(dataset_id) / REPORT) or {"problems": [], "groups": []}


def columns(file: Path) -> dict[str, Any]:
    """{columns: their names, rows: the first few rows as text}: for saying which column is which. Raises DataError."""
    names: dict[str, None] = {}
    rows: list[dict[str, str]] = []
    for number, (_, row) in enumerate(read_rows(file)):
        if isinstance(row, dict):
            names.update(dict.fromkeys(map(str, row)))
            if len(rows) < _SAMPLE_ROWS:
                rows.append({str(name): value if isinstance(value, str) else repr(value) for name, value in row.items()})
        if number >= 50:
            break
    return {"columns": list(names), "rows": rows}


def readable(file: Path) -> bool:
    """Whether the whole file can be read as rows, whatever their columns are called."""
    try:
        # To its end, since a fault further down would show only there.
        return sum(isinstance(row, dict) for _, row in read_rows(file)) > 0
    except DataError:
        return False


def count(chats: Path) -> int:
    """How many rows there are."""
    file = chats.with_name(OFFSETS)
    return file.stat().st_size // 8 - 1 if file.is_file() else len(_scanned(chats, chats.stat().st_mtime_ns)) - 1


def rows(chats: Path, start: int, most: int) -> list[Row]:
    """At most `most` rows from `start` on; only these are read."""
    start = max(0, start)
    begins = _begins(chats, start, most)
    if len(begins) < 2:
        return []
    with chats.open("rb") as file:
        file.seek(begins[0])
        raw = file.read(begins[-1] - begins[0])
    lines = (raw[low - begins[0] : high - begins[0]] for low, high in pairwise(begins))
    return [_row(json.loads(line), position) for position, line in enumerate(lines, start)]


def search(chats: Path, text: str, most: int) -> list[int]:
    """The places of at most `most` rows in which some message, the worse answer or another column holds the text, whatever the case."""
    wanted = text.casefold()
    if not wanted.strip():
        return []
    # Most rows are passed over without being parsed; in the file, quotes and line ends are written as escapes.
    hint = json.dumps(text, ensure_ascii=False)[1:-1].casefold()
    found: list[int] = []
    for position, line in enumerate(_lines(chats)):
        if hint in line.casefold() and any(wanted in said.casefold() for said in _texts(json.loads(line))):
            found.append(position)
            if len(found) >= most:
                break
    return found


def _texts(line: dict[str, Any]) -> Iterator[str]:
    yield from (message["content"] for message in line["messages"])
    yield line.get("rejected") or ""
    for value in line.get("columns", {}).values():
        yield value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def spread(chats: Path, most: int) -> Iterator[Row]:
    """At most `most` rows, evenly over the whole."""
    total = count(chats)
    if total <= most:
        yield from rows(chats, 0, total)
        return
    for number in range(most):
        yield from rows(chats, number * total // most, 1)


def _lines(chats: Path) -> Iterator[str]:
    with chats.open(encoding="utf-8", newline="\n") as file:
        yield from (line for line in file if line.strip())


def _begins(chats: Path, start: int, most: int) -> list[int]:
    """Where the rows begin, and where the last one ends."""
    file = chats.with_name(OFFSETS)
    if not file.is_file():
        return _scanned(chats, chats.stat().st_mtime_ns)[start : start + most + 1]
    with file.open("rb") as handle:
        handle.seek(8 * start)
        found = array("Q")
        found.frombytes(handle.read(8 * (most + 1)))
    return found.tolist()


@lru_cache(maxsize=16)
def _scanned(chats: Path, _changed: int) -> list[int]:
    """The beginnings of the lines of a file that has no list of them: those that ship with Thinker."""
    begins = [0]
    with chats.open("rb") as file:
        for line in file:
            begins.append(begins[-1] + len(line))
    return begins


def _line(example: Example, shape: Shape) -> dict[str, Any]:
    """As it is kept: what a row doesn't have isn't written."""
    more = {"rejected": example.rejected, "good": example.good, "columns": example.columns or None}
    line = {"messages": example.messages, "row": example.row, "kind": example.kind, "shape": shape}
    return line | {name: value for name, value in more.items() if value is not None}


def _row(line: dict[str, Any], position: int) -> Row:
    said = {name: line[name] for name in ("shape", "rejected", "good", "columns") if name in line}
    return Row(position, line.get("row", position + 1), line["messages"], line.get("kind", "task"), **said)


def portable(row: Row) -> dict[str, Any]:
    """A row as other tools read it: chats; pairs and labels with the prompt apart; prompts with what is expected."""
    prompt, answer = row.example.prompt, row.example.answer
    if row.shape == "pairs":
        said: dict[str, Any] = {"prompt": prompt, "chosen": [_answer(answer)], "rejected": [_answer(row.rejected or "")]}
    elif row.shape == "labels":
        said = {"prompt": prompt, "completion": [_answer(answer)], "label": row.good}
    elif row.shape == "prompts":
        said = {"prompt": prompt} | ({"answer": answer} if row.example.answered else {})
    else:
        said = {"messages": row.messages}
    more = {name: value for name, value in row.columns.items() if name not in said}
    return said | more | ({"kind": row.kind} if row.kind != "task" else {})


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _told(problem: Problem) -> dict[str, Any]:
    return problem.to_dict() | {"place": problem.place}


def _groups(found: list[Problem]) -> list[dict[str, Any]]:
    """Problems that are alike, most frequent first."""
    counted = Counter((problem.field, problem.message, problem.fix) for problem in found)
    firsts = {(problem.field, problem.message, problem.fix): problem.place for problem in reversed(found)}
    return [
        {"field": field, "message": message, "fix": fix, "count": number, "first": firsts[field, message, fix]}
        for (field, message, fix), number in counted.most_common(50)
    ]


def figures(report: Report) -> dict[str, Any]:
    """The reader's counts, and what else people want to know of a data set before they train on it."""
    examples = report.examples
    whole = Counter((list(example.prompts())[-1], example.answer, example.rejected, example.good) for example in examples)
    turns = Counter(sum(message["role"] == "assistant" for message in example.messages) for example in examples)
    answers = [len(example.answer) for example in examples if example.answered]
    return {
        **report.stats,
        "shape": report.shape,
        "columns": report.mapping,
        "duplicates": len(examples) - len(whole),
        "with_system": sum(example.messages[0]["role"] == "system" for example in examples),
        "turns": {str(number): turns[number] for number in sorted(turns)},
        "answer_characters": {"median": median(answers), "longest": max(answers)} if answers else {"median": 0, "longest": 0},
        "empty_answers": sum("answer is empty" in problem.message for problem in report.problems),
        "other_columns": sorted({name for example in examples for name in example.columns}),
        **_of_shape(report),
    }


def _of_shape(report: Report) -> dict[str, Any]:
    """What there is to know of pairs, labels or prompts only."""
    examples = report.examples
    if report.shape == "pairs":
        # A model that learns from pairs learns what the better ones have in common, and length is the easiest to see.
        return {
            "longer_chosen": sum(len(example.answer) > len(example.rejected or "") for example in examples),
            "rejected_median": median(len(example.rejected or "") for example in examples),
        }
    if report.shape == "labels":
        return {"good": sum(bool(example.good) for example in examples), "bad": sum(not example.good for example in examples)}
    return {"expected": sum(example.answered for example in examples)} if report.shape == "prompts" else {}
