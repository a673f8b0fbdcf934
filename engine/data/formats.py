"""Files to examples: which layout the rows have, every row read by it, and what can't be used told.

A row that can't be used becomes a Problem, never a silence. The layouts themselves are in `layouts`; here nothing is known of what
is in them, nor of how examples are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

from engine.data.examples import SHAPES, Example, Problem, Report, Shape
from engine.data.files import read_rows, unit
from engine.data.layouts import FORMATS, Bad, Format
from engine.data.shapes import SERVES, converted, mismatch
from engine.errors import DataError

KEPT = "kept"
"""As the library writes what it has read: every shape, nothing to be recognised."""
_SAMPLE_ROWS = 50
_MARKS = ("kind",)

Rows = list[tuple[int, dict[str, Any]]]


def read_examples(path: str | Path, format: str = "auto", mapping: dict[str, str] | None = None, shape: Shape | None = None) -> Report:
    """All examples in a file and a Problem for every other row.

    `mapping` gives your column for a standard field: {"prompt": "Question"}. `shape` is what is needed: rows of another shape that serve
    it are read as it, and `notes` say so; without it rows are read as what they are. Raises DataError where the file as a whole can't
    be read, holds no usable row, or has rows that can't serve.
    """
    path = Path(path).expanduser()
    if format not in ("auto", KEPT) and format not in FORMATS:
        raise DataError(f"there is no format called {format!r}", f"Choose one of: auto, {', '.join(FORMATS)}.", where="format")
    rows: Rows = []
    problems: list[Problem] = []
    total = 0
    for number, row in read_rows(path):
        total += 1
        if isinstance(row, Problem):
            problems.append(row)
        else:
            rows.append((number, row))
    if not rows:
        _nothing_usable(path, problems)
    if format == KEPT:
        columns: dict[str, str] = {}
        name, examples, have = KEPT, [_kept(row, number) for number, row in rows], _kept_shape(rows[0][1])
    else:
        name, columns = _recognise([row for _, row in rows[:_SAMPLE_ROWS]], format, mapping or {}, path, shape)
        have = FORMATS[name].shape
        examples = []
        for number, row in rows:
            try:
                examples.append(_read(row, number, name, columns, shape))
            except Bad as bad:
                field, message, fix = bad.args
                problems.append(Problem(number, columns.get(field, field), message, fix, unit(path)))
    problems.sort(key=lambda problem: problem.row)
    if not examples:
        _nothing_usable(path, problems)
    notes = []
    if shape is not None:
        _must_serve(have, shape, path)
        examples, note = converted(examples, have, shape)
        notes = [note] if note else []
        if not examples:
            raise DataError("no answer in the file was found good", "There is nothing to learn by example here.", where=str(path))
    return Report(
        name, examples, problems, _stats(total, examples, problems), columns, have if shape in (None, "preferences") else shape, notes
    )


def _stats(total: int, examples: list[Example], problems: list[Problem]) -> dict[str, Any]:
    said = [message for example in examples for message in example.messages]
    return {
        "rows": total,
        "examples": len(examples),
        "problems": len(problems),
        "replay": sum(example.kind == "replay" for example in examples),
        "answers": sum(message["role"] == "assistant" for message in said),
        "characters": sum(len(message["content"]) for message in said) + sum(len(example.rejected or "") for example in examples),
        "repeated_prompts": len(examples) - len({list(example.prompts())[-1] for example in examples}),
    }


def _must_serve(have: Shape, want: Shape, path: Path) -> None:
    if want not in SHAPES:
        raise DataError(f"there is no shape {want!r}", f"Choose one of: {', '.join(SHAPES)}.", where="shape")
    if have not in SERVES[want]:
        raise DataError(*mismatch(have, want), where=str(path))


def _nothing_usable(path: Path, problems: list[Problem]) -> None:
    if not problems:
        raise DataError("the file holds no rows", "Give a file with at least one example.", where=str(path))
    first = problems[0]
    count = f"none of the {len(problems)} rows can be used; the first: " if len(problems) > 1 else ""
    raise DataError(count + first.message, first.fix, where=f"{path}, {first.place}")


def _recognise(
    rows: list[dict[str, Any]], format: str, mapping: dict[str, str], path: Path, shape: Shape | None
) -> tuple[str, dict[str, str]]:
    """The format and the column to read for each of its fields."""
    every = FORMATS if format == "auto" else {format: FORMATS[format]}
    candidates = {name: layout for name, layout in every.items() if shape is None or layout.shape in SERVES[shape]}
    if shape == "prompts" and format == "auto" and "completion" not in mapping:
        # Rows with an answer and rows without are prompts alike.
        del candidates["prompt_completion"]
    known = {field for layout in every.values() for field in layout.fields}
    if unknown := sorted(set(mapping) - known):
        raise DataError(f"{unknown[0]!r} isn't a standard field", f"Map one of: {', '.join(sorted(known))}.", where="mapping")
    seen = dict.fromkeys(name for row in rows for name in row)
    absent = next((column for column in mapping.values() if column not in seen), None)
    if absent is not None:
        fix = f"Its columns are: {', '.join(map(str, seen))}."
        raise DataError(f"the mapping names a column {absent!r} that the file doesn't have", fix, where=str(path))
    if best := _best(rows, candidates, mapping):
        return best
    # Rows of which none is as it should be are to be told one by one what they lack, unless they are something else altogether.
    meant = _best(rows, candidates, mapping, lax=True)
    other = _best(rows, every, mapping) if shape is not None else None
    if meant and (other is None or len(FORMATS[meant[0]].required) > len(FORMATS[other[0]].required)):
        return meant
    if other and shape is not None:
        raise DataError(*mismatch(FORMATS[other[0]].shape, shape), where=str(path))
    if format != "auto":
        needed = " and ".join(FORMATS[format].required)
        fix = f"The columns are: {', '.join(map(str, seen))}. Say which is which with a mapping, or choose another format."
        raise DataError(f"no row has the fields of the format {format}: {needed}", fix, where=str(path))
    raise DataError(
        f"can't tell how the rows are laid out; their fields are: {', '.join(map(str, seen)) or '(none)'}",
        "Name the columns prompt and completion, or map yours to them.",
        where=str(path),
    )


def _best(
    rows: list[dict[str, Any]], candidates: dict[str, Format], mapping: dict[str, str], lax: bool = False
) -> tuple[str, dict[str, str]] | None:
    """The most particular of the layouts whose columns at least half as many rows have as fit the one that fits most, and which fit a
    quarter as many: an answer that is blank is a hole, a column that is missing is none. `lax` looks at columns alone."""
    fitting: dict[str, tuple[int, int, dict[str, str]]] = {}
    for name, layout in candidates.items():
        if not set(mapping) <= set(layout.fields):
            continue
        columns: dict[str, str] = {}
        for field, aliases in layout.fields.items():
            options = [mapping[field]] if field in mapping else [field, *aliases]
            column = _column(options, rows)
            if column and column not in columns.values():
                columns[field] = column
        whole = [row for row in rows if all(columns.get(field) in row for field in layout.required)]
        count = sum(lax or layout.fits({field: row[column] for field, column in columns.items() if column in row}) for row in whole)
        if count:
            fitting[name] = (count, len(whole), columns)
    most = max((count for count, _, _ in fitting.values()), default=0)
    return next(((name, columns) for name, (count, have, columns) in fitting.items() if 4 * count >= most and 2 * have >= most), None)


def _column(options: Sequence[str], rows: list[dict[str, Any]]) -> str | None:
    """The first of the names that the rows use, exactly or but for case."""
    seen = dict.fromkeys(name for row in rows for name in row)
    for option in options:
        for name in seen:
            if str(name).strip().lower() == option.lower():
                return name
    return None


def _read(row: dict[str, Any], number: int, name: str, columns: dict[str, str], shape: Shape | None) -> Example:
    layout = FORMATS[name]
    values = {field: row[column] for field, column in columns.items() if column in row}
    for field in layout.required:
        if field not in values:
            raise Bad(field, "the field is missing", f"Give each row {' and '.join(layout.required)}.")
    told = layout.read(values)
    kind = "replay" if row.get("kind") == "replay" else "task"
    read = {column for field, column in columns.items() if field not in layout.kept}
    others = {str(column): _plain(value) for column, value in row.items() if column not in read and column not in _MARKS}
    example = Example(told.messages, number, kind, told.rejected, told.good, others)
    _check(example, name, layout, open_=layout.shape == "prompts" or shape == "prompts")
    return example


def _check(example: Example, name: str, layout: Format, *, open_: bool) -> None:
    messages = example.messages
    for text in (*(message["content"] for message in messages), example.rejected or ""):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise Bad("", "the text holds half a character (a lone surrogate)", "Take out the broken \\ud8.. escape.") from None
    asked, answered = layout.required[0], layout.required[0 if open_ else -1]
    if layout.shape in ("pairs", "labels"):
        asked = next((field for field in ("prompt", "messages", "input") if field in layout.fields), asked)
        answered = next(field for field in ("chosen", "completion", "preferred_output", "messages") if field in layout.fields)
    if not example.answered and not (open_ and messages[-1]["role"] in ("user", "tool")):
        fix = "End the conversation with the assistant's answer."
        raise Bad(answered, f"the last message is the {messages[-1]['role']}'s, so there is no answer to learn", fix)
    if messages[0]["role"] == "assistant":
        raise Bad(answered, "the conversation starts with an answer", "Put a user message before it.")
    for place, message in enumerate(messages):
        if not message["content"].strip():
            what = {"assistant": "answer", "user": "prompt"}.get(message["role"], f"{message['role']} message")
            which = f" (message {place + 1})" if "messages" in layout.fields else ""
            field = answered if message["role"] == "assistant" else asked
            raise Bad(field, f"the {what} is empty{which}", "Fill it in or take out the row.")
    if example.rejected is not None and not example.rejected.strip():
        field = next(name for name in ("rejected", "rejected_message", "non_preferred_output") if name in layout.fields)
        raise Bad(field, "the worse answer is empty", "Fill it in or take out the row.")


def _kept(row: dict[str, Any], number: int) -> Example:
    kind = "replay" if row.get("kind") == "replay" else "task"
    return Example(row["messages"], row.get("row", number), kind, row.get("rejected"), row.get("good"), row.get("columns", {}))


def _kept_shape(row: dict[str, Any]) -> Shape:
    return row.get("shape", "answers")


def _plain(value: Any) -> Any:
    """As JSON has it: Parquet knows dates, bytes and decimals too."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, date | datetime) else str(value)


__all__ = ["FORMATS", "KEPT", "read_examples"]
