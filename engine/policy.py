"""What one owner may do here: everything on their own machine, less where many share one. Read off the owner's name, so that
nobody who makes an Engine can forget it. Knows owners and limits; `guard` holds recipes, files and models against them.

An owner `person-...` has signed in, a `visitor-...` was given a cookie; any other name has the machine to itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engine
from engine import paths

PERSON, VISITOR = "person-", "visitor-"
# Recipe fields that name files of the machine.
PATH_FIELDS = frozenset({"data.path", "data.held_out_path"})


@dataclass(frozen=True)
class Policy:
    """`shared`: others use this machine too. None: no limit of our own."""

    shared: bool = False
    most_jobs: int | None = None
    most_upload: int | None = None
    most_disk: int | None = None

    @property
    def local_paths(self) -> bool:
        """Whether files and model folders of the machine may be named, and are shown."""
        return not self.shared

    @property
    def stores_keys(self) -> bool:
        """Whether keys may be written to the data directory."""
        return not self.shared

    @property
    def names_servers(self) -> bool:
        """Whether servers may be named by URL, for this machine to call."""
        return not self.shared

    @property
    def hidden_fields(self) -> frozenset[str]:
        """Recipe fields that can't be used."""
        return PATH_FIELDS if self.shared else frozenset()

    def told(self, value: Any) -> Any:
        """The same text (or texts in lists and objects) without the machine's own folders, where these are nobody's concern."""
        if not self.shared:
            return value
        if isinstance(value, str):
            for folder, name in _folders():
                value = value.replace(folder, name)
            return value
        if isinstance(value, dict):
            return {key: self.told(item) for key, item in value.items()}
        return [self.told(item) for item in value] if isinstance(value, (list, tuple)) else value


ALONE = Policy()
SHARED = Policy(shared=True, most_jobs=3, most_upload=20 * 2**20, most_disk=500_000_000)


def of(owner: str) -> Policy:
    """What this owner may do."""
    return SHARED if owner.startswith((PERSON, VISITOR)) else ALONE


def _folders() -> list[tuple[str, str]]:
    """(folder, what to call it), the longest first, lest a part of its name stays."""
    home, root = paths.home(), Path(engine.__file__).resolve().parents[1]
    found = {str(home): "DATA", str(home.resolve()): "DATA", str(root): "THINKER", str(Path.home()): "HOME"}
    return sorted(found.items(), key=lambda pair: -len(pair[0]))
