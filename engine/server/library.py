"""Runs and checkpoints on disk, as their owners see them: what outlives the session, and the server.

    ROOT/RUN/run.json    whose run it was, what it trained, in which session

Every look-up asks whose request it is (`owners`): what belongs to somebody else isn't there, but for published
checkpoints, which everybody may read. A run from before there were owners belongs to `default`. Other servers write into
the same folder, so everything is read from disk when asked for. Knows files; nothing of runs in memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.errors import DataError, NotFound, StorageError
from engine.platforms import sync_path
from engine.server.checkpoints import RUN_NAME, CheckpointInfo, CheckpointPath, CheckpointStore, beside, check_ttl
from engine.server.owners import DEFAULT, current_owner

_OURS = ("checkpoint.json", "optimizer.safetensors")  # of no use to others


@dataclass(frozen=True)
class RunRecord:
    """run.json."""

    id: str
    owner: str
    session: str
    base_model: str
    created_at: float
    last_request_at: float
    rank: int
    user_metadata: dict[str, Any] = field(default_factory=dict)
    session_metadata: dict[str, Any] = field(default_factory=dict)
    display_name: str | None = None
    format: int = 1

    @property
    def is_lora(self) -> bool:
        """A run that trains everything has no rank."""
        return self.rank > 0


class Library:
    """All runs and checkpoints below the checkpoints' folder."""

    def __init__(self, store: CheckpointStore):
        self.store = store

    # -- runs

    def add_run(self, record: RunRecord) -> None:
        """Writes run.json. Raises StorageError."""
        file = self._file(record.id)
        draft = beside(file, "tmp")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(asdict(record), indent=1, ensure_ascii=False), encoding="utf-8")
            sync_path(draft)
            os.replace(draft, file)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise StorageError(f"the run couldn't be written down: {error}", "Make room on the disk.", where=str(file)) from error

    def touch(self, run_id: str) -> None:
        """Notes that the run was worked with just now, if the disk allows."""
        record = self._read(self._file(run_id))
        if record is not None:
            with contextlib.suppress(StorageError):
                self.add_run(replace(record, last_request_at=time.time()))

    def run(self, run_id: str) -> RunRecord:
        """Raises NotFound."""
        record = self._of(run_id)
        if record is None or record.owner != current_owner():
            raise NotFound(f"there is no training run {run_id[:120]!r}", "Look at the list of training runs.")
        return record

    def runs(self) -> list[RunRecord]:
        """The owner's, newest first."""
        found = [self._of_folder(folder) for folder in self.store.root.iterdir() if folder.is_dir()]
        mine = [record for record in found if record is not None and record.owner == current_owner()]
        return sorted(mine, key=lambda record: (record.created_at, record.id), reverse=True)

    # -- checkpoints

    def checkpoints(self, run_id: str) -> list[CheckpointInfo]:
        """A run's, oldest first. Raises NotFound."""
        return self.store.all_of(self.run(run_id).id)

    def readable(self, path: CheckpointPath) -> CheckpointInfo:
        """What the owner may load: their own, and what was published. Raises NotFound."""
        record, info = self._of(path.run), self.store.info(path)
        if record is None or not (info.public or record.owner == current_owner()):
            raise NotFound(f"there is no checkpoint {path}", "Look at the list of checkpoints for the paths there are.")
        return info

    def listed(self, kind: str) -> list[CheckpointInfo]:
        """All of that kind that the owner may load, oldest first."""
        found = []
        for info in self.store.listed(kind):
            with contextlib.suppress(NotFound):
                found.append(self.readable(CheckpointPath.parse(info.path)))
        return found

    def own(self, path: CheckpointPath) -> CheckpointInfo:
        """What the owner may change. Raises NotFound."""
        self.run(path.run)
        return self.store.info(path)

    def delete(self, path: CheckpointPath) -> None:
        """Raises NotFound."""
        self.own(path)
        self.store.delete(path)

    def publish(self, path: CheckpointPath, public: bool) -> None:
        """Whether every key of this server may load it. Raises NotFound."""
        self.own(path)
        self.store.change(path, public=public)

    def set_ttl(self, path: CheckpointPath, seconds: int | None) -> None:
        """To live so long from now; None for good. Raises NotFound and StateError."""
        self.own(path)
        check_ttl(seconds)
        self.store.change(path, expires_at=None if seconds is None else time.time() + seconds)

    def external_files(self, path: CheckpointPath) -> list[str]:
        """The names of an external checkpoint's files that can be fetched. Raises NotFound and DataError."""
        self.own(path)
        if path.kind != "external_weights":
            raise DataError(f"{path} wasn't saved for download", "Use the path that save_weights_external gave.", where="path")
        return [name for name in self.store.files(path) if name not in _OURS]

    def owner(self, run_id: str) -> str | None:
        """Whose run it is, without asking who wants to know: for links, which carry their own proof."""
        record = self._of(run_id)
        return record.owner if record else None

    # -- inside

    def _file(self, run_id: str) -> Path:
        return self.store.root / run_id.replace(":", ".") / "run.json"

    def _of(self, run_id: str) -> RunRecord | None:
        if not RUN_NAME.fullmatch(run_id):
            return None
        record = self._of_folder(self._file(run_id).parent)
        # Two spellings may name one folder; only one of them is the run's.
        return record if record and record.id == run_id else None

    def _of_folder(self, folder: Path) -> RunRecord | None:
        return self._read(folder / "run.json") or self._from_checkpoints(folder)

    def _read(self, file: Path) -> RunRecord | None:
        try:
            return RunRecord(**json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            # Unreadable isn't unowned.
            return RunRecord("", "", "", "", 0.0, 0.0, 0)

    def _from_checkpoints(self, folder: Path) -> RunRecord | None:
        """The run of a folder from before runs were written down."""
        for file in folder.glob("*/*/checkpoint.json"):
            try:
                info = CheckpointInfo(**json.loads(file.read_text(encoding="utf-8")))
                run = CheckpointPath.parse(info.path).run
            except (OSError, ValueError, TypeError, NotFound):
                continue
            return RunRecord(run, DEFAULT, run.partition(":")[0], info.base_model, info.created_at, info.created_at, info.rank)
        return None
