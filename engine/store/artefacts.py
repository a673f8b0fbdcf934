"""Files that are either whole or absent: written beside their place, synced, and moved there in one step.

A disk that fills up leaves the old file as it was. Knows paths and bytes, not what they mean.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from engine import paths, platforms
from engine.errors import EngineError, StorageError

_LEFTOVER = re.compile(r"\.(.+)\.(\d+)\.[0-9a-f]+\.(tmp|old)")


def write_bytes_atomic(path: Path | str, data: bytes) -> Path:
    """Replaces the file in one step. Raises StorageError; the old file is intact then."""
    path = Path(path)
    with _beside(path) as temporary:
        with temporary.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        platforms.sync_path(path.parent)
    return path


def write_json_atomic(path: Path | str, value: Any) -> Path:
    """UTF-8, indented, with a final newline."""
    return write_bytes_atomic(path, (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


def read_json(path: Path | str) -> Any:
    """What `write_json_atomic` wrote; None if there is no such file or it holds no JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def copy_to_job(source: Path | str, job_id: str, name: str) -> Path:
    """Copies a file or a folder into the job's folder under `name`. Raises StorageError; nothing half-copied stays."""
    source, target = Path(source), paths.job_folder(job_id) / name
    with _beside(target) as temporary:
        if source.is_dir():
            shutil.copytree(source, temporary)
            _put(temporary, target)
        else:
            shutil.copyfile(source, temporary)
            platforms.sync_path(temporary)
            os.replace(temporary, target)
        platforms.sync_path(target.parent)
    return target


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """An empty folder to fill: it takes `target`'s place when the block ends, and is gone if the block fails. Raises StorageError."""
    with _beside(target) as temporary:
        temporary.mkdir()
        yield temporary
        _put(temporary, target)
        platforms.sync_path(target.parent)


def sweep(folder: Path) -> None:
    """Removes what processes that were killed while writing left directly in the folder."""
    for leftover in [*folder.glob(".*.tmp"), *folder.glob(".*.old")]:
        known = _LEFTOVER.fullmatch(leftover.name)
        if not known or platforms.process_alive(int(known[2])):
            continue
        place = folder / known[1]
        with suppress(OSError):
            if leftover.suffix == ".old" and not place.exists():
                os.replace(leftover, place)
            elif leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink()


def remove_job_folder(job_id: str) -> None:
    """Deletes the job's log and artefacts."""
    shutil.rmtree(paths.job_folder(job_id), ignore_errors=True)


def _put(temporary: Path, target: Path) -> None:
    """Syncs a folder and moves it to its place."""
    for file in temporary.rglob("*"):
        platforms.sync_path(file)
    if not target.exists():
        os.replace(temporary, target)
        return
    # A folder can't be replaced in one step; the old one goes only when the new one is whole.
    old = _draft(target, "old")
    os.replace(target, old)
    os.replace(temporary, target)
    shutil.rmtree(old, ignore_errors=True)


def _draft(path: Path, suffix: str) -> Path:
    """A new name beside the path, which says which process it belongs to."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.{suffix}")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    temporary = _draft(path, "tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as error:
        if isinstance(error, EngineError):
            raise
        raise StorageError(
            f"The file can't be written: {error.strerror or error}.",
            "Check free disk space and permissions; what was saved before is intact.",
            where=str(path),
        ) from error
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)
