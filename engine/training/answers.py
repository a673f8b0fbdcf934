"""Asks a sampling client many questions at once and gives back text. Used by samples, the proof and chats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.endpoints.client import Client
from engine.rendering import Message, Renderer


def answer(
    client: Client,
    sampler: Any,
    renderer: Renderer,
    prompts: Sequence[Sequence[Message]],
    *,
    max_tokens: int | None,
    stop: Sequence[str] = (),
    temperature: float = 0.0,
    seed: int | None = None,
) -> list[str]:
    """One answer a prompt, in order. `stop` comes on top of the renderer's own end marks and is cut off the answer."""
    from tinker import types

    params = types.SamplingParams(max_tokens=max_tokens, temperature=temperature, seed=seed, stop=stops(renderer, stop))
    futures = [client.sample(sampler, renderer.prompt(prompt), 1, params) for prompt in prompts]
    replies = [client.wrote(client.wait(future, "sampling answers")) for future in futures]
    texts = [renderer.text(reply.sequences[0].tokens) for reply in replies]
    return [cut(text, stop) for text in texts]


def stops(renderer: Renderer, extra: Sequence[str]) -> list[str] | list[int] | None:
    """The API takes stop tokens or stop strings, not both: tokens go along as the text they are written as."""
    if not extra and not renderer.stop_strings:
        return list(renderer.stop_tokens) or None
    return [*renderer.stop_strings, *extra, *renderer.stop_texts]


def cut(text: str, stop: Sequence[str]) -> str:
    for mark in stop:
        text = text.split(mark, 1)[0]
    return text.strip() if stop else text
