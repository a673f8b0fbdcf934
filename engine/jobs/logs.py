"""What happened, as JSON lines: `logs/thinker.jsonl` for everything, `jobs/ID/log.jsonl` for one job. Secrets are masked.

Several processes write the same file, so each line is one append to a file that is opened for it. Knows no levels
beyond their names, and refuses to fail: a log that can't be written never ends a run.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine import keys, paths, platforms

ROTATE_BYTES = 5_000_000
KEEP = 3

_SECRETS = re.compile(r"(?<![A-Za-z0-9])(tml-|hf_|sk-|rpa_)(?:(?<=hf_)[A-Za-z0-9]{8,}|(?<!hf_)[A-Za-z0-9_\-]{8,})")
_PASSWORDS = re.compile(r"(://[^/\s:@]+:)[^/\s]+@")
_SECRET_NAMES = frozenset({"api_key", "apikey", "authorization", "key", "password", "secret", "token"})
_HIDDEN = "***"


def masked(value: Any, *, names: bool = True) -> Any:
    """The same value with every secret in its texts replaced: keys by their prefix, passwords in URLs, and with `names`
    whatever stands in a field that is named like a secret."""
    if isinstance(value, str):
        return _PASSWORDS.sub(rf"\1{_HIDDEN}@", _SECRETS.sub(rf"\1{_HIDDEN}", keys.masked(value)))
    if isinstance(value, dict):
        return {masked(key): _HIDDEN if names and _is_secret(key) and item else masked(item, names=names) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(item, names=names) for item in value]
    return value


def log_file(job_id: str | None = None) -> Path:
    """The log of one job, or of everything."""
    return paths.job_folder(job_id) / "log.jsonl" if job_id else paths.folder("logs") / "thinker.jsonl"


def log(level: str, text: str, *, job_id: str | None = None, attempt: int | None = None, **fields: Any) -> None:
    """One line to the common log and, for a job, to its own."""
    line = {"at": round(time.time(), 3), "level": level, "job": job_id, "attempt": attempt, "text": text, **fields}
    data = (json.dumps(masked(line), ensure_ascii=False, default=lambda value: masked(str(value))) + "\n").encode("utf-8", "replace")
    with suppress(OSError):
        _rotate(log_file())
    with suppress(OSError):
        _append(log_file(), data)
    if job_id:
        with suppress(OSError):
            _append(log_file(job_id), data)


def read_log(job_id: str | None = None, limit: int = 200) -> list[dict[str, Any]]:
    """The last lines, oldest first; a line that was cut off is passed over."""
    try:
        with log_file(job_id).open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            handle.seek(max(0, size - 4096 * limit))
            lines = handle.read().splitlines()[-limit:]
    except OSError:
        return []
    found = []
    for line in lines:
        with suppress(ValueError):
            found.append(json.loads(line))
    return [line for line in found if isinstance(line, dict)]


def _is_secret(name: Any) -> bool:
    return str(name).lower() in _SECRET_NAMES


def _append(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
    try:
        os.write(handle, data)
    finally:
        os.close(handle)


def _rotate(path: Path) -> None:
    if not path.exists() or path.stat().st_size < ROTATE_BYTES:
        return
    with path.with_name(".rotate.lock").open("ab") as lock:
        # Another process may have rotated while this one came here.
        if not platforms.lock_file(lock) or path.stat().st_size < ROTATE_BYTES:
            return
        for number in range(KEEP, 0, -1):
            older = path.with_name(f"{path.name}.{number}")
            newer = path.with_name(f"{path.name}.{number - 1}") if number > 1 else path
            if newer.exists():
                os.replace(newer, older)
