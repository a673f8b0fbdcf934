"""Who is asking: the one person whose machine this is, somebody who signed in, or a visitor. Nobody ever shares an account.

    an [auth] section in .streamlit/secrets.toml    whoever signed in (OpenID Connect)
    told or set up to be for others too             a visitor, told apart by a signed cookie
    listens on loopback, asked from this machine    the owner `local`
    everything else, and whatever can't be told     a visitor

A proxy on the same machine can make itself look like its browser (Host and Origin rewritten, nothing added); no header tells the two
apart. So nothing that is set up for a proxy trusts headers at all: `THINKER_SHARED=1`, an address beyond loopback, another name for the
server (browser.serverAddress), Streamlit's own checks of where requests come from switched off or opened to others.

Where no cookie can be set (`streamlit run app/main.py` without the server part, as some hosts do it) a visitor lasts as long as
their tab. Knows requests; nothing of what anybody owns.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import streamlit as st
from streamlit import auth_util, config

from app import session, visitors
from engine import policy

Kind = Literal["local", "person", "visitor"]
LOCAL = "local"
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_FORWARDED = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "x-original-host", "x-scheme", "true-client-ip", "cf-ray"})
_FORWARDED_KINDS = ("x-forwarded-", "cf-connecting-", "x-envoy-", "x-amzn-", "fly-", "tailscale-")


@dataclass(frozen=True)
class Who:
    """An owner. `lasting`: they are known again after a reload."""

    owner: str
    kind: Kind
    lasting: bool = True


def kind_of(address: str | None, headers: Mapping[str, str], auth: bool, shared: bool = False) -> Kind:
    """By what the server listens on, the request's headers (lower case), whether there are accounts, and `shared()`.

    A loopback address isn't enough: behind a proxy everybody comes from there. A proxy shows in what it adds, in the host's name, or in
    where the page came from (Origin), which each browser says when it opens a session: one that doesn't say it isn't a browser here.
    """
    if auth:
        return "person"
    if shared or (address or "").strip("[]").lower() not in _LOOPBACK:
        return "visitor"
    if not headers:
        # Nothing that came over a network has none: a script run within this process.
        return "local"
    if any(name in _FORWARDED or name.startswith(_FORWARDED_KINDS) for name in headers):
        return "visitor"
    opens_session = headers.get("upgrade", "").lower() == "websocket"
    names = [headers.get("host", ""), *(_came_from(headers[name]) for name in ("origin", "referer") if name in headers)]
    if (opens_session and "origin" not in headers) or any(_host(name) not in _LOOPBACK for name in names):
        return "visitor"
    return "local"


def shared() -> bool:
    """Whether whoever runs this server has said, or set it up so, that others are to reach it."""
    if os.environ.get("THINKER_SHARED", "").strip().lower() not in ("", "0", "false", "no", "off"):
        return True
    checked = config.get_option("server.enableCORS") and config.get_option("server.enableXsrfProtection")
    opened = config.get_option("server.corsAllowedOrigins") or config.get_option("server.trustedUserHeaders")
    return not checked or bool(opened) or _host(str(config.get_option("browser.serverAddress") or "localhost")) not in _LOOPBACK


def asks_as_visitor(headers: Mapping[str, str]) -> bool:
    """For the middleware: whether this request needs a cookie."""
    return kind_of(config.get_option("server.address"), headers, accounts(), shared()) == "visitor"


def accounts() -> bool:
    """Whether people sign in here."""
    return bool(auth_util.get_secrets_auth_section())


def known() -> bool:
    """Whether it can be told who this is; where people sign in, only once they have."""
    return not accounts() or bool(_person())


def who() -> Who:
    """Whose session this is. Settled at its first look and the same to its end; it is an error to ask while `known()` is false."""
    settled = session.owner()
    if not settled:
        settled = _owner()
        session.set_owner(settled)
    if settled == LOCAL:
        return Who(LOCAL, "local")
    if settled.startswith(policy.PERSON):
        return Who(settled, "person")
    return Who(settled, "visitor", lasting=settled == visitors.owner(_cookie()))


def person(issuer: str, subject: str) -> str:
    """An owner's name for an account: by what the provider never gives to another, unlike an e-mail address."""
    return policy.PERSON + hashlib.sha256(f"{issuer}\0{subject}".encode()).hexdigest()[:24]


def _owner() -> str:
    headers = {name.lower(): value for name, value in st.context.headers.items()}
    kind = kind_of(config.get_option("server.address"), headers, accounts(), shared())
    if kind == "local":
        return LOCAL
    if kind == "person":
        found = _person()
        if not found:
            raise PermissionError("nobody has signed in")
        return found
    return visitors.owner(_cookie()) or policy.VISITOR + secrets.token_hex(12)


def _person() -> str:
    """The owner who signed in; empty before. An account without issuer or subject can't be told from others, and isn't let in."""
    told = st.user.to_dict() if getattr(st.user, "is_logged_in", False) else {}
    issuer, subject = told.get("iss"), told.get("sub")
    return person(str(issuer), str(subject)) if issuer and subject else ""


def _cookie() -> str:
    return st.context.cookies.get(visitors.COOKIE, "")


def _came_from(header: str) -> str:
    """The host and port of an Origin or Referer; of "null", which stands for what is kept secret, nothing."""
    return header.partition("://")[2].partition("/")[0]


def _host(header: str) -> str:
    """Without its port."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
