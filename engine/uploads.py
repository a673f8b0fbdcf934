"""Files that people bring through the browser: kept whole at once, apart by owner. Knows nothing of what is in them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from engine import paths
from engine.errors import DataError
from engine.store.artefacts import write_bytes_atomic

MOST_BYTES = 50 * 1024 * 1024
KINDS = ("jsonl", "json", "csv")


@dataclass(frozen=True)
class Upload:
    """One file that is there."""

    name: str
    path: str
    size: int
    at: float


class Uploads:
    """One owner's."""

    def __init__(self, owner: str):
        self._owner = owner

    def add(self, name: str, content: bytes) -> Upload:
        """Keeps it; the same content under the same name is kept once. Raises DataError, StorageError."""
        stem, suffix = Path(name).stem, Path(name).suffix.lower()
        if suffix.lstrip(".") not in KINDS:
            raise DataError(f"{name} isn't a kind of file that can be read", f"Give one of: {', '.join(KINDS)}.", where=name)
        if not content:
            raise DataError("the file is empty", "Give a file with at least one example.", where=name)
        if len(content) > MOST_BYTES:
            raise DataError(f"the file is larger than {MOST_BYTES // 2**20} MB", "Leave some rows out, or split it.", where=name)
        plain = re.sub(r"[^\w.-]+", "_", stem).strip("._")[:80] or "data"
        folder = self._folder() / hashlib.sha256(content).hexdigest()[:12]
        folder.mkdir(exist_ok=True)
        file = folder / f"{plain}{suffix}"
        if not file.is_file():
            write_bytes_atomic(file, content)
        return _upload(file)

    def list(self) -> list[Upload]:
        """Newest first."""
        files = (file for file in self._folder().glob("*/*") if file.suffix.lstrip(".") in KINDS and not file.name.startswith("."))
        return sorted(map(_upload, files), key=lambda upload: upload.at, reverse=True)

    def _folder(self) -> Path:
        # An owner's name may hold anything, a folder's may not.
        return paths.folder("data", "uploads", hashlib.sha256(self._owner.encode()).hexdigest()[:16])


def _upload(file: Path) -> Upload:
    stat = file.stat()
    return Upload(file.name, str(file), stat.st_size, stat.st_mtime)
