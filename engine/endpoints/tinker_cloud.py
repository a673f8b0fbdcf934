"""The Tinker cloud, or any server that speaks its API at `TINKER_BASE_URL`: a URL and the owner's key. Starts nothing.

What the server says of itself is asked over plain HTTP, so that looking needs no SDK. Knows nothing of training.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from engine import keys
from engine.endpoints import TINKER_KEY
from engine.errors import EndpointError, KeyNeeded, ModelError

DEFAULT_URL = "https://tinker.thinkingmachines.dev/services/tinker-prod"  # as the SDK has it
URL_VARIABLE = "TINKER_BASE_URL"
ANSWER_SECONDS = 10.0
ASK_EVERY = 10.0  # seconds between asking whether it still answers
SILENT_SECONDS = 120.0  # after which a server that doesn't answer counts as gone


class TinkerCloud:
    """What answers at the URL, for one base model and one owner."""

    def __init__(self, base_model: str, owner: str):
        self.base_model, self.url = base_model, url()
        self._owner = owner
        self._life = ""
        self._asked_at = self._answered_at = time.monotonic()

    @property
    def chat_url(self) -> str:
        return f"{self.url}/oai/api/v1"

    def ready(self, say: Callable[[str], None]) -> None:
        """Whether it lets the key in and has the model. Raises KeyNeeded, ModelError and EndpointError."""
        say(f"asking {host()} for {self.base_model}")
        known = models(self._owner)
        if self.base_model not in known:
            raise missing(self.base_model, known)
        self._life = _life(self.url, self.key())
        self._asked_at = self._answered_at = time.monotonic()

    def alive(self) -> bool:
        """It answers, or has done so within two minutes; one that says which life of it this is must be in the same."""
        now = time.monotonic()
        if now - self._asked_at < ASK_EVERY:
            return True
        self._asked_at = now
        try:
            _get(self.url, "healthz")
        except httpx.HTTPError:
            return now - self._answered_at < SILENT_SECONDS
        self._answered_at = now
        return not self._life or _life(self.url, self.key()) in ("", self._life)

    def key(self) -> str:
        """Raises KeyNeeded."""
        return key(self._owner)


def start(base_model: str, model_folder: Path, owner: str) -> TinkerCloud:
    """The endpoint registry's entry. Raises KeyNeeded."""
    key(owner)
    return TinkerCloud(base_model, owner)


def url() -> str:
    """Where it is."""
    return (os.environ.get(URL_VARIABLE, "").strip() or DEFAULT_URL).rstrip("/")


def host() -> str:
    """The name of the machine that answers, for people."""
    return httpx.URL(url()).host


def key(owner: str) -> str:
    """The owner's key. Raises KeyNeeded."""
    found = keys.find(owner, TINKER_KEY)
    if found is None:
        raise KeyNeeded("there is no key for Tinker", f"Give one in the settings; you get it at {TINKER_KEY.get_one}.")
    return found.value


def models(owner: str) -> list[str]:
    """The base models that can be trained with the owner's key, as the server lists them. Raises KeyNeeded and EndpointError."""
    listed = _asked("get_server_capabilities", key(owner)).get("supported_models") or []
    # What isn't said to be for sampling only can be trained.
    return [str(model["model_name"]) for model in listed if model.get("model_name") and model.get("trainable", True) is not False]


def storage(owner: str) -> str:
    """The registry's: a server of ours says what it keeps checkpoints in; any other keeps its own. Raises KeyNeeded and EndpointError."""
    told = key(owner)
    try:
        reply = _get(url(), "thinker/status", told)
        found = str(reply.json().get("storage") or "") if reply.status_code == 200 else ""
    except httpx.HTTPError as error:
        advice = f"Check the network and, if you set it, {URL_VARIABLE}; then try again."
        raise EndpointError(f"{host()} can't be reached: {type(error).__name__}", advice, where=host()) from error
    except (ValueError, AttributeError):
        found = ""
    return found or url()


def missing(base_model: str, known: list[str]) -> ModelError:
    """The error for a model that the server doesn't have."""
    some = ", ".join(known[:12]) + (" …" if len(known) > 12 else "")
    return ModelError(
        f"{host()} doesn't train {base_model}", f"Choose one that it has: {some or 'none at the moment'}.", where="base_model"
    )


def _asked(what: str, key: str) -> dict[str, Any]:
    where, advice = host(), f"Check the network and, if you set it, {URL_VARIABLE}; then try again."
    try:
        reply = _get(url(), what, key)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeEncodeError) as error:
        raise EndpointError(f"Tinker can't be reached: {type(error).__name__}", advice, where=where) from error
    if reply.status_code in (401, 403):
        told = f"{where} refused the key" + (" (it isn't allowed to do this)" if reply.status_code == 403 else "")
        raise KeyNeeded(told, f"Give another one in the settings; you get it at {TINKER_KEY.get_one}.")
    try:
        body = reply.json()
    except ValueError:
        body = None
    if reply.status_code != 200 or not isinstance(body, dict):
        advice = f"If {URL_VARIABLE} is set, see that it is right; else try again later."
        raise EndpointError(f"Tinker answered with the status {reply.status_code}", advice, where=where)
    return body


def _get(url: str, what: str, key: str = "") -> httpx.Response:
    # No proxy lies between us and this machine.
    nearby = httpx.URL(url).host in ("127.0.0.1", "localhost", "::1")
    headers = {"X-API-Key": key} if key else {}
    return httpx.get(f"{url}/api/v1/{what}", headers=headers, timeout=ANSWER_SECONDS, trust_env=not nearby)


def _life(url: str, key: str) -> str:
    """Which life of the server this is, where it says so, as ours does; empty elsewhere."""
    try:
        reply = _get(url, "thinker/status", key)
        return str(reply.json().get("boot_id") or "") if reply.status_code == 200 else ""
    except (httpx.HTTPError, ValueError, AttributeError):
        return ""
