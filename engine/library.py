"""A person's library of data sets: files are read once when they come, kept whole, and read a page at a time after that.

Beside them stand the sets that ship with Thinker (ids `demo-NAME`), which can be looked at but not changed. What is somebody else's
raises NotFound. Knows files through `engine.data`; knows no screen.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from engine import guard, knowledge, models, paths, policy
from engine.data import demos, lengths, shelf
from engine.data.formats import FORMATS, read_examples
from engine.errors import DataError, NotFound, StateError
from engine.jobs import states
from engine.rendering import get_renderer, load_tokenizer
from engine.store import Job, LibrarySet, Store
from engine.store.artefacts import read_json, sweep, whole_folder, write_json_atomic

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from engine.data.lengths import Shown
    from engine.data.shelf import Row
    from engine.rendering import Renderer

MAX_BYTES = 50 * 2**20
MEASURED_ROWS = 2000
FOUND_ROWS = 5000
_MEASURED_AS = 2  # what was worked out in another way is worked out anew
_NAME = 120
_SHIPS = "demo-"
_UNFINISHED = frozenset(states.STATES) - states.FINAL


class Library:
    """One person's data sets."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner
        sweep(paths.folder("datasets"))

    # -- keeping

    def add(self, name: str, source: bytes | BinaryIO | Path, *, format: str = "auto", mapping: dict[str, str] | None = None) -> LibrarySet:
        """Keeps a file that is called `name`: JSONL, JSON, CSV or Parquet. The very same bytes are kept once.

        Where the rows can be read but not told apart as prompts and answers, the set is kept `unmapped`: see `remap`. Raises DataError
        for what can't be read at all, and StorageError; nothing is kept then.
        """
        if isinstance(source, Path):
            guard.file(self._owner, "file")
        guard.room(self._store, self._owner)
        file_name = Path(name.replace("\\", "/")).name or "data"
        suffix = re.fullmatch(r".*?(\.[a-z0-9]{1,10})", file_name.lower())
        dataset_id = self._store.new_dataset_id()
        with whole_folder(shelf.folder(dataset_id)) as place:
            file = place / f"original{suffix[1] if suffix else ''}"
            digest, count = _copied(source, file, file_name, policy.of(self._owner).most_upload or MAX_BYTES)
            guard.room(self._store, self._owner, count)
            known = self._store.dataset_with(digest, self._owner)
            if known is None:
                values = _called(file_name, file, lambda: _read(place, file, format, mapping or {}))
        if known is not None:
            shutil.rmtree(shelf.folder(dataset_id), ignore_errors=True)
            return known
        title = " ".join(Path(file_name).stem.split())[:_NAME] or "data"
        return self._store.add_dataset(dataset_id, title, owner=self._owner, file=file_name, digest=digest, bytes=count, **values)

    def remap(self, dataset_id: str, format: str = "auto", mapping: dict[str, str] | None = None) -> LibrarySet:
        """Reads the file again, by other columns. Raises DataError where that gives nothing, and StateError while a run needs it."""
        found = self._own(dataset_id)
        self._refuse_in_use(found, "reads it")
        kept = shelf.original(found.id)
        with whole_folder(shelf.folder(found.id)) as place:
            file = Path(shutil.copy(kept, place / kept.name))
            report, stats = _called(found.file, file, lambda: shelf.read_into(place, file, format, mapping or {}))
        state = "check" if report.problems else "ready"
        values = {"format": report.format, "mapping": mapping or {}, "state": state, "stats": stats, "error": None}
        return self._store.set_dataset(found.id, self._owner, **values)

    def accept(self, dataset_id: str) -> LibrarySet:
        """The person agrees that the rows that can't be used are left out."""
        found = self._own(dataset_id)
        return self._store.set_dataset(found.id, self._owner, state="ready") if found.state == "check" else found

    def rename(self, dataset_id: str, name: str) -> LibrarySet:
        """Raises NotFound, and StateError for a name that is taken, empty or too long."""
        name = " ".join(name.split())
        if not name or len(name) > _NAME:
            raise StateError(f"a data set's name has 1 to {_NAME} characters", "Write another one.")
        return self._store.rename_dataset(self._own(dataset_id).id, name, self._owner)

    def delete(self, dataset_id: str) -> None:
        """The data set and its files, for good. Raises NotFound, and StateError while a run needs it."""
        found = self._own(dataset_id)
        self._refuse_in_use(found, "needs it")
        self._store.delete_dataset(found.id, self._owner)
        shutil.rmtree(shelf.folder(found.id), ignore_errors=True)

    # -- finding

    def find(self, search: str = "") -> list[LibrarySet]:
        """The person's own, newest first; those whose name or file holds `search`."""
        return self._store.datasets(self._owner, search)

    def ships(self) -> list[LibrarySet]:
        """Those that come with Thinker."""
        return [_shipped(name) for name in knowledge.demos() if name in demos.names()]

    def get(self, dataset_id: str) -> LibrarySet:
        """By id. Raises NotFound, also for somebody else's."""
        name = dataset_id.removeprefix(_SHIPS)
        if dataset_id.startswith(_SHIPS) and name in demos.names():
            return _shipped(name)
        return self._store.dataset(dataset_id, self._owner)

    def usable(self, dataset_id: str) -> LibrarySet:
        """The same, if it can be trained on. Raises NotFound and StateError."""
        found = self.get(dataset_id)
        if found.state == "unmapped":
            raise StateError(f"it isn't known yet which columns of {found.name} are questions and answers", "Say so on its page first.")
        return found

    def source(self, dataset_id: str) -> dict[str, str]:
        """What a recipe's data part says to learn from it. Raises NotFound and StateError."""
        found = self.usable(dataset_id)
        return {"demo": found.name} if found.ships else {"dataset": found.id}

    def used_by(self, dataset_id: str) -> list[Job]:
        """The runs that learn or learned from it, newest first."""
        found = self.get(dataset_id)
        return [] if found.ships else self._store.jobs_on_dataset(found.id, self._owner)

    # -- looking inside

    def rows(self, dataset_id: str, start: int = 0, most: int = 10) -> list[Row]:
        """The usable rows from `start` on, as conversations."""
        return shelf.rows(self._chats(dataset_id), start, most)

    def search(self, dataset_id: str, text: str) -> list[int]:
        """The places of the rows that hold the text: the first 5,000."""
        return shelf.search(self._chats(dataset_id), text, FOUND_ROWS)

    def problems(self, dataset_id: str) -> dict[str, Any]:
        """{problems: the first 500 rows that were left out, groups: alike ones counted}."""
        found = self.get(dataset_id)
        return {"problems": [], "groups": []} if found.ships else shelf.problems(found.id)

    def columns(self, dataset_id: str) -> dict[str, Any]:
        """{columns, rows: the first few, fields: what each format wants}: for saying which column is which. Raises DataError."""
        found = self._own(dataset_id)
        file = shelf.original(found.id)
        wanted = {
            name: {"fields": list(layout.fields), "required": list(layout.required), "shape": layout.shape}
            for name, layout in FORMATS.items()
        }
        return _called(found.file, file, lambda: shelf.columns(file)) | {"fields": wanted}

    def base_models(self) -> list[str]:
        """Those whose tokenizer is on this machine: nano, and what the person's runs started from."""
        used = dict.fromkeys([model.base_model for model in self._store.models(self._owner)])
        used.update(dict.fromkeys(job.base_model for job in self._store.jobs(self._owner)))
        return ["nano", *(name for name in used if name != "nano" and models.at_hand(name))]

    def lengths(self, dataset_id: str, base_model: str = "nano") -> dict[str, Any]:
        """How long its rows are in this model's tokens; of a large set, 2,000 rows spread evenly. Worked out once and kept."""
        found, chats, folder = self.get(dataset_id), self._chats(dataset_id), self._model(base_model)
        limit = models.context_length(folder)
        files = [folder / name for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json")]
        stamp = [[str(file), file.stat().st_mtime_ns] for file in files if file.is_file()] + [
            chats.stat().st_mtime_ns,
            MEASURED_ROWS,
            _MEASURED_AS,
        ]
        key = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()[:16]
        kept = (paths.folder("cache") if found.ships else chats.parent) / f"lengths-{found.name if found.ships else found.id}-{key}.json"
        if (known := read_json(kept)) is not None:
            return known
        examples = [row.example for row in shelf.spread(chats, MEASURED_ROWS)]
        measured = lengths.measure(examples, _reader(folder)[1], limit, found.shape)
        result = {**lengths.summary(measured, limit), "rows": shelf.count(chats)}
        write_json_atomic(kept, result)
        return result

    def seen(self, row: Row, base_model: str = "nano", max_length: int | None = None) -> list[Shown]:
        """A row as this model sees it, token by token: given, learned, cut off; of a pair both sides. Raises ModelError."""
        folder = self._model(base_model)
        tokenizer, renderer = _reader(folder)
        limit = min(max_length or lengths.NO_LIMIT, models.context_length(folder))
        return lengths.seen(row.example, renderer, tokenizer, limit, row.shape)

    # -- taking away

    def original(self, dataset_id: str) -> tuple[str, bytes]:
        """(file name, bytes) as it came."""
        found = self.get(dataset_id)
        return found.file, (demos.find(found.name).train if found.ships else shelf.original(found.id)).read_bytes()

    def as_chats(self, dataset_id: str) -> tuple[str, bytes]:
        """(file name, JSONL): the usable rows alone, chats or, of other shapes, as most tools read them."""
        chats = self._chats(dataset_id)
        rows = (json.dumps(shelf.portable(row), ensure_ascii=False) + "\n" for row in shelf.rows(chats, 0, shelf.count(chats)))
        return f"{Path(self.get(dataset_id).file).stem}.chats.jsonl", "".join(rows).encode()

    # -- inside

    def _own(self, dataset_id: str) -> LibrarySet:
        found = self.get(dataset_id)
        if found.ships:
            raise StateError(f"{found.file} comes with Thinker and stays as it is", "Download it and add it as your own.")
        return found

    def _chats(self, dataset_id: str) -> Path:
        found = self.usable(dataset_id)
        return demos.find(found.name).train if found.ships else shelf.chats_file(found.id)

    def _refuse_in_use(self, found: LibrarySet, what: str) -> None:
        for job in self._store.jobs_on_dataset(found.id, self._owner):
            if job.state in _UNFINISHED:
                said = f"the run {job.name} is {states.LIGHTS[job.state].label} and {what}"
                raise StateError(said, "Wait for it to finish, or stop it first.", where=found.name)

    def _model(self, base_model: str) -> Path:
        guard.model(self._owner, base_model, endpoint="")
        folder = models.at_hand(base_model)
        if folder is None:
            raise NotFound(f"the model {base_model} isn't on this machine", "Choose another; a first run with it downloads it.")
        return folder


def _copied(source: bytes | BinaryIO | Path, file: Path, name: str, most: int) -> tuple[str, int]:
    """Copies within the limit. -> (SHA-256, size). Raises DataError."""
    digest, count = hashlib.sha256(), 0

    def keep(chunk: bytes) -> None:
        nonlocal count
        count += len(chunk)
        if count > most:
            advice = "Split it, or train on the file where it lies: python thinker.py train FILE."
            raise DataError(f"the file is over {most / 2**20:.0f} MB, the most that the library keeps", advice, where=name)
        digest.update(chunk)
        target.write(chunk)

    with file.open("wb") as target:
        if isinstance(source, bytes):
            keep(source)
        elif isinstance(source, Path):
            with source.open("rb") as opened:
                while chunk := opened.read(2**20):
                    keep(chunk)
        else:
            while chunk := source.read(2**20):
                keep(chunk)
    return digest.hexdigest(), count


def _read(place: Path, file: Path, format: str, mapping: dict[str, str]) -> dict[str, Any]:
    """The store's columns for the file, which is put on the shelf in passing. Raises DataError."""
    try:
        report, stats = shelf.read_into(place, file, format, mapping)
    except DataError as error:
        # Other columns may do where the rows as such can be read.
        if mapping or format != "auto" or not shelf.readable(file):
            raise
        return {"format": "", "mapping": {}, "state": "unmapped", "stats": {}, "error": error.to_dict()}
    state = "check" if report.problems else "ready"
    return {"format": report.format, "mapping": mapping, "state": state, "stats": stats, "error": None}


def _called(name: str, file: Path, action: Callable[[], Any]) -> Any:
    """Carries it out; an error calls the file what the person calls it."""
    try:
        found = action()
    except DataError as error:
        raise DataError(error.message, error.next_step, where=error.where.replace(str(file), name)) from error
    error = found.get("error") if isinstance(found, dict) else None
    if error:
        error["where"] = error["where"].replace(str(file), name)
    return found


def _reader(folder: Path) -> tuple[PreTrainedTokenizerFast, Renderer]:
    """A model's tokenizer and renderer; large ones take a second to load."""
    return _loaded(folder, (folder / "tokenizer.json").stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _loaded(folder: Path, _changed: int) -> tuple[PreTrainedTokenizerFast, Renderer]:
    tokenizer = load_tokenizer(folder)
    return tokenizer, get_renderer("auto", tokenizer)


@cache
def _shipped(name: str) -> LibrarySet:
    file = demos.find(name).train
    counts = knowledge.demo(name)["examples"]
    return LibrarySet(
        id=f"{_SHIPS}{name}",
        owner="",
        name=name,
        file=file.name,
        bytes=file.stat().st_size,
        digest="",
        format="messages",
        mapping={},
        state="ready",
        stats=shelf.figures(read_examples(file, "messages")) | {"held_out": counts["held_out"]},
        error=None,
        created_at=0.0,
        ships=True,
    )
