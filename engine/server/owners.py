"""Whose request is being answered, and the keys that say so. Knows nothing of what anybody owns.

The owner travels beside the request rather than through every call, so that no route can forget to pass it on: whatever
looks something up asks `current_owner`. The worker's thread has none and is handed only what was looked up before.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from engine.errors import EndpointError

DEFAULT = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_owner: ContextVar[str] = ContextVar("owner", default=DEFAULT)


def current_owner() -> str:
    """The name behind the key of the request at hand; `default` where there is one key, or no request."""
    return _owner.get()


@contextmanager
def acting_as(owner: str) -> Iterator[None]:
    """Everything inside is that owner's."""
    token = _owner.set(owner)
    try:
        yield
    finally:
        _owner.reset(token)


def parse_keys(text: str, where: str) -> dict[str, str]:
    """Owner to key, from lines of `name key`; a key alone is the owner `default`'s. Raises EndpointError."""
    keys: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.partition("#")[0].split()
        if not parts:
            continue
        name, key = (DEFAULT, parts[0]) if len(parts) == 1 else (parts[0], parts[1])
        place = f"{where}, line {number}" if number > 1 else where
        # What the line holds isn't repeated: it may be a key with a typing error.
        if len(parts) > 2 or not _NAME.fullmatch(name):
            raise EndpointError("the line isn't a name and a key", "Write `name tml-...`, or a key alone.", where=place)
        if not key.startswith("tml-") or len(key) < 20:
            advice = "It begins with tml- and has at least 20 characters; delete the file to get a new one."
            raise EndpointError("the server's key isn't a key", advice, where=place)
        if name in keys or key in keys.values():
            raise EndpointError("the name or the key stands there twice", "Give each owner one key of their own.", where=place)
        keys[name] = key
    if not keys:
        raise EndpointError("the server has no key", "Write `name tml-...`, or a key alone; delete the file to get a new one.", where=where)
    return keys


def own_key(text: str) -> str:
    """The key in a key file that this machine's own runs use: the first."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return next((parts[-1] for parts in lines if parts), "")


def owner_of_key(keys: Mapping[str, str], given: bytes) -> str | None:
    """Whose key that is. Compares with all of them, so that the time it takes says nothing."""
    found = None
    for name, key in keys.items():
        if hmac.compare_digest(given, key.encode()):
            found = name
    return found
