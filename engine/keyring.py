"""`engine.keys`: one owner's keys, present or not, never shown. Given once, they reach whichever runner needs them, and runs that
waited for one go on. Knows endpoints and the store; no screen."""

from __future__ import annotations

from dataclasses import dataclass

from engine import endpoints, keys, policy
from engine.endpoints import remote
from engine.errors import NotFound
from engine.jobs import host, states
from engine.jobs.handover import courier
from engine.keys import Need, Source
from engine.store import Store


@dataclass(frozen=True)
class KeyState:
    """A key that something needs. `source` is empty where there is none; `can_be_stored`: it may be written to the data directory."""

    need: Need
    source: Source | str
    can_be_stored: bool

    @property
    def present(self) -> bool:
        return bool(self.source)


class Keyring:
    """One owner's keys."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    def all(self) -> list[KeyState]:
        """Every key that some endpoint needs."""
        return [self.state(need.name) for need in endpoints.needs(self._owner)]

    def state(self, name: str) -> KeyState:
        """Whether it is there, and from where. Raises NotFound for a name that no endpoint needs."""
        need = self._need(name)
        found = keys.find(self._owner, need)
        return KeyState(need, found.source if found else "", policy.of(self._owner).stores_keys)

    def give(self, name: str, value: str, *, store: bool = False) -> int:
        """Takes the key, to memory or to the data directory too. -> how many runs that waited for it go on. Raises EngineError."""
        need = self._need(name)
        value = keys.checked(need, value)
        if store:
            keys.keep(self._owner, name, value)
        keys.hold(self._owner, name, value)
        courier.go()
        return self._wake(need)

    def forget(self, name: str) -> None:
        """Drops it from memory and data directory, here and in the runner."""
        self._need(name)
        keys.drop(self._owner, name)
        courier.go()

    def check(self, name: str) -> str:
        """Asks whoever the key is for. -> what it opens, in words. Raises KeyNeeded, PaymentNeeded and EndpointError."""
        self._need(name)
        known, host = remote.models(name, self._owner), remote.address(name, self._owner).host
        return f"{host} takes it and offers {len(known)} model{'s' * (len(known) != 1)} to train"

    def _wake(self, need: Need) -> int:
        waiting = self._store.jobs(self._owner, states=(states.NEEDS_KEY,), limit=1000)
        woken = [self._store.resume(job.id, self._owner) for job in waiting if job.endpoint == need.name]
        if woken:
            host.ensure_runner()
        return len(woken)

    def _need(self, name: str) -> Need:
        needs = endpoints.needs(self._owner)
        for need in needs:
            if need.name == name:
                return need
        raise NotFound(f"nothing needs a key called {name!r}", f"There are: {', '.join(need.name for need in needs)}.")
