"""Second copies of the states that matter most, apart from the working checkpoints, and putting them back.

    backups/JOB/STEP/weights/, sampler_weights/     the files of the checkpoint's folders
    backups/JOB/STEP/backup.json                    {paths: {kind: tinker path}}

Up to COPIED bytes they are copies, which outlive damage to the original; larger ones are hard links where the file system has them, which
take no room and outlive its deletion. A copy is put back only if it is what was saved. Of what this machine trained only: what lies
elsewhere is saved twice there. Knows nothing of which states matter.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from engine import paths, starts
from engine.endpoints import saved
from engine.errors import StorageError
from engine.store import artefacts
from engine.store.artefacts import read_json, whole_folder, write_json_atomic

FILE, RUN = "backup.json", "run.json"
COPIED = 2 * 1024**3


class _Damaged(Exception):
    """What is to be backed up isn't what was saved."""


def keep(job_id: str, step: int, kept: Mapping[str, str]) -> bool:
    """Backs up what was saved at a step: {kind: path}. -> whether it is backed up now; what isn't whole isn't. Raises StorageError."""
    place = _home(job_id) / str(step)
    known = read_json(place / FILE) or {}
    if known.get("paths") == dict(kept) and all((place / kind).is_dir() for kind in kept):
        return True
    folders = {kind: starts.folder_of(path) for kind, path in kept.items()}
    if not kept or None in folders.values():
        return False
    linked = sum(saved.weight(folder) for folder in folders.values() if folder) > COPIED
    # What stood there stays unless the new one is whole.
    with suppress(_Damaged), whole_folder(place) as draft:
        for kind, folder in folders.items():
            assert folder is not None
            (draft / kind).mkdir()
            for file in folder.iterdir():
                if file.is_file() and not file.name.startswith("."):
                    _copy(file, draft / kind / file.name, linked=linked)
            if not saved.sound(draft / kind):
                raise _Damaged
            _copy_run(folder, draft)
        write_json_atomic(draft / FILE, {"paths": dict(kept)})
        return True
    return False


def only(job_id: str, steps: Collection[int]) -> None:
    """Lets go of the job's backups of other steps."""
    for place in _places(job_id):
        if not place.name.isdecimal() or int(place.name) not in steps:
            shutil.rmtree(place, ignore_errors=True)


def steps(job_id: str) -> list[int]:
    """Which are there, in order."""
    return sorted(int(place.name) for place in _places(job_id) if place.name.isdecimal() and (place / FILE).is_file())


def size(job_id: str) -> int:
    """Bytes, links to what lies elsewhere counted too."""
    return sum(saved.weight(folder) for place in _places(job_id) for folder in place.iterdir() if folder.is_dir())


def has(path: str) -> bool:
    """Whether there is a backup of what lies, or lay, at that path, and it is whole."""
    return any(saved.sound(folder) for folder in _of(path))


def put_back(path: str, *, closely: bool = True) -> bool:
    """Sees to it that what was saved at that path is there and whole. -> whether it had to be put back.

    `closely` reads all of it; else a glance at its files has to do. Raises StorageError where nothing could be put back.
    """
    place = starts.place_of(path)
    if place is None or (place.is_dir() and (saved.sound(place) if closely else saved.present(place))):
        return False
    for folder in _of(path):
        if not saved.sound(folder):
            continue
        with whole_folder(place) as draft:
            for file in folder.iterdir():
                # A copy in any case: what is damaged next must not take its backup along.
                shutil.copyfile(file, draft / file.name)
        about = folder.parent / RUN
        if about.is_file() and not (place.parents[1] / RUN).exists():
            shutil.copyfile(about, place.parents[1] / RUN)
        return True
    what = "damaged" if place.is_dir() else "gone"
    raise StorageError(f"the checkpoint is {what}, and there is no whole backup of it", "Use another checkpoint.", where=str(place))


def at_hand(path: str) -> bool:
    """For whoever is about to use it: a glance, and what is gone is put back without a word of complaint. -> whether it was put back."""
    with suppress(StorageError):
        return put_back(path, closely=False)
    return False


def forget(path: str) -> None:
    """Lets go of the backups of what was deleted on purpose."""
    for folder in list(_of(path)):
        shutil.rmtree(folder, ignore_errors=True)
        left = [kind for kind in folder.parent.iterdir() if kind.is_dir()]
        if not left:
            shutil.rmtree(folder.parent, ignore_errors=True)


def forget_job(job_id: str) -> None:
    """Lets go of all of a job's."""
    shutil.rmtree(_home(job_id), ignore_errors=True)


def _home(job_id: str) -> Path:
    return paths.home() / "backups" / job_id


def _places(job_id: str) -> list[Path]:
    home = _home(job_id)
    if not home.is_dir():
        return []
    artefacts.sweep(home)
    return [place for place in home.iterdir() if place.is_dir() and not place.name.startswith(".")]


def _of(path: str) -> Iterator[Path]:
    """The folders that back up that path, the newest first."""
    found = []
    for file in (paths.home() / "backups").glob(f"*/*/{FILE}"):
        for kind, kept in ((read_json(file) or {}).get("paths") or {}).items():
            if kept == path and (file.parent / kind).is_dir():
                found.append((file.stat().st_mtime, file.parent / kind))
    yield from (folder for _, folder in sorted(found, key=lambda item: item[0], reverse=True))


def _copy(file: Path, target: Path, *, linked: bool) -> None:
    if linked and file.name != saved.ABOUT:
        with suppress(OSError):
            os.link(file, target)
            return
    shutil.copyfile(file, target)


def _copy_run(folder: Path, draft: Path) -> None:
    """The server's own note of whose run it is, without which nobody may load what is put back."""
    about = folder.parents[1] / RUN
    if about.is_file():
        shutil.copyfile(about, draft / RUN)
