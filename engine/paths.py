"""Where Thinker keeps things: one data directory, `THINKER_HOME`, read on every call and never at import.

    thinker.db        the database            jobs/ID/      one job's log and artefacts
    datasets/ID/      one kept data set       servers/      local servers: records, checkpoints, keys
    logs/             thinker.jsonl           models/       merged and imported models

Knows names only; what is in the files is the business of their owners.
"""

from __future__ import annotations

import os
from pathlib import Path

from engine import platforms
from engine.errors import StorageError

ROOT = Path(__file__).resolve().parents[1]
"""Where this program lies; its processes are started there."""


def home() -> Path:
    """The data directory, made if absent: `THINKER_HOME`, else the platform's usual place."""
    chosen = os.environ.get("THINKER_HOME")
    path = Path(chosen).expanduser() if chosen else platforms.default_home()
    return _made(path.absolute())


def child_environment() -> dict[str, str]:
    """For a Python process of ours: it finds this program and this data directory, wherever it is started."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "THINKER_HOME": str(home()), "PYTHONPATH": path}


def folder(*parts: str) -> Path:
    """A folder below the data directory, made if absent."""
    return _made(home().joinpath(*parts))


def job_folder(job_id: str) -> Path:
    """One job's own folder."""
    return folder("jobs", job_id)


def _made(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = "Make room and see to its permissions, or set THINKER_HOME to another folder."
        raise StorageError(f"the data directory can't be made: {error.strerror}", advice, where=str(path)) from error
    return path
