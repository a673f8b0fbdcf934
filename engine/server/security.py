"""Who may talk to the server, and how much at once: the keys, the Host header, the size of a body. Knows no routes' meaning.

Keys are read from a file that only its owner can read, or from THINKER_SERVER_KEY and, several of them with their owners'
names, THINKER_SERVER_KEYS; never from the command line, where every user of the machine could see them. The Host header is
checked because a web page may point a name of its own at 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import EndpointError
from engine.platforms import lock_file, private_file
from engine.server.owners import DEFAULT, acting_as, owner_of_key, parse_keys

KEY_VARIABLE = "THINKER_SERVER_KEY"
KEYS_VARIABLE = "THINKER_SERVER_KEYS"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
MAX_BODY = 256 * 2**20
OPEN_PATHS = ("/api/v1/healthz",)
SIGNED_PATHS = "/api/v1/signed/"  # whose links carry their own proof


def new_key() -> str:
    """A key of the form that the official SDK accepts."""
    return f"tml-{secrets.token_urlsafe(32)}"


def read_or_make_keys(file: Path | None) -> dict[str, str]:
    """Owner to key: the environment's, else the file's, which is made (mode 0600) if absent. Raises EndpointError."""
    single, several = (os.environ.get(name, "").strip() for name in (KEY_VARIABLE, KEYS_VARIABLE))
    if single or several:
        return parse_keys("\n".join([single, *several.replace(",", "\n").splitlines()]), f"{KEY_VARIABLE}, {KEYS_VARIABLE}")
    if file is None:
        raise EndpointError("the server has no key", f"Name a key file, or set {KEY_VARIABLE}.")
    return parse_keys(_from_file(file), str(file))


def _from_file(file: Path) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    text = private_file(file).read_text(encoding="utf-8").strip()
    if text:
        return text
    # Two servers that start at once on one new file have to agree on one key.
    with file.open("r+", encoding="utf-8") as stream:
        while not lock_file(stream):
            time.sleep(0.01)
        text = stream.read().strip()
        if not text:
            text = new_key()
            stream.write(text)
    return text


class Guard:
    """ASGI middleware: refuses what isn't allowed before any route sees it, and says whose the rest is."""

    def __init__(self, app: Any, keys: Mapping[str, str] | str, hosts: Iterable[str] = LOOPBACK, max_body: int = MAX_BODY):
        """`keys`: owner to key, or the only key."""
        self.app = app
        self.max_body = max_body
        self._keys = {DEFAULT: keys} if isinstance(keys, str) else dict(keys)
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {name.lower(): value for name, value in scope["headers"]}
        if _host_name(headers.get(b"host", b"").decode("latin-1")) not in self._hosts:
            return await _refuse(send, 403, "the Host header names another machine")
        owner = self._owner(headers)
        if owner is None and scope["path"] not in OPEN_PATHS and not scope["path"].startswith(SIGNED_PATHS):
            return await _refuse(send, 401, "the key is missing or wrong")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.max_body:
            return await _refuse(send, 413, str(BodyTooLarge(self.max_body)))
        with acting_as(owner or ""):
            return await self.app(scope, self._bounded(receive), send)

    def _owner(self, headers: dict[bytes, bytes]) -> str | None:
        given = headers.get(b"x-api-key") or headers.get(b"authorization", b"").removeprefix(b"Bearer ")
        return owner_of_key(self._keys, given)

    def _bounded(self, receive: Any) -> Any:
        """A body sent without its length (chunked) is cut off where the limit is."""
        seen = 0

        async def bounded() -> dict:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.max_body:
                raise BodyTooLarge(self.max_body)
            return message

        return bounded


class BodyTooLarge(Exception):
    """A body passed the limit."""

    def __init__(self, limit: int):
        super().__init__(f"the body is larger than {limit:,} bytes: send smaller batches")


def _host_name(host: str) -> str:
    """The name without the port: `127.0.0.1:80` and `[::1]:80` alike."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


async def _refuse(send: Any, status: int, reason: str) -> None:
    # "error" is where clients of the OpenAI routes look.
    body = json.dumps({"detail": reason, "error": {"message": reason, "type": "invalid_request_error"}}).encode()
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})
