"""`engine.remotes`: servers that speak the Tinker API, named by URL; what each can do. Their keys are the business of `engine.keys`.

Asks servers; trains nothing. Knows no screen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine import endpoints, keys, policy
from engine.endpoints import named, probe, remote, tinker_cloud, trial
from engine.endpoints.named import Named
from engine.endpoints.probe import Ability
from engine.endpoints.remote import Offer
from engine.errors import StateError
from engine.jobs import states
from engine.jobs.handover import courier

if TYPE_CHECKING:
    from engine.store import Store


@dataclass(frozen=True)
class Server:
    """One that was named. `key`: whether its key is there, None where it takes none. `abilities` are as last seen, at `seen_at`."""

    name: str
    url: str
    key: bool | None
    in_the_clear: bool
    models: tuple[str, ...]
    abilities: tuple[Ability, ...]
    seen_at: float | None


class Remotes:
    """One owner's."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    @property
    def allowed(self) -> bool:
        """Whether servers can be named here at all."""
        return policy.of(self._owner).names_servers

    def all(self) -> list[Server]:
        """In alphabetical order."""
        return [self._server(known) for known in named.listed(self._owner)]

    def add(self, name: str, url: str, *, needs_key: bool = True, key: str = "", store_key: bool = False) -> Server:
        """Names a server, or gives one of that name another URL; what it can do is asked by `probe`.

        Raises NotAllowed, RecipeError for a name or URL that can't be, StateError for what is no key.
        """
        known = Named(name.strip(), url, needs_key)
        before = named.find(self._owner, known.name)
        if key and known.need:
            key = keys.checked(known.need, key)
        kept = named.keep(self._owner, known, taken=(endpoints.LOCAL, endpoints.TINKER, "runpod", "custom"))
        if before is not None and (before.url != kept.url or not needs_key):
            # A key was given for a place; it isn't taken along to another.
            keys.drop(self._owner, kept.name)
        if key and kept.need:
            if store_key:
                keys.keep(self._owner, kept.name, key)
            keys.hold(self._owner, kept.name, key)
        courier.go()
        return self._server(kept)

    def forget(self, name: str) -> None:
        """The server and its key. Raises NotFound, and StateError while a run needs it."""
        known = named.get(self._owner, name)
        for job in self._store.jobs(self._owner, states=tuple(states.ACTIVE | {states.QUEUED, states.INTERRUPTED}), limit=1000):
            if job.endpoint == known.name:
                raise StateError(f"the run {job.name} is {states.LIGHTS[job.state].label} there", "Wait for its end, or stop it first.")
        named.drop(self._owner, known.name)
        keys.drop(self._owner, known.name)
        courier.go()

    def probe(self, name: str) -> Server:
        """Asks the server what it can do, and keeps that. Costs nothing. Raises NotFound, KeyNeeded, PaymentNeeded and EndpointError."""
        known = named.get(self._owner, name)
        found = probe.look(remote.address(known.name, self._owner), self._owner)
        for tried in ("losses", "full"):
            if found[tried] is None:
                found[tried] = known.found.get(tried)
        return self._server(named.keep(self._owner, replace(known, found=found)))

    def try_out(self, name: str, base_model: str = "") -> Server:
        """Tries losses and full fine-tuning on one of its models (the first without a name), for a few dozen tokens; may take minutes.

        Raises as `probe`.
        """
        self.probe(name)
        known = named.get(self._owner, name)
        where = remote.address(known.name, self._owner)
        there = [model["name"] for model in known.found["models"]]
        if not there or (base_model and base_model not in there):
            raise remote.missing(where, base_model or "any model", there)
        found = trial.run(where.url, where.key(self._owner), base_model or there[0])
        return self._server(named.keep(self._owner, replace(known, found=known.found | found)))

    def offers(self, endpoint: str) -> list[Offer]:
        """The base models of the cloud or of a named server, with the most tokens that each takes. Raises EngineError."""
        return remote.offers(endpoint, self._owner)

    def run_page(self, endpoint: str, tinker_path: str) -> str:
        """Where Tinker's console shows the run of a checkpoint's path; empty for other servers."""
        run = tinker_path.removeprefix("tinker://").partition("/")[0]
        there = endpoint == endpoints.TINKER and tinker_cloud.is_the_cloud()
        return tinker_cloud.run_page(run) if there and run else ""

    def _server(self, known: Named) -> Server:
        has_key = None if known.need is None else keys.find(self._owner, known.need) is not None
        there = tuple(model["name"] for model in known.found.get("models", ()))
        return Server(known.name, known.url, has_key, known.in_the_clear, there, tuple(probe.told(known.found)), known.found.get("at"))
