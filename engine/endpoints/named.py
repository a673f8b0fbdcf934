"""Servers that the person named by URL: any that speaks the Tinker API. Kept in the data directory without their keys, one list an owner.

Where others use the machine too nobody names any: a URL would make this machine call wherever a stranger wants. Asks no server.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from ipaddress import ip_address
from typing import Any

import httpx

from engine import paths, policy
from engine.errors import NotAllowed, NotFound, RecipeError
from engine.keys import Need
from engine.store.artefacts import read_json, write_json_atomic

FILE = "endpoints.json"
NO_KEY = "tml-none"
"""What goes along where a server asks for no key, since the SDK sends none without one."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_LONGEST = 400


@dataclass(frozen=True)
class Named:
    """One of them. `found` is what it was seen to be able to do when it was last looked at (`probe`), empty before."""

    name: str
    url: str
    needs_key: bool = True
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def host(self) -> str:
        return httpx.URL(self.url).netloc.decode()

    @property
    def in_the_clear(self) -> bool:
        """Whether what is sent there, the key included, can be read on the way."""
        address = httpx.URL(self.url)
        return address.scheme == "http" and not nearby(address.host)

    @property
    def need(self) -> Need | None:
        """The key that it takes; its variable in the environment is THINKER_KEY_ and the name."""
        variable = f"THINKER_KEY_{self.name.upper().replace('-', '_')}"
        return Need(self.name, self.name, variable, "tml-", f"whoever runs {self.host}") if self.needs_key else None


def nearby(host: str) -> bool:
    """Whether the host is this machine."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def listed(owner: str) -> list[Named]:
    """In alphabetical order."""
    if not policy.of(owner).names_servers:
        return []
    return [Named(name, **about) for name, about in sorted(_all().get(owner, {}).items())]


def find(owner: str, name: str) -> Named | None:
    """By its name."""
    return next((known for known in listed(owner) if known.name == name), None)


def get(owner: str, name: str) -> Named:
    """Raises NotFound."""
    found = find(owner, name)
    if found is None:
        there = ", ".join(known.name for known in listed(owner))
        raise NotFound(f"no server is called {name[:60]!r}", f"There are: {there}." if there else "Name one in the settings first.")
    return found


def keep(owner: str, named: Named, taken: tuple[str, ...] = ()) -> Named:
    """Adds it, or replaces the one of that name. Raises NotAllowed, RecipeError for a name or URL that can't be, StorageError."""
    if not policy.of(owner).names_servers:
        raise NotAllowed("servers can't be named by URL here, for others use this machine too", "Use one of those that there are.")
    if not _NAME.fullmatch(named.name) or named.name in taken:
        why = "is taken" if named.name in taken else "can't be a server's name"
        raise RecipeError(f"{named.name[:60]!r} {why}", "Use up to 40 small letters, digits and hyphens.", where="server name")
    named = replace(named, url=checked_url(named.url))
    known = _all()
    known.setdefault(owner, {})[named.name] = {name: value for name, value in asdict(named).items() if name != "name"}
    _write(known)
    return named


def drop(owner: str, name: str) -> None:
    """Forgets it. Raises NotFound."""
    get(owner, name)
    known = _all()
    known[owner].pop(name)
    _write(known)


def checked_url(url: str) -> str:
    """The base URL as it is kept. Raises RecipeError for one that is none, or that carries a secret."""
    advice = "Give the part before /api/v1, such as https://host:8000."
    url = url.strip().rstrip("/").removesuffix("/api/v1")
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError, ValueError):
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host or len(url) > _LONGEST:
        raise RecipeError("this is no web address of a server", advice, where="server URL")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise RecipeError("the address holds more than a place: a key or a question", f"{advice} Keys are given apart.", where="server URL")
    return url


def _all() -> dict[str, dict[str, dict[str, Any]]]:
    found = read_json(paths.home() / FILE)
    return found if isinstance(found, dict) else {}


def _write(known: dict[str, dict[str, dict[str, Any]]]) -> None:
    write_json_atomic(paths.home() / FILE, {owner: servers for owner, servers in known.items() if servers})
