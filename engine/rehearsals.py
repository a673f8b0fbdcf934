"""`engine.rehearsals`: one press runs a recipe small, all of it, and stamps it rehearsed or names what would have failed.

The stamp is on what is run: any change of the recipe, or of a file that it reads, takes it away; another name doesn't. The work is done in
a process of its own, so that it waits for no run and the dashboard loads nothing for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine import data, guard, keys, paths, platforms, settling
from engine.endpoints import kind
from engine.errors import RecipeError, StorageError
from engine.estimates import Estimate
from engine.library import Library
from engine.recipe import DataSpec, Recipe
from engine.rehearsing.report import Check, checks
from engine.store import Job, Rehearsal, Store

_NOTHING = 30.0  # seconds in which a rehearsal's process has to say that it is there
PASSED, RUNNING = "passed", "running"


class Rehearsals:
    """One owner's."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    def start(self, recipe: Recipe) -> Rehearsal:
        """Begins one in the background and returns at once; another one of the owner's that still runs is stopped. Raises EngineError."""
        begun = self._begin(recipe)
        if os.environ.get("THINKER_RUNNER") == "inline":
            threading.Thread(target=_inline, args=(self._store, begun), name=f"rehearsal-{begun.id}", daemon=True).start()
        else:
            _spawn(begun.id, _keys_for(self._owner))
        return begun

    def run(self, recipe: Recipe, told: Callable[[Check], None] = lambda check: None) -> Rehearsal:
        """Does one here, to its end; `told` hears of each look as it ends. Raises EngineError for a recipe that can't be tried at all."""
        from engine.rehearsing.host import carry_out

        begun = self._begin(recipe)
        said: set[tuple[str, int]] = set()

        def tell(values: dict[str, Any]) -> None:
            for check in checks(values):
                if check.state != "running" and (check.name, check.stage) not in said:
                    said.add((check.name, check.stage))
                    told(check)

        try:
            carry_out(self._store, begun, tell)
        except BaseException:
            self._store.tell_rehearsal(begun.id, state="stopped")
            raise
        return self.get(begun.id)

    def get(self, rehearsal_id: str) -> Rehearsal:
        """As it stands. One whose process is gone is `lost`. Raises NotFound."""
        found = self._store.rehearsal(rehearsal_id, self._owner)
        if not found.over and not _alive(found, self._store.now()):
            self._store.tell_rehearsal(found.id, state="lost")
            found = self._store.rehearsal(rehearsal_id, self._owner)
        return found

    def stop(self, rehearsal_id: str) -> Rehearsal:
        """Ends it within a moment; nothing happens to one that has ended. Raises NotFound."""
        found = self.get(rehearsal_id)
        self._store.tell_rehearsal(found.id, state="stopped")
        return self.get(rehearsal_id)

    def checks(self, rehearsal_id: str) -> list[Check]:
        """What was looked at so far, in order. Raises NotFound."""
        return checks(self.get(rehearsal_id).report)

    def latest(self, recipe: Recipe) -> Rehearsal | None:
        """The newest of this very recipe, with its files as they are; None where there is none. Raises EngineError as `start`."""
        settled, files = self._looked_at(recipe)
        found = self._store.rehearsals(self._owner, digest(settled), limit=5)
        same = [one for one in found if one.files == files]
        return self.get(same[0].id) if same else None

    def stamp(self, recipe: Recipe) -> Rehearsal | None:
        """The rehearsal that this recipe stood; None where it stood none, was changed since, or failed a newer one. Raises EngineError."""
        found = self.latest(recipe)
        return found if found is not None and found.state == PASSED else None

    def stamp_of(self, job: Job) -> Rehearsal | None:
        """The rehearsal that a run's recipe had stood when it was launched."""
        try:
            known = digest(job.recipe)
        except RecipeError:
            return None
        found = self._store.rehearsals(self._owner, known, states=(PASSED,), limit=50)
        return next((one for one in found if one.ended_at is not None and one.ended_at <= job.created_at), None)

    def advised(self, endpoint: str, estimates: Sequence[Estimate]) -> str:
        """Why to rehearse it first; empty where a try costs about as much as the run."""
        place = kind(endpoint, self._owner)
        if place.key is not None:
            return f"{place.title} charges for what it does; this try costs nothing there."
        large = [one for one in estimates if one.name in ("time", "money") and one.size != "small"]
        return f"The run takes {large[0].text}; this try takes a minute or so." if large else ""

    def _begin(self, recipe: Recipe) -> Rehearsal:
        settled, files = self._looked_at(recipe)
        for other in self._store.rehearsals(self._owner, states=(RUNNING,)):
            self._store.tell_rehearsal(other.id, state="stopped")
        return self._store.begin_rehearsal(settled, digest(settled), files, self._owner)

    def _looked_at(self, recipe: Recipe) -> tuple[Recipe, str]:
        """(the recipe as it would be launched, what its files look like now). Raises EngineError, for somebody else's things as well."""
        guard.recipe(self._owner, recipe)
        if not (recipe.data.demo or recipe.data.path or recipe.data.dataset):
            raise RecipeError("the recipe names no data", "Give a demo, a file or a data set.", where="recipe data")
        library = Library(self._store, self._owner)
        for part in _sources(recipe):
            if part.dataset:
                library.usable(part.dataset)
        return settling.settle(self._store, self._owner, recipe), _files(recipe)


def digest(recipe: Recipe) -> str:
    """Of what is run: everything in the recipe but its name."""
    values = recipe.model_dump(mode="json")
    values.pop("name")
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8", "replace")).hexdigest()


def _sources(recipe: Recipe) -> Iterator[Any]:
    for stage in recipe.stages():
        yield stage.recipe.data
        yield from stage.recipe.data.mix


def _files(recipe: Recipe) -> str:
    """Changes with the files that the recipe reads."""
    found = []
    for part in _sources(recipe):
        given = [part.path, part.held_out_path if isinstance(part, DataSpec) else ""]
        files = [Path(path).expanduser() for path in given if path] + ([data.chats_file(part.dataset)] if part.dataset else [])
        for file in files:
            with suppress(OSError):
                stat = file.stat()
                found.append([str(file.resolve()), stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps(found).encode("utf-8", "replace")).hexdigest()[:16]


def _alive(found: Rehearsal, now: float) -> bool:
    if found.process:
        return platforms.same_process(found.process["pid"], found.process["started_at"])
    return now - found.created_at < _NOTHING


def _keys_for(owner: str) -> list[list[str]]:
    """The owner's keys that this process holds in its memory alone."""
    return [[holder, name, value] for (holder, name), value in keys.held().items() if holder == owner]


def _inline(store: Store, begun: Rehearsal) -> None:
    from engine.rehearsing.host import carry_out

    carry_out(store, begun)


def _spawn(rehearsal_id: str, held: list[list[str]]) -> None:
    options = {"cwd": paths.ROOT, "env": paths.child_environment(), **platforms.detached_process_options(), "stdin": subprocess.PIPE}
    with (paths.folder("logs") / "rehearsals.out").open("ab") as output:
        try:
            command = [sys.executable, "-m", "engine.rehearsing.host", rehearsal_id]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, **options)
        except OSError as error:
            raise StorageError(f"the rehearsal can't be started: {error}", "Close other programs and try again.") from error
    assert process.stdin is not None
    with suppress(OSError), process.stdin:
        # By a pipe, which nobody else can read and which leaves nothing behind.
        process.stdin.write(json.dumps(held).encode())
    # Somebody has to take note of its end, else it stays in the list of processes for as long as this one lives.
    threading.Thread(target=process.wait, name="rehearsal-reaper", daemon=True).start()
