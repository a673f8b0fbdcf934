"""`engine.judges`: servers that answer questions over OpenAI's API, for judges and for teachers: their addresses, keys, models.

Addresses stand in the settings, keys in `engine.keys` alone, each found by its server's name. Where others use the machine too nobody
names a server. Asks for lists of models and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from engine import guard, keys, policy
from engine.endpoints.named import nearby
from engine.errors import EndpointError, KeyNeeded, NotFound, RecipeError
from engine.jobs import host as runner
from engine.jobs import states
from engine.jobs.handover import courier
from engine.store import Job, Store
from engine.training.rewards.asking import host, key_for, message_of

_KEPT = "judge_servers"  # the setting that holds a person's own
_MOST, _MOST_MODELS, _LONGEST = 50, 500, 60
_TIMEOUT = httpx.Timeout(15, connect=5)
_WITHOUT_A_LIST = (404, 405, 501)


@dataclass(frozen=True)
class JudgeServer:
    """One of them. `source`: where its key is from (memory, file, environment), empty where there is none; `variable`: what the key is
    called in the environment; `models`: those that it listed when it was last looked at."""

    name: str
    url: str
    source: str
    variable: str
    in_the_clear: bool
    models: tuple[str, ...] = ()


class Judges:
    """One person's."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    @property
    def allowed(self) -> bool:
        """Whether servers can be named here at all."""
        return not policy.of(self._owner).shared

    def all(self) -> list[JudgeServer]:
        """In alphabetical order."""
        return [self._server(one) for one in sorted(self._kept(), key=lambda one: one["name"].lower())]

    def add(self, name: str, url: str, *, key: str = "", store_key: bool = False) -> JudgeServer:
        """Names a server; one at the same address is replaced. Raises NotAllowed, RecipeError for a name or URL that can't be, StateError
        for what is no key."""
        guard.elsewhere(self._owner, "url")
        name, url = " ".join(name.split()), checked(url)
        if not name or len(name) > _LONGEST:
            raise RecipeError(f"a server's name has 1 to {_LONGEST} characters", "Write another one.", where="server name")
        if key.strip():
            self.give_key(url, key, store=store_key)
        others = [one for one in self._kept() if one["url"] != url]
        if any(one["name"].lower() == name.lower() for one in others):
            raise RecipeError(f"another server is called {name!r} already", "Write another name, or forget that one.", where="server name")
        if len(others) >= _MOST:
            raise RecipeError(f"{_MOST} servers are named already", "Forget one that isn't used.", where="server name")
        models = next((one.get("models", []) for one in self._kept() if one["url"] == url), [])
        return self._keep(others, {"name": name, "url": url, "models": models})

    def forget(self, url: str) -> None:
        """The server, and its key unless another one on the same host is left. Raises NotFound and RecipeError."""
        one = self._find(url)
        left = [other for other in self._kept() if other is not one and other["url"] != one["url"]]
        self._store.set_setting(self._owner, _KEPT, left or None)
        if key_for(one["url"]).name not in {key_for(other["url"]).name for other in left}:
            self.forget_key(one["url"])

    def look(self, url: str) -> JudgeServer:
        """Asks for its models, which costs nothing, and keeps them. Raises NotFound, KeyNeeded and EndpointError."""
        one = self._find(url)
        found = keys.find(self._owner, key_for(one["url"]))
        headers = {"Authorization": f"Bearer {found.value}"} if found else {}
        try:
            # No proxy lies between us and this machine.
            with httpx.Client(trust_env=not nearby(host(one["url"])), timeout=_TIMEOUT, headers=headers) as http:
                reply = http.get(f"{one['url']}/models")
        except httpx.HTTPError as error:
            advice = "See that it runs and that its address is right."
            raise EndpointError(f"{one['name']} didn't answer: {type(error).__name__}", advice, where=one["url"]) from error
        if reply.status_code in (401, 403):
            said = "refused the key" if found else "wants a key"
            raise KeyNeeded(f"{one['name']} {said}: {message_of(reply)}", "Give its key here; it goes to that server alone.")
        if reply.status_code != 200 and reply.status_code not in _WITHOUT_A_LIST:
            advice = "See that its address ends before /models."
            raise EndpointError(f"{one['name']} refused: {message_of(reply)}", advice, where=one["url"])
        others = [other for other in self._kept() if other["url"] != one["url"]]
        return self._keep(others, one | {"models": _models(reply) if reply.status_code == 200 else []})

    def models(self, url: str) -> tuple[str, ...]:
        """Those that a server listed when it was last looked at; empty for one that isn't named."""
        return next((tuple(one.get("models", ())) for one in self._kept() if one["url"] == url.strip().rstrip("/")), ())

    def key_source(self, url: str) -> str:
        """Where the key for a server is from (memory, file, environment); empty where there is none. Raises RecipeError."""
        found = keys.find(self._owner, key_for(url))
        return found.source if found else ""

    def give_key(self, url: str, value: str, *, store: bool = False) -> int:
        """Takes the key for a server. -> how many runs that waited for it go on. Raises EngineError."""
        guard.elsewhere(self._owner, "url")
        need = key_for(url)
        value = keys.checked(need, value)
        if store:
            keys.keep(self._owner, need.name, value)
        keys.hold(self._owner, need.name, value)
        courier.go()
        waiting = [job for job in self._store.jobs(self._owner, states=(states.NEEDS_KEY,), limit=1000) if _asks(job, need.name)]
        for job in waiting:
            self._store.resume(job.id, self._owner)
        if waiting:
            runner.ensure_runner()
        return len(waiting)

    def forget_key(self, url: str) -> None:
        """Drops it from memory and data directory. Raises RecipeError."""
        keys.drop(self._owner, key_for(url).name)
        courier.go()

    def _kept(self) -> list[dict[str, Any]]:
        if not self.allowed:
            return []
        found = self._store.setting(self._owner, _KEPT)
        return [one for one in found or [] if isinstance(one, dict) and {"name", "url"} <= set(one)]

    def _find(self, url: str) -> dict[str, Any]:
        wanted = url.strip().rstrip("/")
        found = next((one for one in self._kept() if one["url"] == wanted), None)
        if found is None:
            there = ", ".join(one["url"] for one in self._kept())
            advice = f"There are: {there}." if there else "Name one in the settings first."
            raise NotFound(f"no server is named at {wanted[:200]!r}", advice)
        return found

    def _keep(self, others: list[dict[str, Any]], one: dict[str, Any]) -> JudgeServer:
        self._store.set_setting(self._owner, _KEPT, [*others, one])
        return self._server(one)

    def _server(self, one: dict[str, Any]) -> JudgeServer:
        need, address = key_for(one["url"]), httpx.URL(one["url"])
        clear = address.scheme == "http" and not nearby(address.host)
        return JudgeServer(one["name"], one["url"], self.key_source(one["url"]), need.variable, clear, tuple(one.get("models", ())))


def checked(url: str) -> str:
    """The address as it is kept, up to /v1. Raises RecipeError for one that is none, or that carries a secret."""
    url = url.strip().rstrip("/").removesuffix("/chat/completions").removesuffix("/models").rstrip("/")
    host(url)
    address = httpx.URL(url)
    if address.userinfo or address.query or address.fragment:
        advice = "Give the part up to /v1. Keys are given apart."
        raise RecipeError("the address holds more than a place: a key or a question", advice, where="server URL")
    return url


def _models(reply: httpx.Response) -> list[str]:
    """The names in what OpenAI's API gives for /models; none where it is something else."""
    try:
        names = [str(one["id"]) for one in reply.json()["data"]]
    except (ValueError, KeyError, TypeError):
        return []
    return sorted(set(names))[:_MOST_MODELS]


def _asks(job: Job, name: str) -> bool:
    """Whether a run, in any of its stages, asks the server whose key has that name: as a judge, or as a teacher."""
    try:
        recipes = [stage.recipe for stage in job.recipe.stages()]
        urls = [part.url for recipe in recipes for part in (*recipe.reward.parts, *recipe.evaluation.judge)]
        return any(url and key_for(url).name == name for url in (*urls, *(recipe.distill.teacher_url for recipe in recipes)))
    except RecipeError:
        # Written by another version.
        return False
