"""Who is asking: by address, headers and accounts; the cookie that tells visitors apart; the door where people sign in."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit import auth_util
from streamlit.testing.v1 import AppTest

from app import identity, visitors
from engine import keys, policy
from tests.app.conftest import ROOT, texts

HERE = {"host": "127.0.0.1:8501"}
SESSION = {"host": "localhost:8501", "upgrade": "websocket"}


@pytest.mark.parametrize(
    ("address", "headers", "auth", "expected"),
    [
        ("127.0.0.1", HERE, False, "local"),
        ("localhost", {"host": "localhost"}, False, "local"),
        ("::1", {"host": "[::1]:8501"}, False, "local"),
        ("127.0.0.1", {}, False, "local"),
        ("0.0.0.0", HERE, False, "visitor"),
        ("", HERE, False, "visitor"),
        (None, {}, False, "visitor"),
        ("unix:///tmp/socket", HERE, False, "visitor"),
        ("192.168.0.7", {"host": "192.168.0.7"}, False, "visitor"),
        ("127.0.0.1", {"host": "thinker.example"}, False, "visitor"),
        ("127.0.0.1", {"host": "127.0.0.1.example"}, False, "visitor"),
        ("127.0.0.1", {"host": ""}, False, "visitor"),
        ("127.0.0.1", HERE | {"x-forwarded-for": "10.0.0.1"}, False, "visitor"),
        ("127.0.0.1", HERE | {"forwarded": "for=10.0.0.1"}, False, "visitor"),
        ("127.0.0.1", HERE | {"x-forwarded-proto": "https"}, False, "visitor"),
        ("127.0.0.1", HERE | {"cf-connecting-ipv6": "::2"}, False, "visitor"),
        # A proxy that names this machine as the host, as nginx does unless told otherwise.
        ("127.0.0.1", SESSION | {"origin": "https://thinker.example"}, False, "visitor"),
        ("127.0.0.1", SESSION | {"origin": "null"}, False, "visitor"),
        ("127.0.0.1", SESSION, False, "visitor"),
        ("127.0.0.1", HERE | {"referer": "https://thinker.example/home"}, False, "visitor"),
        ("127.0.0.1", SESSION | {"origin": "http://localhost:8501"}, False, "local"),
        ("127.0.0.1", SESSION | {"origin": "http://[::1]:8501", "upgrade": "WebSocket"}, False, "local"),
        ("127.0.0.1", HERE | {"referer": "http://127.0.0.1:8501/home"}, False, "local"),
        ("127.0.0.1", HERE, True, "person"),
        ("0.0.0.0", {"host": "thinker.example"}, True, "person"),
    ],
)
def test_who_that_is(address: str | None, headers: dict[str, str], auth: bool, expected: str) -> None:
    assert identity.kind_of(address, headers, auth) == expected


@pytest.mark.parametrize("headers", [{}, HERE, SESSION | {"origin": "http://localhost:8501"}])
def test_where_others_are_meant_to_come_no_header_is_trusted(headers: dict[str, str]) -> None:
    assert identity.kind_of("127.0.0.1", headers, False, True) == "visitor"
    assert identity.kind_of("127.0.0.1", headers, True, True) == "person"


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("", None, False),
        ("browser.serverAddress", "thinker.example", True),
        ("browser.serverAddress", "localhost", False),
        ("server.enableCORS", False, True),
        ("server.enableXsrfProtection", False, True),
        ("server.corsAllowedOrigins", ["https://thinker.example"], True),
        ("server.trustedUserHeaders", {"x-user": "email"}, True),
        ("server.port", 9000, False),
    ],
)
def test_what_is_set_up_for_a_proxy_is_for_others(option: str, value: Any, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = identity.config.get_option
    assert asked(option) is not None if option and option != "server.port" else True
    monkeypatch.setattr(identity.config, "get_option", lambda name: value if name == option else asked(name))
    assert identity.shared() is expected


@pytest.mark.parametrize(("said", "expected"), [("1", True), ("yes", True), ("0", False), ("false", False), (" ", False)])
def test_it_can_be_said(said: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINKER_SHARED", said)
    assert identity.shared() is expected
    assert identity.asks_as_visitor(HERE) is expected


def test_a_cookie_is_its_visitors_until_it_runs_out() -> None:
    value = visitors.make()
    visitor = visitors.read(value)
    assert len(visitor) == 32 and visitors.owner(value).startswith(policy.VISITOR) and visitor not in visitors.owner(value)
    assert visitors.owner(visitors.make(visitor)) == visitors.owner(value) != visitors.owner(visitors.make())
    now = time.time()
    assert visitors.read(visitors.make(visitor, now - visitors.LIFETIME + 60)) == visitor
    assert visitors.read(visitors.make(visitor, now - visitors.LIFETIME - 1)) == ""
    assert visitors.read(visitors.make(visitor, now + 3600)) == ""


def test_what_was_tampered_with_is_nobodys() -> None:
    value = visitors.make()
    other = visitors.make()
    visitor, at, signature = value.split(".")
    spoilt = [f"{visitor}.{int(at) + 1}.{signature}", f"{other.split('.')[0]}.{at}.{signature}", value[:-1], value + "0", "", "a.b.c"]
    spoilt += [f"{visitor}.{at}.{'0' * 64}", f"{visitor}.{at}.", value.upper(), f" {value}", "x" * 10_000]
    assert [visitors.owner(text) for text in spoilt] == [""] * len(spoilt)


def test_another_data_directory_signs_otherwise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    value = visitors.make()
    monkeypatch.setenv("THINKER_HOME", str(tmp_path / "other"))
    assert visitors.owner(value) == ""


def test_the_secret_is_private_and_kept(thinker_home: Path) -> None:
    value = visitors.make()
    file = thinker_home / "visitors.key"
    assert file.stat().st_mode & 0o077 == 0 and len(file.read_bytes()) == 32
    keys.secret.cache_clear()
    assert visitors.read(value)
    file.write_bytes(b"")
    keys.secret.cache_clear()
    assert visitors.read(value) == "" and len(file.read_bytes()) == 32


def test_a_persons_name_comes_from_issuer_and_subject() -> None:
    assert identity.person("https://a", "1") == identity.person("https://a", "1") != identity.person("https://b", "1")
    assert identity.person("https://a1", "") != identity.person("https://a", "1")


# -- the middleware


def ask(cookies: str = "", *, kind: str = "http", scheme: str = "http", asked: bool = True, **more: str) -> tuple[str, str]:
    """-> (the cookie line that comes back, the Cookie header that the app sees)."""
    seen: dict[str, Any] = {}

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.update({name.decode().lower(): value.decode() for name, value in scope["headers"]})
        await send({"type": "http.response.start" if kind == "http" else "websocket.accept", "headers": [(b"x-own", b"1")]})

    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [(b"host", b"thinker.example"), (b"accept", more.pop("accept", "text/html").encode())]
    headers += [(b"cookie", cookies.encode())] if cookies else []
    headers += [(name.replace("_", "-").encode(), value.encode()) for name, value in more.items()]
    scope = {"type": kind, "method": "GET", "scheme": scheme, "headers": headers}
    asyncio.run(visitors.Visitors(inner, lambda headers: asked)(scope, None, send))
    assert (b"x-own", b"1") in sent[0]["headers"]
    lines = [value.decode() for name, value in sent[0]["headers"] if name == b"set-cookie"]
    return (lines[0] if lines else ""), seen.get("cookie", "")


def test_a_new_visitor_gets_a_cookie_that_counts_at_once() -> None:
    for kind, scheme in (("http", "http"), ("websocket", "ws")):
        line, seen = ask("other=1", kind=kind, scheme=scheme)
        value = line.partition("=")[2].partition(";")[0]
        assert visitors.read(value) and seen == f"other=1; {visitors.COOKIE}={value}"
        assert {"HttpOnly", "SameSite=Lax", "Path=/", f"Max-Age={visitors.LIFETIME}"} <= set(line.split("; ")) and "Secure" not in line


def test_a_known_visitor_stays_who_they_are() -> None:
    value = visitors.make()
    assert ask(f"{visitors.COOKIE}={value}") == ("", f"{visitors.COOKIE}={value}")
    old = visitors.make(visitors.read(value), time.time() - 20 * 24 * 3600)
    line, _ = ask(f"{visitors.COOKIE}={old}")
    renewed = line.partition("=")[2].partition(";")[0]
    assert renewed != old and visitors.owner(renewed) == visitors.owner(value)


def test_spoilt_and_doubled_cookies_are_replaced() -> None:
    value, other = visitors.make(), visitors.make()
    for header in (f"{visitors.COOKIE}={value[:-1]}", f"{visitors.COOKIE}={value}; {visitors.COOKIE}={other}"):
        line, seen = ask(header)
        fresh = line.partition("=")[2].partition(";")[0]
        assert visitors.owner(fresh) not in ("", visitors.owner(value), visitors.owner(other))
        assert seen == f"{visitors.COOKIE}={fresh}"


def test_behind_https_it_is_secure() -> None:
    assert "Secure" in ask(scheme="https")[0] and "Secure" in ask(x_forwarded_proto="https")[0]
    assert "Secure" in ask(kind="websocket", scheme="wss")[0]


def test_what_needs_no_cookie_gets_none() -> None:
    assert ask(asked=False) == ("", "") and ask(accept="image/png") == ("", "")


# -- the dashboard


def open_app(
    monkeypatch: pytest.MonkeyPatch, *, auth: bool = False, address: str = "127.0.0.1", user: dict[str, Any] | None = None
) -> AppTest:
    # No browser, no cookie.
    monkeypatch.setattr(identity, "_cookie", lambda: "")
    test = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
    option = identity.config.get_option
    monkeypatch.setattr(identity.config, "get_option", lambda name: address if name == "server.address" else option(name))
    if auth:
        monkeypatch.setattr(auth_util, "get_secrets_auth_section", lambda: {"client_id": "x"})
        monkeypatch.setattr(auth_util, "is_authlib_installed", lambda: True)
        monkeypatch.setattr(st, "user", User(user or {}))
    return test.run()


class User(dict):
    """As Streamlit has it."""

    @property
    def is_logged_in(self) -> bool:
        return bool(self)

    def to_dict(self) -> dict[str, Any]:
        return dict(self)


def owner_of(test: AppTest) -> str:
    return test.session_state["thinker.owner"]


def test_alone_nothing_is_said_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    test = open_app(monkeypatch)
    assert owner_of(test) == "local" and not test.sidebar.caption


def test_beyond_loopback_there_are_visitors_each_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = open_app(monkeypatch, address="0.0.0.0"), open_app(monkeypatch, address="0.0.0.0")
    assert owner_of(first).startswith(policy.VISITOR) and owner_of(first) != owner_of(second)
    assert "visitor" in first.sidebar.caption[0].value and owner_of(first.run()) == owner_of(first)


def test_shared_there_are_visitors_on_loopback_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINKER_SHARED", "1")
    assert owner_of(open_app(monkeypatch)).startswith(policy.VISITOR)


def test_where_people_sign_in_nothing_is_shown_before(monkeypatch: pytest.MonkeyPatch) -> None:
    test = open_app(monkeypatch, auth=True)
    assert [button.label for button in test.button] == ["Sign in"] and "thinker.owner" not in test.session_state
    assert "Sign in to see" in texts(test) and not test.exception


def test_a_person_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    user = {"iss": "https://accounts.example", "sub": "42", "name": "Ann", "email": "ann@example.org"}
    test = open_app(monkeypatch, auth=True, user=user)
    assert owner_of(test) == identity.person("https://accounts.example", "42")
    assert "Ann" in test.sidebar.caption[0].value and test.sidebar.button(key="sign-out")


def test_an_account_without_a_subject_stays_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    test = open_app(monkeypatch, auth=True, user={"email": "ann@example.org"})
    assert "thinker.owner" not in test.session_state and "issuer" in test.error[0].value


def test_without_authlib_nobody_is_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    test = open_app(monkeypatch, auth=True)
    monkeypatch.setattr(auth_util, "is_authlib_installed", lambda: False)
    test.run()
    assert "Authlib" in test.error[0].value and not test.button
