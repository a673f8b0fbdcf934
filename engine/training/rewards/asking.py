"""How rewards reach models: one of the person's own by its name, through its endpoint's OpenAI-compatible HTTP, or any other server by URL.

Many questions at once, each retried for a while; what still fails is an error, never a score. Keys of other servers are found by the
server's name, so that a recipe from elsewhere can't have one sent to a server that it wasn't given for. Knows no rubric and no score.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from engine import endpoints, keys, models, starts
from engine.data.examples import with_system
from engine.endpoints import Endpoint
from engine.errors import EndpointError, KeyNeeded, NotFound, RecipeError
from engine.keys import Need
from engine.store import Store
from engine.training.rewards import Message

AT_ONCE_HERE, AT_ONCE_ELSEWHERE = 64, 16
TIMEOUT = httpx.Timeout(300, connect=10)
_TRIES, _FIRST_WAIT, _LONGEST_WAIT = 6, 0.5, 30.0
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_TOP = 20
# As the method that trains reward models has it.
YES, SUREST = "yes", 1e-4
_NEARBY = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Address:
    """Where a model is asked. `name` for people, `model` for its server."""

    name: str
    model: str
    url: str
    key: str = field(repr=False, default="")
    need: Need | None = None
    system_prompt: str = ""
    stop: tuple[str, ...] = ()
    question: str = ""
    ours: bool = False


@dataclass(frozen=True)
class Try:
    """One answer as the server gave it."""

    text: str
    tokens: int
    cut_off: bool


@dataclass
class Asked:
    """What was spent: requests that were answered, and their tokens as the servers count them."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Asker:
    """One owner's; `endpoint` is where base models are asked. Not for several threads at once."""

    def __init__(self, store: Store, owner: str, endpoint: str = "local"):
        self._endpoint = endpoint
        self._store, self._owner = store, owner
        self._open: dict[tuple[str, str], Endpoint] = {}
        # What a server turned out not to take, by its URL and model.
        self._habits: dict[tuple[str, str], set[str]] = {}
        self.asked = Asked()

    def ask(self, model: str, url: str, prompts: Sequence[Sequence[Message]], *, max_tokens: int, temperature: float = 0.0) -> list[str]:
        """What it says to each. Raises EngineError."""
        address = self.address(model, url)
        body: dict[str, Any] = {"max_tokens": max_tokens, "temperature": temperature}
        replies = self._chats(address, prompts, body)
        return [reply["message"].get("content") or "" for reply in replies]

    def odds(self, model: str, conversations: Sequence[Sequence[Message]], question: str) -> list[float]:
        """What a model thinks of the last answer of each conversation: the log-odds of yes (nats). A reward model is asked the question
        that it was trained with. Raises EngineError."""
        address = self.address(model, "")
        asked = [[*conversation, {"role": "user", "content": address.question or question}] for conversation in conversations]
        replies = self._chats(address, asked, {"max_tokens": 1, "temperature": 0.0, "logprobs": True, "top_logprobs": _TOP})
        return [_odds(reply) for reply in replies]

    def tries(self, model: str, prompts: Sequence[Sequence[Message]], count: int, how: dict[str, Any]) -> list[list[Try]]:
        """`count` answers of a model of ours to each prompt; `how` as OpenAI's API has it (max_tokens, temperature). Raises EngineError."""
        address = self.address(model, "")
        asked = [prompt for prompt in prompts for _ in range(count)]
        replies = self._chats(address, asked, dict(how), seeds=range(len(asked)))
        found = [Try(reply["message"].get("content") or "", reply["tokens"], reply["finish_reason"] == "length") for reply in replies]
        return [found[place : place + count] for place in range(0, len(found), count)]

    def key(self, url: str) -> str:
        """The owner's key for that server; empty if there is none."""
        found = keys.find(self._owner, key_for(url))
        return found.value if found else ""

    def address(self, model: str, url: str) -> Address:
        """Where it is asked; a server of ours is started if need be. Raises EngineError."""
        if url:
            need = key_for(url)
            return Address(f"{model} at {host(url)}", model, url.rstrip("/"), self.key(url), need)
        return self._ours(model)

    def _ours(self, ref: str) -> Address:
        """A tuned model by id or name, a run's checkpoint as JOB@STEP, or a base model by name."""
        try:
            found = starts.find(self._store, self._owner, ref)
        except NotFound:
            # A mistyped name is none of the hub's: those that are have an owner's name before them.
            if ref != "nano" and not (models.is_hub_id(ref) and "/" in ref):
                raise
            endpoint = self._opened(self._endpoint, ref)
            return Address(ref, ref, endpoint.chat_url, endpoint.key(), ours=True)
        if not found.sampler_path:
            raise NotFound(f"{found.name} can't be asked: it was saved for training on only", "Choose another one.", where=ref)
        endpoint = self._opened(found.endpoint, found.base_model)
        spoken = (found.system_prompt, tuple(found.stop), found.question)
        return Address(found.name, found.sampler_path, endpoint.chat_url, endpoint.key(), None, *spoken, ours=True)

    def _opened(self, name: str, base_model: str) -> Endpoint:
        known = self._open.get((name, base_model))
        if known is None or not known.alive():
            folder = models.resolve(base_model, weights=endpoints.kind(name, self._owner).weights)
            known = endpoints.start(name, base_model, folder, self._owner)
            known.ready(lambda text: None)
            self._open[name, base_model] = known
        return known

    def _chats(
        self, address: Address, prompts: Sequence[Sequence[Message]], body: dict[str, Any], seeds: Sequence[int] = ()
    ) -> list[dict[str, Any]]:
        """The choices, each with its `tokens`."""
        conversations = [with_system([dict(message) for message in prompt], address.system_prompt) for prompt in prompts]
        if address.stop:
            body["stop"] = list(address.stop)[:4]
        bodies = [{**body, "messages": talk} for talk in conversations]
        for one, seed in zip(bodies, seeds, strict=False):
            one["seed"] = seed
        return asyncio.run(self._all(address, bodies)) if bodies else []

    async def _all(self, address: Address, bodies: list[dict[str, Any]]) -> list[dict[str, Any]]:
        at_once = AT_ONCE_HERE if address.ours else AT_ONCE_ELSEWHERE
        gate = asyncio.Semaphore(at_once)
        headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
        limits = httpx.Limits(max_connections=at_once)
        # No proxy lies between us and this machine.
        proxied = host(address.url) not in _NEARBY
        async with httpx.AsyncClient(trust_env=proxied, timeout=TIMEOUT, headers=headers, limits=limits) as http:
            tasks = [asyncio.create_task(self._one(http, gate, address, body)) for body in bodies]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                # One that failed takes the others along.
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _one(self, http: httpx.AsyncClient, gate: asyncio.Semaphore, address: Address, body: dict[str, Any]) -> dict[str, Any]:
        body["model"] = address.model
        said, number = "", 0
        while number < _TRIES:
            async with gate:
                try:
                    reply = await http.post(f"{address.url}/chat/completions", json=self._suited(address, body))
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    reply, said = None, f"{type(error).__name__}: {error}".rstrip(": ")
            if reply is not None and reply.status_code == 200:
                return self._read(address, reply)
            if reply is not None:
                said = message_of(reply)
                if reply.status_code == 400 and self._learn(address, said):
                    continue
                if reply.status_code not in _AGAIN:
                    raise _refused(address, reply.status_code, said)
            number += 1
            if number < _TRIES:
                await asyncio.sleep(_pause(number, reply))
        advice = "See that it runs and that its URL is right; then try again." if address.need else "Try again."
        raise EndpointError(f"{address.name} didn't answer in {_TRIES} tries: {said}", advice, where=address.url)

    def _suited(self, address: Address, body: dict[str, Any]) -> dict[str, Any]:
        """As this server wants it: newer models of OpenAI's take no max_tokens and no temperature."""
        habits = self._habits.get((address.url, address.model), set())
        found = {name: value for name, value in body.items() if name not in habits}
        if "max_tokens" in habits:
            # Those think before they answer, and their thoughts count.
            found["max_completion_tokens"] = body["max_tokens"] * 8
        return found

    def _learn(self, address: Address, said: str) -> bool:
        """Whether the refusal tells what to leave out, and it wasn't left out before."""
        habits = self._habits.setdefault((address.url, address.model), set())
        told = "max_tokens" if "max_completion_tokens" in said else "temperature" if "temperature" in said else ""
        if address.ours or not told or told in habits:
            return False
        habits.add(told)
        return True

    def _read(self, address: Address, reply: httpx.Response) -> dict[str, Any]:
        try:
            values = reply.json()
            choice = values["choices"][0]
            if not isinstance(choice["message"], dict):
                raise TypeError
        except (ValueError, KeyError, IndexError, TypeError) as error:
            advice = "See that the URL ends in /v1 or whatever comes before /chat/completions."
            raise EndpointError("what came back isn't what OpenAI's API gives", advice, where=address.url) from error
        used = values.get("usage") or {}
        self.asked.calls += 1
        self.asked.prompt_tokens += int(used.get("prompt_tokens") or 0)
        self.asked.completion_tokens += int(used.get("completion_tokens") or 0)
        return {**choice, "tokens": int(used.get("completion_tokens") or 0)}


def _odds(choice: dict[str, Any]) -> float:
    """log p - log(1 - p) of saying yes, from what the model would say first; a token may hold the beginning of the word alone."""
    content = (choice.get("logprobs") or {}).get("content") or []
    best = content[0]["top_logprobs"] if content else []
    if not best:
        raise EndpointError("the server doesn't say how likely answers are, which a reward model has to", "Ask it where it was trained.")
    found = [math.exp(entry["logprob"]) for entry in best if (word := entry["token"].strip()) and YES.startswith(word)]
    # What isn't among the likeliest is at most as likely as the last of them.
    p = sum(found) or min(math.exp(entry["logprob"]) for entry in best)
    p = min(max(p, SUREST), 1 - SUREST)
    return math.log(p) - math.log1p(-p)


def host(url: str) -> str:
    """The server's name in a URL. Raises RecipeError for what is none."""
    try:
        known = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        known = httpx.URL()
        raise RecipeError(f"{url[:200]!r} is no URL", "It looks like https://api.openai.com/v1.", where="url") from error
    if known.scheme not in ("http", "https") or not known.host:
        raise RecipeError(f"{url[:200]!r} is no URL", "It looks like https://api.openai.com/v1.", where="url")
    return known.host


def key_for(url: str) -> Need:
    """The key that a server may want: OPENAI_API_KEY for OpenAI's own, THINKER_KEY_ and its name for others. Raises RecipeError."""
    name = host(url)
    variable = "OPENAI_API_KEY" if name == "api.openai.com" else "THINKER_KEY_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
    return Need(f"judge:{name}", name, variable, "", f"whoever runs {name}")


def message_of(reply: httpx.Response) -> str:
    """What a server says is wrong."""
    try:
        found = reply.json()["error"]
        return str(found["message"] if isinstance(found, dict) else found)[:500]
    except (ValueError, KeyError, TypeError):
        return f"status {reply.status_code}"


def _refused(address: Address, status: int, said: str) -> EndpointError | KeyNeeded | NotFound:
    if status in (401, 403) and address.need:
        advice = f"Give its key beside the judge's URL, or as {address.need.variable} in the environment."
        return KeyNeeded(f"{address.need.title} " + ("refused the key" if address.key else "wants a key") + f": {said}", advice)
    if status == 404:
        return NotFound(f"{address.name} isn't there: {said}", "Check its name and the URL.", where=address.url)
    return EndpointError(f"{address.name} refused the question: {said}", "Correct what it says, or use another model.", where=address.url)


def _pause(number: int, reply: httpx.Response | None) -> float:
    """Seconds until the next try: what the server asks for, else twice as long each time, spread so that not all come back at once."""
    told = reply.headers.get("retry-after", "") if reply is not None else ""
    if told.replace(".", "", 1).isdigit():
        return min(float(told), _LONGEST_WAIT)
    return min(_FIRST_WAIT * 2 ** (number - 1), _LONGEST_WAIT) * random.uniform(0.7, 1.3)
