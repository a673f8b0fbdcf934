"""This machine: starts our own server when none runs for the model, shares it between jobs and chats, notices its death.

One server process per base model and data directory. Its record (`servers/ID/server.json`) says where it answers. Of two
starters a file lock lets one go first; the server itself holds another for as long as it lives, so that there is never a second
beside it, even where its starter was killed meanwhile. It ends by itself when nobody has used it for a while. Knows processes and
files; nothing of training.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from engine import paths, platforms, system
from engine.errors import EndpointError, EndpointLost
from engine.server import NOT_ALONE
from engine.server.owners import own_key

IDLE_EXIT_SECONDS = 600
START_SECONDS = 600.0  # a large model may take minutes to load
STATUS_EVERY = 5.0  # seconds between asking the server itself; its process is looked at every time
ANSWER_SECONDS = 10.0
SILENCES = 4  # unanswered questions in a row after which a living process counts as hung
KEY_FILE = "key"
SILENT_SECONDS = 40.0  # for which a living server that others started may answer nothing


class LocalServer:
    """The server for one base model: running already, or being started."""

    def __init__(self, base_model: str, model_folder: Path):
        self.base_model = base_model
        self.url = ""
        self._model_folder = model_folder
        self._folder = paths.folder("servers", _server_id(base_model, model_folder))
        self._process: subprocess.Popen | None = None
        self._record: dict[str, Any] = {}
        self._asked_at = 0.0
        self._silences = 0
        self._silent_since = 0.0
        self._log_start = 0
        self._begin()

    def ready(self, say: Callable[[str], None], heed: Callable[[], object] | None = None) -> None:
        """Waits until it answers. Raises EndpointError with the end of the server's log, EndpointLost when somebody killed it."""
        if self.url:
            return
        say("loading model weights")
        try:
            self._wait(heed or (lambda: None))
        finally:
            self._release_lock()

    def alive(self) -> bool:
        """Its process is there and, asked now and then, it is the same life of the same server."""
        if not platforms.same_process(self._record["pid"], self._record["process_started_at"]):
            return False
        if time.monotonic() - self._asked_at < STATUS_EVERY:
            return True
        self._asked_at = time.monotonic()
        # A machine that is short of memory or time may answer late; a process that is gone was noticed above.
        self._silences = 0 if _status(self.url, self.key()) is not None else self._silences + 1
        if self._silences < SILENCES:
            return True
        # It keeps the next one from starting.
        platforms.kill(self.pid)
        return False

    def context(self, heed: Callable[[], object] | None = None) -> None:
        """The model's own files say."""

    def key(self) -> str:
        """From the key file that the server made; empty before it did."""
        file = paths.folder("servers") / KEY_FILE
        text = os.environ.get("THINKER_SERVER_KEY") or os.environ.get("THINKER_SERVER_KEYS", "").partition(",")[0]
        return own_key(text or (file.read_text(encoding="utf-8") if file.exists() else ""))

    @property
    def chat_url(self) -> str:
        return f"{self.url}/v1"

    @property
    def log_file(self) -> Path:
        return self._folder / "server.log"

    @property
    def pid(self) -> int:
        return int(self._record["pid"])

    def _begin(self) -> None:
        """Adopts a running server, or starts one unless somebody else is just doing so."""
        if self._adopt():
            return
        self._lock = (self._folder / "lock").open("a+")
        if not platforms.lock_file(self._lock):
            self._lock.close()
            return
        if self._adopt() or not self._alone():
            self._release_lock()
            return
        (self._folder / "server.json").unlink(missing_ok=True)
        command = [sys.executable, "-m", "engine.server", "--base-model", str(self._model_folder), "--name", self.base_model]
        command += ["--port", "0", "--checkpoints", str(paths.folder("checkpoints")), "--key-file", str(paths.folder("servers") / KEY_FILE)]
        command += ["--ready-file", str(self._folder / "server.json"), "--idle-exit", str(IDLE_EXIT_SECONDS)]
        command += ["--only-one", str(self._folder / "life")]
        options = {"cwd": paths.ROOT, "env": paths.child_environment(), **platforms.detached_process_options()}
        with self.log_file.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **options)
        # Somebody has to take note of its end, else it stays in the list of processes.
        threading.Thread(target=self._process.wait, name="server-reaper", daemon=True).start()

    def _wait(self, heed: Callable[[], object]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._adopt():
            if self._process is not None and self._process.poll() is not None:
                self._release_lock()
                if self._process.returncode == NOT_ALONE:
                    self._process = None
                    continue
                if self._process.returncode < 0:
                    # By a signal, of the system's memory guard perhaps: it had no say in it, and the next one may live.
                    killed = f"the server for {self.base_model} was killed while it was starting"
                    raise EndpointLost(killed, "Try again; a job does so by itself.")
                raise EndpointError(
                    f"the server for {self.base_model} could not start: {self._last_words()}",
                    "Look at the server's log for more.",
                    where=str(self.log_file),
                )
            if self._process is None:
                self._begin()
            if time.monotonic() > deadline:
                raise EndpointError("the server didn't answer in ten minutes", "Look at its log.", where=str(self.log_file))
            heed()
            time.sleep(0.05)

    def _alone(self) -> bool:
        """Whether no server lives, or is starting. One that has been silent for too long is ended."""
        with (self._folder / "life").open("a+") as life:
            if platforms.lock_file(life):
                platforms.unlock_file(life)
                return True
        if self._silent_since and time.monotonic() - self._silent_since > SILENT_SECONDS:
            platforms.kill(self.pid)
        return False

    def _adopt(self) -> bool:
        """Takes over the server that the record names, if it lives and answers."""
        try:
            record = json.loads((self._folder / "server.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        started = platforms.process_started_at(record["pid"])
        if started is None:
            return False
        self._record = {**record, "process_started_at": started}
        if _status(record["url"], self.key()) is None:
            self._silent_since = self._silent_since or time.monotonic()
            return False
        self._silent_since = 0.0
        self.url = record["url"]
        self._asked_at = time.monotonic()
        return True

    def _release_lock(self) -> None:
        lock = getattr(self, "_lock", None)
        if lock is not None and not lock.closed:
            platforms.unlock_file(lock)
            lock.close()

    def _last_words(self) -> str:
        try:
            # An earlier server wrote into the same file.
            lines = self.log_file.read_bytes()[self._log_start :].decode("utf-8", "replace").strip().splitlines()
        except OSError:
            return "it left no log"
        return (lines[-1] if lines else "it left no log").removeprefix("thinker serve: ")


def start(base_model: str, model_folder: Path, owner: str = "", name: str = "local") -> LocalServer:
    """The endpoint registry's entry. All owners share the server, which knows only this machine's own key."""
    return LocalServer(base_model, model_folder)


def storage(name: str, owner: str) -> str:
    """The registry's: what this data directory's servers keep checkpoints in."""
    return system.folder_id(paths.folder("checkpoints"))


def _server_id(base_model: str, model_folder: Path) -> str:
    # By name as well: clients ask a server for its model by the name it was started with.
    return hashlib.sha256(f"{base_model}\n{model_folder.resolve()}".encode()).hexdigest()[:16]


def _status(url: str, key: str) -> dict[str, Any] | None:
    """What the server says of itself; None when it doesn't answer, or isn't ours."""
    try:
        reply = httpx.get(f"{url}/api/v1/thinker/status", headers={"X-API-Key": key}, timeout=ANSWER_SECONDS, trust_env=False)
        return reply.json() if reply.status_code == 200 else None
    except (httpx.HTTPError, ValueError):
        return None
