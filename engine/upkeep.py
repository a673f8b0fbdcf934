"""`engine.upkeep`: the data directory and what fills it, and a text to send along when asking for help.

Reads folders, the log and the checks of `doctor`; deletes nothing. A big folder is gone through a little at a time, so that whoever
asks isn't held up. What it gives out holds no secret, and calls the home directory ~.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import engine
from engine import guard, health, paths
from engine.jobs import logs

if TYPE_CHECKING:
    from engine.store import Store

KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "database": ("Database: runs, curves, chats, settings", ("thinker.db", "thinker.db-wal", "thinker.db-shm")),
    "checkpoints": ("Checkpoints: what was trained", ("checkpoints",)),
    "backups": ("Backups of the best and last versions", ("backups",)),
    "datasets": ("Data sets, and what lessons were made of", ("datasets", "lessons")),
    "models": ("Merged and imported models", ("models",)),
    "logs": ("Logs of runs and servers", ("jobs", "logs", "servers")),
    "other": ("Everything else", ()),
}
"""{kind: (what it is, the names at the top of the data directory)}."""

_KIND_OF = {name: kind for kind, (_, names) in KINDS.items() for name in names}
_LOG_LINES, _LONGEST = 20, 300
_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD")


class Tally:
    """How big each kind is, as far as it has been gone through. Links are neither followed nor counted."""

    def __init__(self, home: Path):
        self.sizes: dict[str, int] = dict.fromkeys(KINDS, 0)
        self.files = 0
        self._ahead: list[tuple[Path, str]] = [(home, "")]

    @property
    def done(self) -> bool:
        """Whether all of it has been gone through."""
        return not self._ahead

    @property
    def total(self) -> int:
        """Bytes so far."""
        return sum(self.sizes.values())

    def go_on(self, seconds: float) -> Tally:
        """Goes through more of it for about that long; a folder that vanishes meanwhile or can't be read counts as empty."""
        end = time.monotonic() + seconds
        while self._ahead and time.monotonic() < end:
            folder, kind = self._ahead.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        self._count(entry, kind or _KIND_OF.get(entry.name, "other"))
            except OSError:
                continue
        return self

    def _count(self, entry: os.DirEntry[str], kind: str) -> None:
        if entry.is_symlink():
            return
        if entry.is_dir():
            self._ahead.append((Path(entry.path), kind))
            return
        self.files += 1
        try:
            self.sizes[kind] += entry.stat(follow_symlinks=False).st_size
        except OSError:
            return


class Upkeep:
    """Of the one data directory that all owners share; counts of what is one owner's."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    def folder(self) -> str:
        """The data directory, the home directory in it as ~. Raises NotAllowed where others use it too."""
        guard.whole(self._owner)
        return shown(str(paths.home()))

    def tally(self) -> Tally:
        """Nothing gone through yet. Raises NotAllowed where others use it too."""
        guard.whole(self._owner)
        return Tally(paths.home())

    def free(self) -> int:
        """Bytes that are free on the data directory's disk."""
        return shutil.disk_usage(paths.home()).free

    def used(self) -> int:
        """Bytes of this owner's data sets and models."""
        return guard.used(self._store, self._owner)

    def kept(self) -> dict[str, int]:
        """How many of what is this owner's: runs, models, data sets, conversations, presets."""
        store, owner = self._store, self._owner
        return {
            "runs": sum(store.count_jobs(owner).values()),
            "models": len(store.models(owner)),
            "data sets": len(store.datasets(owner)),
            "conversations": len(store.conversations(owner)) + len(store.talks(owner)),
            "presets": len(store.presets(owner)),
        }

    def diagnostics(self) -> str:
        """Versions, the machine, the database, what is in order and what isn't, and the last lines of the log. Takes some seconds:
        PyTorch is asked for GPUs in a process of its own. Raises NotAllowed where the log is others' too."""
        guard.whole(self._owner)
        lines = [f"Thinker {engine.__version__}"]
        for check in health.checks():
            mark = {True: "ok", False: "NO", None: "--"}[check["ok"]]
            lines.append(" ".join(filter(None, (f"{mark}  {check['name']}: {check['says']}", check["next_step"]))))
        states = ", ".join(f"{count} {state}" for state, count in sorted(self._store.count_jobs(self._owner).items()))
        lines += [f"    database at {self._store.url}", f"    runs: {states or 'none'}", "", "Last lines of the log"]
        for line in logs.read_log(limit=_LOG_LINES):
            at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(line.get("at") or 0)))
            lines.append(f"{at}  {line.get('level')}  {str(line.get('text', ''))[:_LONGEST]}")
        return shown("\n".join(lines))


def shown(text: str) -> str:
    """The text as others may read it: no secret of the environment, nothing that looks like a key, the home directory as ~."""
    for name, value in os.environ.items():
        if len(value) >= 8 and any(word in name.upper() for word in _SECRET_WORDS):
            text = text.replace(value, "***")
    home = str(Path.home())
    return str(logs.masked(text.replace(home, "~") if len(home) > 1 else text))
