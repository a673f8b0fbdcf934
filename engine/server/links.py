"""Links to files that work without a key, for a while: signed with the key of the file's owner. Knows no files.

A link names a run, a checkpoint and one file, and is good for exactly these. When the owner's key is changed or taken
away, their links end with it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from urllib.parse import quote, urlencode

SECONDS = 3600


class Links:
    """Makes and checks links."""

    def __init__(self, keys: Mapping[str, str] | None = None):
        """`keys`: owner to key. Without any, links end with the process."""
        self._keys = keys
        self._fallback = secrets.token_hex(32)

    def path(self, owner: str, run: str, name: str, file: str, expires: int) -> str:
        """Below the server's address."""
        query = urlencode({"expires": expires, "signature": self._signature(owner, run, name, file, str(expires))})
        return f"/api/v1/signed/{quote(run, safe=':')}/{quote(name)}/{quote(file)}?{query}"

    def good(self, owner: str | None, run: str, name: str, file: str, expires: str, signature: str) -> bool:
        """Whether that owner's link was made here and hasn't run out."""
        if owner is None or (self._keys is not None and owner not in self._keys) or not (expires.isascii() and expires.isdigit()):
            return False
        wanted = self._signature(owner, run, name, file, expires)
        return hmac.compare_digest(wanted.encode(), signature.encode()) and int(expires) >= time.time()

    def _signature(self, owner: str, *parts: str) -> str:
        key = self._keys[owner] if self._keys is not None else self._fallback
        # As JSON, so that no two links read the same, whatever stands in them.
        return hmac.new(key.encode(), json.dumps(["thinker link", *parts]).encode(), hashlib.sha256).hexdigest()
