"""Keys: which there are for whom, and where each comes from. They are never shown, logged, put in the database or in a recipe.

Looked for in this process's memory, then in `keys.json` of the data directory (mode 0600, only if the person asked for it and has the
machine to themselves), then in the environment. On a shared machine memory alone counts: a file would outlive its owner's visit, and
the environment holds the operator's key, not theirs. Knows nothing of what a key opens.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from engine import paths, platforms, policy
from engine.errors import NotAllowed, StateError, StorageError

Source = Literal["memory", "file", "environment"]
_FILE = "keys.json"
_SECRET_BYTES = 32
_LONGEST = 1000

_lock = threading.Lock()
_memory: dict[tuple[str, str], str] = {}


@dataclass(frozen=True)
class Need:
    """A key that something needs: `variable` is the environment's name for it, `begins` what all of its kind begin with."""

    name: str
    title: str
    variable: str
    begins: str
    get_one: str


@dataclass(frozen=True)
class Found:
    """A key, and where it was."""

    value: str = field(repr=False)
    source: Source


def find(owner: str, need: Need) -> Found | None:
    """The owner's key; None where there is none."""
    with _lock:
        held = _memory.get((owner, need.name))
    if held:
        return Found(held, "memory")
    if not policy.of(owner).stores_keys:
        return None
    if kept := _kept().get(owner, {}).get(need.name):
        return Found(kept, "file")
    given = os.environ.get(need.variable, "").strip()
    return Found(given, "environment") if given else None


def checked(need: Need, value: str) -> str:
    """The key as it was copied, without what came along. Raises StateError, which doesn't repeat it."""
    value = value.strip().strip("\"'")
    advice = f"Copy it once more from {need.get_one}."
    if not value:
        raise StateError("there is no key to keep", advice, where=need.title)
    if not value.isascii() or not value.isprintable() or " " in value or len(value) > _LONGEST:
        raise StateError("this can't be a key: it has characters that no key has, or is too long", advice, where=need.title)
    if need.begins and not value.startswith(need.begins):
        raise StateError(f"this is no key for {need.title}: those begin with {need.begins}", advice, where=need.title)
    return value


def hold(owner: str, name: str, value: str) -> None:
    """Keeps it in this process's memory."""
    with _lock:
        _memory[owner, name] = value


def keep(owner: str, name: str, value: str) -> None:
    """Writes it to the data directory, for this owner's eyes only. Raises NotAllowed and StorageError."""
    if not policy.of(owner).stores_keys:
        raise NotAllowed("keys aren't stored where others use the machine too", "It is kept in memory for as long as Thinker runs.")
    with _lock:
        kept = _kept()
        kept.setdefault(owner, {})[name] = value
        _write(kept)


def drop(owner: str, name: str) -> None:
    """Forgets it, in memory and on disk; what stands in the environment stays there. Raises StorageError."""
    with _lock:
        _memory.pop((owner, name), None)
        kept = _kept()
        if kept.get(owner, {}).pop(name, None) is not None:
            _write(kept)


def unhold(owner: str, name: str) -> None:
    """Forgets it in memory."""
    with _lock:
        _memory.pop((owner, name), None)


def held() -> dict[tuple[str, str], str]:
    """All that this process has in its memory: {(owner, name): key}."""
    with _lock:
        return dict(_memory)


def masked(text: str) -> str:
    """The text without any key that this process holds."""
    with _lock:
        values = list(_memory.values())
    for value in values:
        text = text.replace(value, "***")
    return text


@lru_cache(maxsize=16)
def secret(file: Path) -> bytes:
    """Bytes that only this data directory has, made at the first use: of two processes that make them at once, both use the same."""
    if not file.exists():
        draft = platforms.private_file(file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"))
        draft.write_bytes(secrets.token_bytes(_SECRET_BYTES))
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
        except OSError:
            # A file system without links: who comes second finds it a moment later.
            if not file.exists():
                os.replace(draft, file)
        finally:
            draft.unlink(missing_ok=True)
    found = platforms.private_file(file).read_bytes()
    if len(found) == _SECRET_BYTES:
        return found
    # Emptied or damaged: what is left others might guess.
    file.unlink()
    return secret.__wrapped__(file)


def _kept() -> dict[str, dict[str, str]]:
    try:
        found = json.loads((paths.home() / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(kept: dict[str, dict[str, str]]) -> None:
    file = paths.home() / _FILE
    draft = file.with_name(f".{_FILE}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        # Private before anything is in it.
        platforms.private_file(draft).write_text(json.dumps(kept), encoding="utf-8")
        os.replace(draft, file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StorageError(f"the key can't be kept: {error.strerror}", "It can still be used until Thinker is closed.") from error
