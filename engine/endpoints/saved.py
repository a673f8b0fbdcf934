"""What lies saved at an endpoint: how big it is, whether it is still what was saved, and doing away with it.

What this machine trained lies in a folder here; what was trained elsewhere is asked for over HTTP. Knows nothing of runs, and not which
states are worth keeping.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine import endpoints, starts
from engine.endpoints import remote
from engine.errors import EndpointError, NotFound, StorageError
from engine.store.artefacts import read_json

ABOUT = "checkpoint.json"


def here(endpoint: str, owner: str) -> bool:
    """Whether what is trained there lies in this machine's own folder."""
    return endpoints.kind(endpoint, owner).weights


def size(endpoint: str, owner: str, path: str) -> int | None:
    """Bytes; None where that can't be known."""
    if here(endpoint, owner):
        folder = starts.folder_of(path)
        return weight(folder) if folder else None
    try:
        run = path.removeprefix("tinker://").partition("/")[0]
        listed = _asked(endpoint, owner, f"training_runs/{run}/checkpoints").get("checkpoints") or []
    except (EndpointError, NotFound, PermissionError):
        return None
    return next((one.get("size_bytes") for one in listed if one.get("tinker_path") == path), None)


def whole(endpoint: str, owner: str, path: str, patience: remote.Patience = remote.AT_ONCE) -> bool:
    """Whether it is there and, as far as can be seen from here, undamaged. Raises EndpointError and KeyNeeded where nobody answers."""
    if here(endpoint, owner):
        folder = starts.folder_of(path)
        return folder is not None and sound(folder)
    try:
        _asked(endpoint, owner, "weights_info", "POST", patience=patience, json={"tinker_path": path})
    except NotFound:
        return False
    return True


def sound(folder: Path) -> bool:
    """Whether its files are what was saved. One from before contents were noted down has to have some, and a readable description."""
    about = read_json(folder / ABOUT)
    if not isinstance(about, dict):
        return False
    noted = about.get("digests") or {}
    if not noted:
        return any(file.suffix == ".safetensors" and file.stat().st_size > 0 for file in folder.iterdir())
    return all(_digest(folder / name) == content for name, content in noted.items())


def present(folder: Path) -> bool:
    """A glance: the files that were noted are there and not empty."""
    about = read_json(folder / ABOUT)
    if not isinstance(about, dict):
        return False
    return all((folder / name).is_file() and (folder / name).stat().st_size > 0 for name in about.get("digests") or {})


def discard(endpoint: str, owner: str, path: str) -> None:
    """Does away with it for good; what is gone already is all right. Raises EndpointError, KeyNeeded and StorageError."""
    if not here(endpoint, owner):
        run, kind, name = path.removeprefix("tinker://").split("/")
        with suppress(NotFound):
            _asked(endpoint, owner, f"training_runs/{run}/checkpoints/{kind}/{name}", "DELETE")
        return
    folder = starts.folder_of(path)
    if folder is None:
        return
    # In one step for everybody who looks, whatever happens while the files go.
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        os.rename(folder, aside)
    except OSError as error:
        told = f"the checkpoint can't be deleted: {error.strerror or error}"
        raise StorageError(told, "See that the folder may be written to.", where=str(folder)) from error
    shutil.rmtree(aside, ignore_errors=True)


def weight(folder: Path) -> int:
    """Bytes of the files in it."""
    return sum(file.stat().st_size for file in folder.glob("*") if file.is_file())


def _digest(file: Path) -> str:
    try:
        with file.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:
        return ""


def _asked(endpoint: str, owner: str, what: str, method: str = "GET", **options: Any) -> dict[str, Any]:
    where = remote.address(endpoint, owner)
    return remote.asked(where, what, where.key(owner), method, **options)
