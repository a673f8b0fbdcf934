"""One request of OpenAI's API in the worker's hands: what is sampled, and its answers as they grow. Knows no HTTP."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from engine.rendering import Renderer, RoleColon
from engine.server import openai_bodies as bodies
from engine.server import openai_replies as replies
from engine.server.checkpoints import CheckpointPath
from engine.server.openai_text import AnswerText
from engine.server.sampler import SampleJob, check_job
from engine.server.scoring import Score
from engine.server.service import Service
from engine.server.worker import Future


class Failed(Exception):
    """What came of a request in the worker's hands."""

    def __init__(self, result: dict[str, Any]):
        super().__init__(result["error"])
        user = result.get("category") == "user"
        self.status = 404 if result.get("kind") == "NotFound" else 400 if user else 500
        self.body = replies.error_body(result["error"], "invalid_request_error" if user else "server_error")


@dataclass
class Call:
    """One request on its way: what is sampled, and how the answer is written."""

    service: Service
    path: CheckpointPath | None
    body: bodies.ChatAsk | bodies.CompletionAsk
    shape: replies.Shape
    jobs: list[SampleJob]
    echoes: list[str]  # each prompt's text, where it is to be shown
    renderer: Renderer | None
    scored: bool  # whether log-probabilities come from a second pass, over what was written
    top: int = 0
    over: bool = False  # nobody wants the rest

    def __post_init__(self) -> None:
        for job in self.jobs:
            job.abandoned = lambda: self.over
            if self.body.limit != 0:
                check_job(job, self.service.base)
        self.n = self.body.n or 1
        self.choices = [self._choice(index) for index in range(self.n * len(self.jobs))]

    def _choice(self, index: int) -> replies.Choice:
        job = self.jobs[index // self.n]
        text = AnswerText(
            self.service.tokenizer, job.stop_strings, chat=self.renderer is not None, strip=isinstance(self.renderer, RoleColon)
        )
        room = self.service.base.context - len(job.prompt)
        limit = room if job.max_tokens is None else min(room, job.max_tokens)
        return replies.Choice(index, text, job.stop_tokens, limit, len(self.echoes[index // self.n]) if self.echoes else 0)

    def usage(self) -> dict[str, int]:
        return replies.usage(sum(len(job.prompt) for job in self.jobs), sum(choice.tokens for choice in self.choices))


async def written(call: Call, *, live: bool) -> AsyncIterator[replies.Piece]:
    """Every choice's pieces, as they come (`live`) or when all is written. Raises Failed."""
    if live:
        for index, echo in enumerate(call.echoes):
            for place in range(call.n):
                yield replies.Piece(index * call.n + place, echo)
        async for piece in _live(call):
            yield piece
        return
    sequences = await _sequences(call)
    for choice, (tokens, logprobs, stopped) in zip(call.choices, sequences, strict=True):
        job_index = choice.index // call.n
        prompt = call.jobs[job_index].prompt
        best: list[list[tuple[int, float]]] = [[] for _ in tokens]
        prompt_scores: list[Score] | None = None
        if call.scored:
            start = 1 if call.echoes else len(prompt)
            scores = await _scores(call, prompt + tokens, start)
            prompt_scores, scores = scores[: len(prompt) - start], scores[len(prompt) - start :]
            logprobs, best = [own for own, _ in scores], [found for _, found in scores]
        if call.echoes:
            starts = _starts(call, prompt) if call.scored else []
            yield replies.echoed(choice.index, call.echoes[job_index], prompt, prompt_scores, starts)
        for token, logprob, found in zip(tokens, logprobs, best, strict=True):
            yield choice.add(token, logprob, found)
        yield choice.close(stopped)


def _starts(call: Call, prompt: list[int]) -> list[int]:
    """Where each token of the prompt begins in its text."""
    text, starts = AnswerText(call.service.tokenizer), []
    for token in prompt:
        starts.append(text.decoded)
        text.add(token)
    return starts


async def _sequences(call: Call) -> list[tuple[list[int], list[float], bool]]:
    if call.body.limit == 0:
        return [([], [], False)] * len(call.choices)
    futures = [_future() for _ in call.jobs]
    for job, future in zip(call.jobs, futures, strict=True):
        call.service.sampling.complete(call.path, job, future)
    return [sequence for future in futures for sequence in (await _result(future))["sequences"]]


async def _scores(call: Call, tokens: list[int], start: int) -> list[Score]:
    future = _future()
    call.service.sampling.score(call.path, tokens, start, call.top, future)
    return (await _result(future))["scores"]


async def _live(call: Call) -> AsyncIterator[replies.Piece]:
    """Token by token: the worker's thread puts them into a queue of this loop."""
    if call.body.limit == 0:
        for choice in call.choices:
            yield choice.close(stopped=False)
        return
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[tuple[int, int, float] | Future] = asyncio.Queue()

    def bridge(first: int) -> Callable[[int, int, float], None]:
        def on_token(position: int, token: int, logprob: float) -> None:
            if not call.over:
                loop.call_soon_threadsafe(queue.put_nowait, (first + position, token, logprob))

        return on_token

    async def follow(future: Future) -> None:
        await _finished(future)
        queue.put_nowait(future)

    followers, places = [], {}
    for place, job in enumerate(call.jobs):
        future = _future()
        places[future.request_id] = place * call.n
        job.on_token = bridge(place * call.n)
        call.service.sampling.complete(call.path, job, future)
        followers.append(asyncio.create_task(follow(future)))
    try:
        while any(not choice.finish for choice in call.choices):
            event = await queue.get()
            if isinstance(event, tuple):
                index, token, logprob = event
                yield call.choices[index].add(token, logprob)
                continue
            for place, (_, _, stopped) in enumerate((await _result(event))["sequences"]):
                yield call.choices[places[event.request_id] + place].close(stopped)
    finally:
        call.over = True
        for follower in followers:
            follower.cancel()


def _future() -> Future:
    return Future(f"openai:{uuid.uuid4().hex}", asyncio.get_running_loop())


async def _finished(future: Future) -> None:
    while not await future.wait(60):
        pass


async def _result(future: Future) -> dict[str, Any]:
    await _finished(future)
    assert isinstance(future.result, dict)
    if "error" in future.result:
        raise Failed(future.result)
    return future.result
