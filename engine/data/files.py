"""Raw rows from JSONL, JSON, CSV and Parquet files, in bounded memory.

Yields each row as a dict, or the Problem with it; raises DataError for what is wrong with the whole file. Knows nothing of
what the columns mean.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from engine.data.examples import Problem
from engine.errors import DataError

MAX_ROW_BYTES = 10 * 2**20
MAX_JSON_BYTES = 256 * 2**20
MAX_PARQUET_BYTES = 2 * 2**30
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet"}
_PARQUET = b"PAR1"
_SIGNATURES = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database",
}
_ACCEPTED = "Give a .jsonl, .json or .csv file in UTF-8, or a .parquet file."

RawRow = tuple[int, dict[str, Any] | Problem]


def read_rows(path: Path) -> Iterator[RawRow]:
    """(row number, row or Problem) for each row of the file. Raises DataError for the file as a whole."""
    kind = _kind(path)
    readers = {"jsonl": _jsonl, "json": _json, "csv": _csv, "parquet": _parquet}
    try:
        with path.open("rb") as file:
            yield from readers[kind](file, path)
    except OSError as error:
        raise _cannot_read(path, error) from error


def unit(path: Path) -> str:
    """What the row numbers of this file count."""
    return {"jsonl": "line", "json": "item", "csv": "row", "parquet": "row"}[_kind(path)]


def _kind(path: Path) -> str:
    if path.is_dir():
        raise DataError("this is a folder, not a file", "Give the data file inside it.", where=str(path))
    if not path.exists():
        raise DataError("there is no such file", "Check the path and its spelling.", where=str(path))
    try:
        with path.open("rb") as file:
            head = file.read(8192)
    except OSError as error:
        raise _cannot_read(path, error) from error
    if head.startswith(_PARQUET):
        return "parquet"
    _refuse_binary(head, path)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start and path.stat().st_size <= len(head):
        raise DataError("the file is empty", "Give a file with at least one example.", where=str(path))
    kind = _SUFFIXES.get(path.suffix.lower())
    if kind == "parquet":
        raise DataError("the file is called Parquet but isn't one", f"Write it again from where it comes. {_ACCEPTED}", where=str(path))
    if kind == "json" and start.startswith(b"{") and _is_object(start.split(b"\n", 1)[0]) and b"\n" in start.rstrip():
        return "jsonl"
    if kind == "jsonl" and start.startswith(b"["):
        return "json"
    if kind:
        return kind
    if start.startswith((b"{", b"[")):
        return "jsonl" if start.startswith(b"{") else "json"
    raise DataError(f"the file type {path.suffix or '(none)'} isn't known", _ACCEPTED, where=str(path))


def _refuse_binary(head: bytes, path: Path) -> None:
    for signature, what in _SIGNATURES.items():
        if head.startswith(signature):
            raise DataError(f"this is {what}, not a text file", f"Export its rows as text. {_ACCEPTED}", where=str(path))
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("the text is UTF-16, not UTF-8", "Save it again with the encoding UTF-8.", where=f"{path}, byte 0")
    if b"\0" in head:
        where = f"{path}, byte {head.index(0)}"
        raise DataError("this is a binary file, not a text file", _ACCEPTED, where=where)


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _cannot_read(path: Path, error: OSError) -> DataError:
    return DataError(f"can't read the file: {error.strerror or error}", "Check that it may be read.", where=str(path))


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, str | int]]:
    """(line number, text), or (line number, size in bytes) for a line over the limit, of which no more than that is held."""
    number = offset = 0
    while raw := file.readline(MAX_ROW_BYTES + 1):
        number += 1
        size = len(raw)
        if size > MAX_ROW_BYTES and not raw.endswith(b"\n"):
            while rest := file.readline(2**20):
                size += len(rest)
                if rest.endswith(b"\n"):
                    break
            yield number, size
        else:
            yield number, _decode(raw, path, number, offset)
        offset += size


def _decode(raw: bytes, path: Path, line: int, offset: int) -> str:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"the text isn't UTF-8: byte 0x{raw[error.start]:02x} at offset {offset + error.start}",
            "Save it again with the encoding UTF-8 (in Excel: 'CSV UTF-8').",
            where=f"{path}, line {line}",
        ) from error
    return text.removeprefix("\ufeff") if line == 1 else text


def _too_big(number: int, size: int, name: str) -> Problem:
    limit = f"{MAX_ROW_BYTES / 2**20:.0f} MB"
    return Problem(number, "", f"the {name} is {size / 2**20:.1f} MB; {limit} is the most", "Split it into several examples.", name)


def _jsonl(file: BinaryIO, path: Path) -> Iterator[RawRow]:
    for number, line in _lines(file, path):
        if isinstance(line, int):
            yield number, _too_big(number, line, "line")
        elif line.strip():
            yield number, _parse(line, number)


def _parse(line: str, number: int) -> dict[str, Any] | Problem:
    try:
        row = json.loads(line.rstrip())
    except json.JSONDecodeError as error:
        message = f"the line isn't JSON: {error.msg} at column {error.colno}"
        return Problem(number, "", message, "Each line must be one whole JSON object: {...}.")
    except (ValueError, RecursionError):
        return Problem(number, "", "the line's JSON is nested too deeply or has a number too long to read", "Simplify the row.")
    return _object(row, number, "line")


def _object(row: Any, number: int, name: str) -> dict[str, Any] | Problem:
    if isinstance(row, dict):
        return row
    return Problem(number, "", f"the {name} is {kind_of(row)}, not an object", 'Write it as {"prompt": ..., "completion": ...}.', name)


def _json(file: BinaryIO, path: Path) -> Iterator[RawRow]:
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise DataError(
            f"the JSON file is {size / 2**20:.0f} MB; {MAX_JSON_BYTES / 2**20:.0f} MB is the most, as it is read whole",
            "Save it as JSONL (one object a line), which may be of any size.",
            where=str(path),
        )
    raw = file.read()
    try:
        rows = json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start)
        start = raw.rfind(b"\n", 0, error.start) + 1
        _decode(raw[start:], path, line + 1, start)
        raise AssertionError("unreachable: the line that failed once fails again") from error
    except json.JSONDecodeError as error:
        where = f"{path}, line {error.lineno}"
        raise DataError(f"the file isn't JSON: {error.msg} at column {error.colno}", "Correct it there.", where=where) from error
    except (ValueError, RecursionError) as error:
        raise DataError("the file's JSON is nested too deeply or has a number too long to read", "Simplify it.", where=str(path)) from error
    if not isinstance(rows, list):
        inside = [key for key, value in rows.items() if isinstance(value, list)] if isinstance(rows, dict) else []
        hint = f"The list under {inside[0]!r} may be what you want: save that alone." if inside else "Write it as [{...}, {...}]."
        raise DataError(f"the file holds {kind_of(rows)}, not a list of examples", hint, where=str(path))
    if not rows:
        raise DataError("the file's list is empty", "Give a file with at least one example.", where=str(path))
    for number, row in enumerate(rows, 1):
        yield number, _object(row, number, "item")


def _csv(file: BinaryIO, path: Path) -> Iterator[RawRow]:
    def texts() -> Iterator[str]:
        for number, line in _lines(file, path):
            if isinstance(line, int):
                problem = _too_big(number, line, "line")
                raise DataError(problem.message, problem.fix, where=f"{path}, line {number}")
            # The csv module rejects NUL with a message that helps nobody.
            yield line.replace("\0", "")

    lines = texts()
    header_line = next((line for line in lines if line.strip()), None)
    if header_line is None:
        raise DataError("the file is empty", "Give a file with at least one example.", where=str(path))
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header_line.count)
    # The csv module keeps this limit for the whole process; its default of 128 KB is shorter than a long answer.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW_BYTES))
    header = [name.strip() for name in next(csv.reader([header_line], delimiter=delimiter))]
    repeated = next((name for place, name in enumerate(header) if name in header[:place]), None)
    if repeated is not None:
        raise DataError(f"two columns are called {repeated!r}", "Rename one of them.", where=f"{path}, row 1")
    reader = csv.reader(lines, delimiter=delimiter)
    number = 1
    try:
        for cells in reader:
            number += 1
            if not cells:
                continue
            if len(cells) == len(header):
                yield number, dict(zip(header, cells, strict=True))
            else:
                message = f"the row has {len(cells)} columns, the header has {len(header)}"
                fix = "Put quotes around text that holds commas or line breaks, and close every quote."
                yield number, Problem(number, "", message, fix, "row")
    except csv.Error as error:
        where = f"{path}, row {number + 1}"
        raise DataError(f"can't read the CSV: {error}", "Look for a quote that is never closed.", where=where) from error


def _parquet(file: BinaryIO, path: Path) -> Iterator[RawRow]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        table = parquet.ParquetFile(file)
        groups = [table.metadata.row_group(place) for place in range(table.metadata.num_row_groups)]
        unpacked = sum(group.total_byte_size for group in groups)
        if unpacked > MAX_PARQUET_BYTES:
            message = f"the file unpacks to {unpacked / 2**30:.1f} GB; {MAX_PARQUET_BYTES / 2**30:.0f} GB is the most"
            raise DataError(message, "Split it into several files.", where=str(path))
        for batch in table.iter_batches(batch_size=64, use_threads=False):
            sizes = [batch.slice(place, 1).nbytes for place in range(len(batch))] if batch.nbytes > MAX_ROW_BYTES else [0] * len(batch)
            for place, size in enumerate(sizes):
                number += 1
                if size > MAX_ROW_BYTES:
                    yield number, _too_big(number, size, "row")
                else:
                    yield number, batch.slice(place, 1).to_pylist()[0]
    except (pyarrow.ArrowException, OSError) as error:
        said = str(error).partition("\n")[0]
        where = f"{path}, row {number + 1}" if number else str(path)
        raise DataError(f"can't read the Parquet file: {said}", "Write it again from where it comes.", where=where) from error


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
