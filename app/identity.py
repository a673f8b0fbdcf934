"""Who is asking: the one person whose machine this is, somebody who signed in, or a visitor. Nobody ever shares an account.

    listens on loopback, asked from this machine    the owner `local`
    an [auth] section in .streamlit/secrets.toml    whoever signed in (OpenID Connect)
    everything else, and whatever can't be told     a visitor, told apart by a signed cookie

Where no cookie can be set (`streamlit run app/main.py` without the server part, as some hosts do it) a visitor lasts as long as
their tab. Knows requests; nothing of what anybody owns.
"""

from __future__ import annotations

import hashlib
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
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "cf-connecting-ip", "via")


@dataclass(frozen=True)
class Who:
    """An owner. `lasting`: they are known again after a reload."""

    owner: str
    kind: Kind
    lasting: bool = True


def kind_of(address: str | None, headers: Mapping[str, str], auth: bool) -> Kind:
    """By what the server listens on, the request's headers (lower case) and whether there are accounts.

    A loopback address isn't enough: behind a proxy everybody comes from there. A proxy shows in what it adds, or in the host's name.
    """
    if auth:
        return "person"
    if (address or "").strip("[]").lower() not in _LOOPBACK:
        return "visitor"
    if not headers:
        # Nothing that came over a network has none: a script run within this process.
        return "local"
    if any(name in headers for name in _FORWARDED) or _host(headers.get("host", "")) not in _LOOPBACK:
        return "visitor"
    return "local"


def asks_as_visitor(headers: Mapping[str, str]) -> bool:
    """For the middleware: whether this request needs a cookie."""
    return kind_of(config.get_option("server.address"), headers, accounts()) == "visitor"


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
    kind = kind_of(config.get_option("server.address"), headers, accounts())
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


def _host(header: str) -> str:
    """Without its port."""
    header = header.strip().lower()
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
