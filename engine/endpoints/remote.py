"""What answers the Tinker API elsewhere: the Tinker cloud, or a server that the person named. A URL and the owner's key. Starts nothing.

What a server says of itself is asked over plain HTTP, so that looking needs no SDK. Knows nothing of training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from engine import keys
from engine.endpoints import TINKER, TINKER_KEY, named, tinker_cloud
from engine.endpoints.waiting import heeding
from engine.errors import EndpointError, KeyNeeded, ModelError, NotFound, PaymentNeeded, RecipeError
from engine.keys import Need

ANSWER_SECONDS = 10.0
ASK_EVERY = 10.0  # seconds between asking whether it still answers
SILENT_SECONDS = 120.0  # after which a server that doesn't answer counts as gone
PATIENCE_SECONDS = 45.0  # for which a run asks again, where a page says at once that nobody answers
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_GONE = {404, 410}
_PAUSES = (0.25, 8.0)  # seconds between two tries, at first and at most


@dataclass(frozen=True)
class Patience:
    """For how many seconds a server is asked again where nobody answers, or only to say that it can't just now. `heed` is called several
    times a second meanwhile, and ends it by raising."""

    seconds: float = 0.0
    heed: Callable[[], object] | None = None


AT_ONCE = Patience()


@dataclass(frozen=True)
class Address:
    """Where a server is, what it is called, which key it takes, and what comes before /chat/completions there."""

    name: str
    title: str
    url: str
    need: Need | None
    chat: str = "oai/api/v1"

    @property
    def host(self) -> str:
        """The name of the machine that answers, for people."""
        return httpx.URL(self.url).host

    def key(self, owner: str) -> str:
        """The owner's key. Raises KeyNeeded."""
        if self.need is None:
            return named.NO_KEY
        found = keys.find(owner, self.need)
        if found is None:
            raise KeyNeeded(f"there is no key for {self.title}", f"Give one in the settings; you get it at {self.need.get_one}.")
        return found.value


@dataclass(frozen=True)
class Offer:
    """A base model as a server lists it; `context` is the most tokens that it takes, None where that isn't said."""

    name: str
    context: int | None = None
    trainable: bool = True
    sampleable: bool = True


class Remote:
    """What answers at the address, for one base model and one owner."""

    def __init__(self, address: Address, base_model: str, owner: str):
        self.base_model, self.url, self.address = base_model, address.url, address
        self._owner = owner
        self._life = ""
        self._asked_at = self._answered_at = time.monotonic()

    @property
    def chat_url(self) -> str:
        return f"{self.url}/{self.address.chat}"

    def ready(self, say: Callable[[str], None], heed: Callable[[], object] | None = None) -> None:
        """Whether it lets the key in and has the model. Raises KeyNeeded, PaymentNeeded, ModelError and EndpointError."""
        say(f"asking {self.address.host} for {self.base_model}")
        offer(self.address.name, self.base_model, self._owner, Patience(PATIENCE_SECONDS, heed))
        self._life = _life(self.url, self.key())
        self._asked_at = self._answered_at = time.monotonic()

    def alive(self) -> bool:
        """It answers, or has done so within two minutes; one that says which life of it this is must be in the same.

        Raises KeyNeeded and PaymentNeeded where it lets nobody in any more: the SDK would wait for an hour then.
        """
        now = time.monotonic()
        if now - self._asked_at < ASK_EVERY:
            return True
        self._asked_at = now
        try:
            reply = get(self.url, "get_server_capabilities", self.key())
        except httpx.HTTPError:
            return now - self._answered_at < SILENT_SECONDS
        refused(self.address, reply)
        if reply.status_code >= 500:
            return now - self._answered_at < SILENT_SECONDS
        self._answered_at = now
        return not self._life or _life(self.url, self.key()) in ("", self._life)

    def context(self, heed: Callable[[], object] | None = None) -> int | None:
        """As the server lists it. Raises as `offer`."""
        return offer(self.address.name, self.base_model, self._owner, Patience(PATIENCE_SECONDS, heed)).context

    def key(self) -> str:
        """Raises KeyNeeded."""
        return self.address.key(self._owner)


def start(base_model: str, model_folder: Path, owner: str, name: str = TINKER) -> Remote:
    """The endpoint registry's entry. Raises KeyNeeded and RecipeError."""
    found = address(name, owner)
    found.key(owner)
    return Remote(found, base_model, owner)


def address(name: str, owner: str) -> Address:
    """Of the cloud, or of a server that the owner named. Raises RecipeError."""
    if name == TINKER:
        return Address(TINKER, "Tinker", tinker_cloud.url(), TINKER_KEY)
    found = named.find(owner, name)
    if found is None:
        raise RecipeError(f"no server is called {name[:60]!r} here", "Name it in the settings first.", where="recipe endpoint")
    return Address(name, name, found.url, found.need, found.found.get("chat") or "oai/api/v1")


def offers(name: str, owner: str, patience: Patience = AT_ONCE) -> list[Offer]:
    """The base models, as the server lists them for the owner's key. Raises as `asked`."""
    where = address(name, owner)
    listed = asked(where, "get_server_capabilities", where.key(owner), patience=patience).get("supported_models") or []
    # What isn't said to be for sampling only can be trained.
    return [
        Offer(
            str(model["model_name"]),
            model.get("max_context_length") or None,
            model.get("trainable", True) is not False,
            model.get("sampleable", True) is not False,
        )
        for model in listed
        if isinstance(model, dict) and model.get("model_name")
    ]


def storage(name: str, owner: str) -> str:
    """The registry's: a server of ours says what it keeps checkpoints in; any other keeps its own. Raises KeyNeeded, PaymentNeeded and
    EndpointError."""
    where = address(name, owner)
    try:
        return str(asked(where, "thinker/status", where.key(owner)).get("storage") or where.url)
    except NotFound:
        return where.url


def models(name: str, owner: str) -> list[str]:
    """Those that can be trained. Raises as `offers`."""
    return [found.name for found in offers(name, owner) if found.trainable]


def offer(name: str, base_model: str, owner: str, patience: Patience = AT_ONCE) -> Offer:
    """The model there. Raises ModelError where it can't be trained, else as `offers`."""
    return chosen(name, base_model, owner, offers(name, owner, patience))


def chosen(name: str, base_model: str, owner: str, known: Collection[Offer]) -> Offer:
    """The model among those that the server offers. Raises ModelError where it can't be trained."""
    for found in known:
        if found.name == base_model and found.trainable:
            return found
    raise missing(address(name, owner), base_model, [found.name for found in known if found.trainable])


def missing(where: Address, base_model: str, known: Collection[str]) -> ModelError:
    """The error for a model that the server doesn't have."""
    some = ", ".join(list(known)[:12]) + (" …" if len(known) > 12 else "")
    advice = f"Choose one that it has: {some or 'none at the moment'}."
    return ModelError(f"{where.host} doesn't train {base_model}", advice, where="base_model")


def asked(where: Address, what: str, key: str, method: str = "GET", *, patience: Patience = AT_ONCE, **options: Any) -> dict[str, Any]:
    """A JSON object from the server. Raises KeyNeeded, PaymentNeeded, NotFound where it knows no such thing, and EndpointError."""
    setting = tinker_cloud.URL_VARIABLE if where.name == TINKER else "its address in the settings"
    try:
        reply = _until_answered(patience, lambda: get(where.url, what, key, method, **options))
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
        advice = f"Check the network and {setting}{', if you set it' if where.name == TINKER else ''}; then try again."
        raise EndpointError(f"{where.title} can't be reached: {type(error).__name__}", advice, where=where.host) from error
    refused(where, reply)
    try:
        body = reply.json() if reply.content else {}
    except ValueError:
        body = None
    if reply.status_code in _GONE and isinstance(body, dict) and body.get("message"):
        raise NotFound(str(body["message"]), str(body.get("next_step") or "Look at the list again."), where=where.host)
    if reply.status_code >= 300 or not isinstance(body, dict):
        error = NotFound if reply.status_code in _GONE else EndpointError
        advice = f"See that {setting} is right; else try again later."
        raise error(f"{where.title} answered with the status {reply.status_code}{_said(body)}", advice, where=where.host)
    return body


def refused(where: Address, reply: httpx.Response) -> None:
    """Raises KeyNeeded and PaymentNeeded for a reply that says so."""
    if reply.status_code in (401, 403):
        told = f"{where.host} refused the key" + (" (it isn't allowed to do this)" if reply.status_code == 403 else "")
        source = where.need.get_one if where.need else f"whoever runs {where.host}"
        raise KeyNeeded(told, f"Give another one in the settings; you get it at {source}.")
    if reply.status_code == 402:
        raise payment_needed(where)


def payment_needed(where: Address) -> PaymentNeeded:
    """The error for an account without billing, or without money."""
    advice = f"See to it at {tinker_cloud.CONSOLE}" if where.name == TINKER else f"Ask whoever runs {where.host}"
    return PaymentNeeded(f"{where.host} asks for payment: the account has no billing, or nothing left", f"{advice}; then go on.")


def get(url: str, what: str, key: str = "", method: str = "GET", **options: Any) -> httpx.Response:
    """One request, below /api/v1. Raises httpx's errors."""
    # No proxy lies between us and this machine.
    trust = not named.nearby(httpx.URL(url).host)
    headers = {"X-API-Key": key} if key else {}
    with httpx.Client(timeout=options.pop("timeout", ANSWER_SECONDS), trust_env=trust) as client:
        return client.request(method, f"{url}/api/v1/{what}", headers=headers, **options)


def _until_answered(patience: Patience, ask: Callable[[], httpx.Response]) -> httpx.Response:
    """The last reply within the patience, where it is one that may pass. Raises httpx's errors."""
    deadline, pause = time.monotonic() + patience.seconds, _PAUSES[0]
    while True:
        wait, reply, failed = pause, None, None
        try:
            reply = heeding(ask, patience.heed)
            if reply.status_code not in _PASSING:
                return reply
            wait = max(pause, _wished(reply))
        except httpx.TransportError as error:
            failed = error
        if time.monotonic() + wait > deadline:
            if reply is None:
                raise failed
            return reply
        heeding(partial(time.sleep, wait), patience.heed)
        pause = min(2 * pause, _PAUSES[1])


def _wished(reply: httpx.Response) -> float:
    """Seconds that the server asks to be left alone for; a date in place of them isn't read."""
    try:
        return max(0.0, float(reply.headers.get("Retry-After", 0)))
    except ValueError:
        return 0.0


def _said(body: Any) -> str:
    found = (body.get("message") or body.get("detail")) if isinstance(body, dict) else ""
    return f": {str(found)[:200]}" if isinstance(found, str) and found else ""


def _life(url: str, key: str) -> str:
    """Which life of the server this is, where it says so, as ours does; empty elsewhere."""
    try:
        reply = get(url, "thinker/status", key)
        return str(reply.json().get("boot_id") or "") if reply.status_code == 200 else ""
    except (httpx.HTTPError, ValueError, AttributeError):
        return ""
