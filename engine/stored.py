"""`engine.stored`: the checkpoints that lie at an endpoint elsewhere: listed with size and expiry, labelled, published, deleted, fetched.

Asks over plain HTTP; only to have weights packed as a PEFT folder does it need the SDK, in a process of its own (`fetch`). The API has no
names but paths, so labels are kept here. Knows no screen.
"""

from __future__ import annotations

import io
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import endpoints, guard, paths, starts
from engine.amounts import size
from engine.endpoints import fetch, remote, tinker_cloud
from engine.errors import EndpointError, NotFound, RecipeError, StateError
from engine.jobs import states

if TYPE_CHECKING:
    from engine.store import Store

LABELS = "stored_labels"
KINDS = {"weights": "to go on from", "sampler_weights": "to use", "external_weights": "to take away"}
SHORTEST_S, LONGEST_S = 3600, 10 * 365 * 86400
_PAGE, _PAGES = 200, 50
_PATH = re.compile(
    r"tinker://([A-Za-z0-9][A-Za-z0-9:._-]{0,199})/(weights|sampler_weights|external_weights)/([A-Za-z0-9][A-Za-z0-9._-]{0,127})"
)
_LABEL = 120
_MOST_ZIPPED = 2 * 1024**3


@dataclass(frozen=True)
class Kept:
    """One checkpoint there. `kind` is one of KINDS; times are unix seconds; `job_id` is the run of ours that saved it, empty for others.

    `used_by` names models of ours that stand on it. `page` is its place in Tinker's console, empty elsewhere.
    """

    path: str
    kind: str
    run: str
    name: str
    bytes: int | None
    saved_at: float | None
    expires_at: float | None
    public: bool
    job_id: str = ""
    step: int | None = None
    label: str = ""
    used_by: tuple[str, ...] = ()
    page: str = ""


class Stored:
    """One owner's, by the owner's key."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    def places(self) -> list[str]:
        """The endpoints that keep checkpoints elsewhere and whose key is there."""
        found = []
        for name in endpoints.names(self._owner):
            kind = endpoints.kind(name, self._owner)
            if not kind.weights and (kind.key is None or self._has_key(name)):
                found.append(name)
        return found

    def listed(self, endpoint: str) -> list[Kept]:
        """Newest first. Raises EngineError."""
        where, key = self._where(endpoint)
        raw: list[dict[str, Any]] = []
        for page in range(_PAGES):
            found = remote.asked(where, f"checkpoints?limit={_PAGE}&offset={page * _PAGE}", key).get("checkpoints") or []
            raw += found
            if len(found) < _PAGE:
                break
        labels, used = self._labels(), self._used()
        runs = {str((one.get("user_metadata") or {}).get("job", "")) for one in raw}
        ours = {job.id for job in self._store.jobs_by_id(runs, self._owner)}
        kept = [self._kept(endpoint, one, labels, used, ours) for one in raw]
        return sorted((one for one in kept if one), key=lambda one: -(one.saved_at or 0))

    def label(self, endpoint: str, tinker_path: str, label: str) -> None:
        """What to call it here; empty forgets it. The endpoint isn't told. Raises RecipeError."""
        self._parsed(tinker_path)
        self._where(endpoint)
        label = " ".join(label.split())
        if len(label) > _LABEL:
            raise RecipeError(f"a label has up to {_LABEL} characters", "Shorten it.", where="label")
        labels = self._labels()
        labels.pop(tinker_path, None)
        if label:
            labels[tinker_path] = label
        self._store.set_setting(self._owner, LABELS, labels)

    def publish(self, endpoint: str, tinker_path: str, public: bool = True) -> None:
        """Lets anybody with its path use it, or takes that back. Raises EngineError."""
        self._ask(endpoint, tinker_path, "/publish", "POST" if public else "DELETE")

    def expire(self, endpoint: str, tinker_path: str, seconds: int | None) -> None:
        """Has it deleted there after so long (an hour to ten years); None keeps it for good. Raises EngineError."""
        if seconds is not None and not SHORTEST_S <= seconds <= LONGEST_S:
            raise RecipeError("a checkpoint is kept for an hour at least and ten years at most", "Choose another time.", where="expiry")
        self._ask(endpoint, tinker_path, "/ttl", "PUT", json={"ttl_seconds": seconds})

    def delete(self, endpoint: str, tinker_path: str) -> None:
        """For good. Raises EngineError, StateError while a run of ours needs it or begins with it."""
        if waiting := starts.going_on_from(self._store, self._owner, tinker_path):
            said = f"the run {waiting.name} is {states.LIGHTS[waiting.state].label} and goes on from it"
            raise StateError(said, "Wait for its end, or stop it first.")
        for job in self._store.jobs(self._owner, states=tuple(set(states.STATES) - states.FINAL), limit=1000):
            if job.endpoint == endpoint and any(point.path == tinker_path for point in self._store.checkpoints(job.id, owner=self._owner)):
                said = f"the run {job.name} is {states.LIGHTS[job.state].label} and may go on from it"
                raise StateError(said, "Wait for its end, or stop it first.")
        self._ask(endpoint, tinker_path, "", "DELETE")
        labels = self._labels()
        if labels.pop(tinker_path, None) is not None:
            self._store.set_setting(self._owner, LABELS, labels)

    def download(
        self, endpoint: str, tinker_path: str, folder: str | Path | None = None, say: Callable[[str], None] = lambda _: None
    ) -> Path:
        """The PEFT folder of what was trained (adapter_model.safetensors, adapter_config.json): into a folder that is new or empty, by
        default one of the data directory's. Raises EngineError; nothing half-fetched stays."""
        guard.whole(self._owner)
        run, _, name = self._parsed(tinker_path)
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{run}-{name}")
        target = Path(folder).expanduser().resolve() if folder else paths.folder("models", "fetched") / safe
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            if folder is None:
                return target
            raise StateError("the folder isn't empty", "Give another one.", where=str(target))
        self._fetch(endpoint, tinker_path, target, say)
        return target

    def archive(self, endpoint: str, tinker_path: str, say: Callable[[str], None] = lambda _: None) -> bytes:
        """The same as a zip, for a browser. Raises EngineError."""
        with tempfile.TemporaryDirectory(prefix="thinker-fetch-") as scratch:
            folder = Path(scratch) / "adapter"
            self._fetch(endpoint, tinker_path, folder, say, most=_MOST_ZIPPED)
            text = io.BytesIO()
            with zipfile.ZipFile(text, "w", zipfile.ZIP_STORED) as packed:
                for file in sorted(folder.iterdir()):
                    packed.write(file, f"{self._parsed(tinker_path)[2]}/{file.name}")
            return text.getvalue()

    def _fetch(self, endpoint: str, tinker_path: str, target: Path, say: Callable[[str], None], most: int | None = None) -> None:
        where, key = self._where(endpoint)
        run, kind, name = self._parsed(tinker_path)
        packed = tinker_path
        if kind != "external_weights":
            # What is only for use can't be packed; the state that was saved with it can.
            source = f"tinker://{run}/weights/{name}"
            if kind == "sampler_weights" and source not in {one.path for one in self.listed(endpoint)}:
                advice = "Choose one that is to go on from: only those can be packed."
                raise NotFound("the weights that were saved along with it are gone", advice, where=tinker_path)
            say("having it packed")
            packed = fetch.pack(where.url, key, source)
        found = remote.asked(where, f"{_rest(*self._parsed(packed))}/external_weights_urls", key).get("urls") or {}
        if not found:
            raise EndpointError("the server offers no file of it", "Try again later.", where=tinker_path)
        try:
            fetch.files(found, target, say, most)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise

    def _ask(self, endpoint: str, tinker_path: str, what: str, method: str, **options: Any) -> None:
        where, key = self._where(endpoint)
        remote.asked(where, f"{_rest(*self._parsed(tinker_path))}{what}", key, method, **options)

    def _where(self, endpoint: str) -> tuple[remote.Address, str]:
        if endpoints.kind(endpoint, self._owner).weights:
            raise StateError("what this machine trains lies in its own folder", "Look at Models.", where=endpoint)
        where = remote.address(endpoint, self._owner)
        return where, where.key(self._owner)

    def _has_key(self, endpoint: str) -> bool:
        try:
            return bool(remote.address(endpoint, self._owner).key(self._owner))
        except PermissionError:
            return False

    def _parsed(self, tinker_path: str) -> tuple[str, str, str]:
        found = _PATH.fullmatch(tinker_path)
        if not found:
            raise NotFound(f"{tinker_path[:80]!r} is no checkpoint's path", "Choose one of the list.")
        return found[1], found[2], found[3]

    def _kept(self, endpoint: str, one: dict[str, Any], labels: dict[str, str], used: dict[str, list[str]], ours: set[str]) -> Kept | None:
        path = str(one.get("tinker_path", ""))
        found = _PATH.fullmatch(path)
        if not found:
            return None
        about = one.get("user_metadata") or {}
        there = endpoint == endpoints.TINKER and tinker_cloud.is_the_cloud()
        return Kept(
            path=path,
            kind=found[2],
            run=found[1],
            name=found[3],
            bytes=one.get("size_bytes"),
            saved_at=_seconds(one.get("time")),
            expires_at=_seconds(one.get("expires_at")),
            public=bool(one.get("public")),
            job_id=str(about.get("job", "")) if about.get("job") in ours else "",
            step=int(about["step"]) if str(about.get("step", "")).isdecimal() else None,
            label=labels.get(path, ""),
            used_by=tuple(used.get(path, ())),
            page=tinker_cloud.checkpoint_page(found[1], f"{found[2]}/{found[3]}") if there else "",
        )

    def _labels(self) -> dict[str, str]:
        found = self._store.setting(self._owner, LABELS)
        return dict(found) if isinstance(found, dict) else {}

    def _used(self) -> dict[str, list[str]]:
        """{path: what of ours stands on it}."""
        found: dict[str, list[str]] = {}
        for model in self._store.models(self._owner):
            for path in {model.sampler_path, model.weights_path} - {""}:
                found.setdefault(path, []).append(model.name)
        return found


def summed(kept: list[Kept]) -> str:
    """How many there are, and how big."""
    known = sum(one.bytes or 0 for one in kept)
    return f"{len(kept):,} checkpoint{'s' * (len(kept) != 1)}, {size(known)}"


def _rest(run: str, kind: str, name: str) -> str:
    return f"training_runs/{run}/checkpoints/{kind}/{name}"


def _seconds(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp() if text else None
    except ValueError:
        return None
