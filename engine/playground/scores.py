"""How likely each token of an answer is to a model, and what it would rather have said: one forward pass over what is written.

The conversation is rendered as the model was trained, so any model can be asked about any answer, its own or another's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import httpx

from engine import models
from engine.data.examples import with_system
from engine.endpoints import Endpoint
from engine.errors import EndpointError, StateError
from engine.playground.asking import TIMEOUT, refusal
from engine.playground.speakers import Speaker
from engine.rendering import Message, Renderer, get_renderer, load_tokenizer


@dataclass(frozen=True)
class Token:
    """One token with its probability, 0 to 1, and the likeliest ones at its place (itself among them), likeliest first."""

    text: str
    probability: float
    best: tuple[tuple[str, float], ...]


def scores(endpoint: Endpoint, speaker: Speaker, messages: Sequence[Message], answer: str, top: int) -> list[Token]:
    """The answer's tokens, its end mark among them. Raises EngineError."""
    tokens, start, end = _rendered(speaker, messages, answer)
    body = {"model": speaker.path or speaker.base_model, "prompt": tokens, "max_tokens": 0, "echo": True, "logprobs": top}
    headers = {"Authorization": f"Bearer {endpoint.key()}"}
    try:
        reply = httpx.post(f"{endpoint.chat_url}/completions", json=body, headers=headers, timeout=TIMEOUT, trust_env=False)
    except httpx.HTTPError as error:
        raise EndpointError("the server ended while it was reading the answer", "Try again.") from error
    if reply.status_code != 200:
        raise refusal(speaker, reply.status_code, reply.content)
    found = reply.json()["choices"][0]["logprobs"]
    return [_token(*(found[name][place] for name in ("tokens", "token_logprobs", "top_logprobs"))) for place in range(start, end)]


def _token(text: str, logprob: float | None, best: dict[str, float] | None) -> Token:
    likeliest = sorted((best or {}).items(), key=lambda item: -item[1])
    return Token(text, 1.0 if logprob is None else math.exp(logprob), tuple((other, math.exp(value)) for other, value in likeliest))


def _rendered(speaker: Speaker, messages: Sequence[Message], answer: str) -> tuple[list[int], int, int]:
    """(tokens, where the last answer begins, where it ends). Raises StateError where there is no answer."""
    conversation = [*with_system(list(messages), speaker.system_prompt), {"role": "assistant", "content": answer}]
    rendered = _renderer(speaker.base_model, speaker.renderer).examples(conversation)
    if not rendered or not rendered[-1].completion_tokens:
        raise StateError("there are no tokens to look at", "Choose an answer that has some.")
    weights = rendered[-1].weights
    end = max(place for place, weight in enumerate(weights) if weight > 0) + 1
    start = next((place + 1 for place in range(end - 1, -1, -1) if weights[place] == 0), 0)
    return rendered[-1].tokens[:end], start, end


@lru_cache(maxsize=4)
def _renderer(base_model: str, name: str) -> Renderer:
    return get_renderer(name, load_tokenizer(models.resolve(base_model, weights=False)))
