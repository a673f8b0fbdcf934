"""Visitors: who has no account gets a signed cookie, and with it an owner's name of their own. Knows no page and no Streamlit.

The cookie says who, when and a signature (HMAC-SHA256) over both, by a secret that only the data directory has. What was tampered
with, has run out or was signed elsewhere counts as no cookie: it makes a new visitor, never another's. `Visitors` is the ASGI
middleware that hands them out, on pages and on the websocket that a page's session runs over.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Iterable, MutableMapping
from http.cookies import SimpleCookie
from typing import Any

from engine import keys, paths, policy

COOKIE = "thinker_visitor"
LIFETIME = 30 * 24 * 3600
_RENEW = 24 * 3600  # an older cookie is handed out anew, so that whoever comes back in time stays who they are
_VALUE = re.compile(r"([0-9a-f]{32})\.(\d{1,12})\.([0-9a-f]{64})")

Headers = Iterable[tuple[bytes, bytes]]


def make(visitor: str = "", now: float | None = None) -> str:
    """A cookie's value: for a new visitor, or for one that is known."""
    said = f"{visitor or secrets.token_hex(16)}.{int(time.time() if now is None else now)}"
    return f"{said}.{_signed(said)}"


def read(value: str, now: float | None = None) -> str:
    """Whose cookie that is; empty for one that isn't ours, or has run out."""
    known = _VALUE.fullmatch(value)
    if known is None or not hmac.compare_digest(_signed(f"{known[1]}.{known[2]}"), known[3]):
        return ""
    age = (time.time() if now is None else now) - int(known[2])
    # One from the future was signed by a clock that is wrong by now.
    return known[1] if -300 <= age < LIFETIME else ""


def owner(value: str) -> str:
    """The owner's name that belongs to a cookie; empty where it isn't valid."""
    visitor = read(value)
    # The cookie's own number stays out of the database: whoever reads that can't make a cookie of it, nor recognise one.
    return policy.VISITOR + hashlib.sha256(visitor.encode()).hexdigest()[:24] if visitor else ""


class Visitors:
    """ASGI middleware. `asked(headers)` says whether whoever asks is a visitor."""

    def __init__(self, app: Any, asked: Callable[[dict[str, str]], bool]):
        self._app, self._asked = app, asked

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Passes on what isn't a page or a session; else sees to it that there is a valid cookie, there and back."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}
        if not _carries_sessions(scope, headers) or not self._asked(headers):
            return await self._app(scope, receive, send)
        given = _given(headers.get("cookie", ""))
        visitor = read(given)
        fresh = visitor and time.time() - int(given.split(".")[1]) < _RENEW
        if fresh:
            return await self._app(scope, receive, send)
        value = make(visitor)
        # The session that this very request opens is the same visitor's.
        scope = {**scope, "headers": _with_cookie(scope["headers"], value)}

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                line = (b"set-cookie", _line(value, _secure(scope, headers)).encode("latin-1"))
                message = {**message, "headers": [*message.get("headers", ()), line]}
            await send(message)

        await self._app(scope, receive, answer)


def _carries_sessions(scope: MutableMapping[str, Any], headers: dict[str, str]) -> bool:
    page = scope["type"] == "http" and scope.get("method") == "GET" and "text/html" in headers.get("accept", "")
    return page or scope["type"] == "websocket"


def _given(header: str) -> str:
    """Ours, of the cookies that a browser sends; where there are two, neither can be told to be right."""
    values = {part.strip().partition("=")[2] for part in header.split(";") if part.strip().partition("=")[0] == COOKIE}
    return values.pop() if len(values) == 1 else ""


def _with_cookie(headers: Headers, value: str) -> list[tuple[bytes, bytes]]:
    others, kept = [], []
    for name, content in headers:
        if name.lower() == b"cookie":
            kept += [part.strip() for part in content.decode("latin-1").split(";") if part.strip().partition("=")[0] != COOKIE]
        else:
            others.append((name, content))
    return [*others, (b"cookie", "; ".join([*filter(None, kept), f"{COOKIE}={value}"]).encode("latin-1"))]


def _line(value: str, secure: bool) -> str:
    cookie: SimpleCookie = SimpleCookie({COOKIE: value})
    cookie[COOKIE].update({"path": "/", "max-age": LIFETIME, "httponly": True, "samesite": "Lax"})
    if secure:
        cookie[COOKIE]["secure"] = True
    return cookie.output(header="").strip()


def _secure(scope: MutableMapping[str, Any], headers: dict[str, str]) -> bool:
    forwarded = headers.get("x-forwarded-proto", "").partition(",")[0].strip()
    return scope.get("scheme") in ("https", "wss") or forwarded in ("https", "wss")


def _signed(said: str) -> str:
    return hmac.new(keys.secret(paths.home() / "visitors.key"), said.encode(), hashlib.sha256).hexdigest()
