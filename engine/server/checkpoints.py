"""Checkpoints on disk: safetensors and JSON only, each whole or not there at all.

    ROOT/RUN/weights/NAME/            to go on training: weights, optimizer, checkpoint.json
    ROOT/RUN/sampler_weights/NAME/    to sample and export: weights, checkpoint.json
    ROOT/RUN/external_weights/NAME/   to be fetched over HTTP: the same

`adapter_model.safetensors` and `adapter_config.json` are PEFT's, so a checkpoint folder is a PEFT adapter as it stands;
that of a full run is a whole model folder for AutoModelForCausalLM. A checkpoint is written into a folder of its own
beside its place, synced, then renamed. Colons in run ids are written as dots. Knows files; nothing of models in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from engine.errors import NotFound, StateError, StorageError
from engine.platforms import process_alive, sync_path
from engine.server.weights import FullSpec, LoraSpec, Weights

if TYPE_CHECKING:
    from engine.server.model import BaseModel

KINDS = ("weights", "sampler_weights", "external_weights")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:._-]{0,199}")
_LEFTOVER = re.compile(r"\.(.+)\.(\d+)\.[0-9a-f]+\.(tmp|old)")
_DAMAGED = "Use another checkpoint; a run's own backups are put back when it is resumed or diagnosed."
MIN_TTL, MAX_TTL = 3600, 10 * 365 * 24 * 3600


@dataclass(frozen=True)
class CheckpointPath:
    """`tinker://RUN/KIND/NAME`, exactly three parts."""

    run: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"tinker://{self.run}/{self.kind}/{self.name}"

    @staticmethod
    def parse(text: str) -> CheckpointPath:
        """Raises NotFound for anything that can't be a path of ours."""
        parts = text.removeprefix("tinker://").split("/")
        sound = text.startswith("tinker://") and len(parts) == 3 and parts[1] in KINDS
        if not sound or not RUN_NAME.fullmatch(parts[0]) or not _NAME.fullmatch(parts[2]):
            raise NotFound(
                f"{text[:200]!r} is no checkpoint path",
                "It has the form tinker://RUN/KIND/NAME; a KIND is weights, sampler_weights or external_weights.",
            )
        return CheckpointPath(*parts)


@dataclass
class CheckpointInfo:
    """checkpoint.json: what is needed to load the checkpoint and to say what it is. `digests`: {file: its content's SHA-256}, by which
    damage is noticed; empty in checkpoints from before there were any."""

    path: str
    base_model: str
    rank: int
    train_mlp: bool
    train_attn: bool
    train_unembed: bool
    steps: int
    created_at: float
    expires_at: float | None = None
    has_optimizer: bool = False
    user_metadata: dict[str, str] = field(default_factory=dict)
    public: bool = False
    format: int = 1
    full: bool = False
    digests: dict[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> LoraSpec | FullSpec:
        """What was trained: an adapter of that shape, or everything."""
        if self.full:
            return FullSpec()
        return LoraSpec(self.rank, self.train_mlp, self.train_attn, self.train_unembed)


def check_name(name: str) -> None:
    """Raises StateError for a name that can't be a folder everywhere."""
    if not _NAME.fullmatch(name):
        raise StateError(
            f"{name[:200]!r} can't be a checkpoint's name", "Use up to 128 letters, digits, dots, dashes and underscores.", where="path"
        )


def check_ttl(seconds: int | None) -> None:
    """Raises StateError outside one hour to ten years."""
    if seconds is not None and not MIN_TTL <= seconds <= MAX_TTL:
        raise StateError("ttl_seconds has to be one hour (3600) to ten years", "Leave it out to keep the checkpoint.", where="ttl_seconds")


class CheckpointStore:
    """All checkpoints below one folder."""

    def __init__(self, root: Path):
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self._sweep()

    def exists(self, path: CheckpointPath) -> bool:
        """Whether it is there, whole, and not expired."""
        try:
            self.info(path)
        except NotFound:
            return False
        return True

    def info(self, path: CheckpointPath) -> CheckpointInfo:
        """What checkpoint.json says. Raises NotFound."""
        missing = NotFound(f"there is no checkpoint {path}", "Look at the list of checkpoints for the paths there are.")
        try:
            values = json.loads((self._folder(path) / "checkpoint.json").read_text(encoding="utf-8"))
            info = CheckpointInfo(**values)
        except (OSError, ValueError, TypeError) as error:
            raise missing from error
        if info.expires_at is not None and info.expires_at < time.time():
            raise missing
        return info

    def listed(self, kind: str) -> list[CheckpointInfo]:
        """All that are whole and not expired, oldest first."""
        found = []
        for file in self.root.glob(f"*/{kind}/*/checkpoint.json"):
            try:
                path = json.loads(file.read_text(encoding="utf-8"))["path"]
                found.append(self.info(CheckpointPath.parse(path)))
            except (OSError, ValueError, KeyError, TypeError, AttributeError, NotFound):
                continue
        return sorted(found, key=lambda info: info.created_at)

    def save(self, path: CheckpointPath, info: CheckpointInfo, weights: Weights, optimizer: dict[str, torch.Tensor] | None) -> None:
        """Writes all of it or nothing; replaces a checkpoint of that path. Raises StorageError (a full disk, say)."""
        place = self._folder(path)
        draft = beside(place, "tmp")
        try:
            draft.mkdir(parents=True)
            weights.write(draft, to_train=path.kind == "weights")
            if optimizer is not None:
                save_file(optimizer, draft / "optimizer.safetensors")
            if not info.full:
                _name_base_model(draft / "adapter_config.json", info.base_model)
            files = {file.name: digest(file) for file in sorted(draft.iterdir())}
            _write_json(draft / "checkpoint.json", asdict(replace(info, digests=files)))
            for file in draft.iterdir():
                sync_path(file)
            sync_path(draft)
            self._put(draft, place)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise StorageError(
                f"the checkpoint couldn't be saved: {error}",
                "Make room on the disk; earlier checkpoints are still there.",
                where=str(place.parent),
            ) from error

    def load(self, path: CheckpointPath, base: BaseModel, *, trainable: bool) -> tuple[CheckpointInfo, Weights]:
        """Into memory. Raises NotFound; StorageError or ModelError for one that can't be read, ModelError where it doesn't fit the base."""
        info = self.info(path)
        if info.full:
            self._must_be_whole(path, info)
            return info, base.full_from_folder(self._folder(path), trainable=trainable)
        return info, base.adapter_from_tensors(info.spec, self.load_adapter(path)[1], trainable=trainable)

    def load_adapter(self, path: CheckpointPath) -> tuple[CheckpointInfo, dict[str, torch.Tensor]]:
        """Raises NotFound, or StorageError for a file that can't be read."""
        info = self.info(path)
        return info, self._tensors(path, info, "adapter_model.safetensors")

    def load_optimizer(self, path: CheckpointPath) -> dict[str, torch.Tensor]:
        """Raises NotFound where the checkpoint was saved without it."""
        info = self.info(path)
        if not info.has_optimizer:
            raise NotFound(f"{path} has no optimizer state", "Load the weights alone.")
        return self._tensors(path, info, "optimizer.safetensors")

    def delete(self, path: CheckpointPath) -> None:
        """Raises NotFound."""
        self.info(path)
        shutil.rmtree(self._folder(path), ignore_errors=True)

    def all_of(self, run: str) -> list[CheckpointInfo]:
        """A run's checkpoints, oldest first."""
        found = []
        for file in (self.root / run.replace(":", ".")).glob("*/*/checkpoint.json"):
            kind, name = file.parts[-3:-1]
            if kind in KINDS and _NAME.fullmatch(name):
                with contextlib.suppress(NotFound):
                    found.append(self.info(CheckpointPath(run, kind, name)))
        return sorted(found, key=lambda info: info.created_at)

    def size(self, path: CheckpointPath) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self._folder(path).glob("*") if file.is_file())

    def change(self, path: CheckpointPath, **fields: Any) -> None:
        """Writes fields of checkpoint.json anew. Raises NotFound and StorageError."""
        info = replace(self.info(path), **fields)
        file = self._folder(path) / "checkpoint.json"
        draft = beside(file, "tmp")
        try:
            _write_json(draft, asdict(info))
            sync_path(draft)
            os.replace(draft, file)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise StorageError(f"the checkpoint couldn't be changed: {error}", "Make room on the disk.", where=str(file)) from error

    def files(self, path: CheckpointPath) -> dict[str, Path]:
        """Its files by name. Raises NotFound."""
        self.info(path)
        return {file.name: file for file in sorted(self._folder(path).iterdir()) if _NAME.fullmatch(file.name) and file.is_file()}

    def _must_be_whole(self, path: CheckpointPath, info: CheckpointInfo, names: Iterable[str] | None = None) -> None:
        """Raises StorageError for a file that isn't what was saved."""
        for name in info.digests if names is None else names:
            file = self._folder(path) / name
            try:
                sound = name not in info.digests or digest(file) == info.digests[name]
            except OSError as error:
                raise StorageError(f"the checkpoint's file can't be read: {error}", _DAMAGED, where=str(file)) from error
            if not sound:
                raise StorageError("the checkpoint's file is damaged: it isn't what was saved", _DAMAGED, where=str(file))

    def _tensors(self, path: CheckpointPath, info: CheckpointInfo, name: str) -> dict[str, torch.Tensor]:
        self._must_be_whole(path, info, [name])
        file = self._folder(path) / name
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise StorageError(f"the checkpoint's file can't be read: {error}", _DAMAGED, where=str(file)) from error

    def _folder(self, path: CheckpointPath) -> Path:
        return self.root / path.run.replace(":", ".") / path.kind / path.name

    def _put(self, draft: Path, place: Path) -> None:
        old = None
        if place.exists():
            old = beside(place, "old")
            os.rename(place, old)
        os.rename(draft, place)
        sync_path(place.parent)
        if old:
            shutil.rmtree(old, ignore_errors=True)

    def _sweep(self) -> None:
        """After a crash: drafts go, a replaced checkpoint whose successor never arrived comes back, expired ones go."""
        drafts = [found for depth in ("*", "*/*", "*/*/*") for found in self.root.glob(f"{depth}/.*.tmp")]
        for leftover in [*drafts, *self.root.glob("*/*/.*.old")]:
            known = _LEFTOVER.fullmatch(leftover.name)
            if not known:
                continue
            place, pid = leftover.parent / known[1], int(known[2])
            if process_alive(pid) and pid != os.getpid():
                # Servers of other models share the folder: this one is saving just now.
                continue
            if leftover.suffix == ".old" and not place.exists():
                os.rename(leftover, place)
            elif leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
        for file in self.root.glob("*/*/*/checkpoint.json"):
            try:
                expires = json.loads(file.read_text(encoding="utf-8")).get("expires_at")
            except (OSError, ValueError):
                continue
            if expires is not None and expires < time.time():
                shutil.rmtree(file.parent, ignore_errors=True)


def digest(file: Path) -> str:
    """The SHA-256 of its content."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def beside(place: Path, suffix: str) -> Path:
    """A new name next to `place`, which says which process it belongs to."""
    return place.parent / f".{place.name}.{os.getpid()}.{uuid.uuid4().hex}.{suffix}"


def _name_base_model(file: Path, base_model: str) -> None:
    """PEFT's own field for what an adapter belongs to."""
    _write_json(file, {**json.loads(file.read_text(encoding="utf-8")), "base_model_name_or_path": base_model})


def _write_json(file: Path, values: dict[str, Any]) -> None:
    file.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding="utf-8")
