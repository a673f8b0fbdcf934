"""Prompts of the person's own, answered again and again while a model learns: on the endpoint that trains it, or on another that reads its
saved weights. A preview that takes too long or can't be had is passed over with a note; it never ends a run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine import models
from engine.data.examples import with_system
from engine.endpoints import kind, start
from engine.endpoints.client import Client
from engine.errors import EndpointLost, EngineError
from engine.evaluation.metrics import exact_match
from engine.training.answers import cut, stops
from engine.training.attempt import Attempt

FIRST_POSITION = 1000
"""Where previews stand among a run's samples: after any number of fixed prompts."""
_KEPT_S = 3600  # a snapshot for another endpoint is wanted once


class _TooLong(Exception):
    """It takes longer than previews may."""


class _Asked(Exception):
    """Somebody wants the run to pause or stop: that comes first."""


def say_previews(at: Attempt, sampler: Any) -> None:
    """The answers at this step, and how fast they came. `sampler` is a snapshot of the weights where they are trained."""
    evaluation = at.recipe.evaluation
    if not evaluation.previews:
        return
    try:
        client, sampler = _place(at, sampler)
    except EndpointLost:
        if not _elsewhere(at):
            raise
        at.run.log("warning", f"previews are passed over at step {at.step:,}: {evaluation.preview_endpoint} is gone")
        return
    except EngineError as error:
        at.run.log("warning", f"previews are passed over at step {at.step:,}: {error}")
        return
    _ask_all(at, client, sampler)


def close(at: Attempt) -> None:
    """Lets go of the other endpoint, if there was one."""
    if at.preview_client is not None:
        at.preview_client.close()
        at.preview_client = None


def _ask_all(at: Attempt, client: Client, sampler: Any) -> None:
    from tinker import types

    recipe = at.recipe
    params = types.SamplingParams(
        max_tokens=recipe.evaluation.max_new_tokens, temperature=0.0, seed=0, stop=stops(at.renderer, recipe.stop)
    )
    began, written, right, judged = time.monotonic(), 0, 0, 0
    sent = []
    for preview in recipe.evaluation.previews:
        prompt = at.renderer.prompt(with_system([{"role": "user", "content": preview.prompt}], recipe.system_prompt))
        sent.append(client.sample(sampler, prompt, 1, params))
    ended = began
    for place, (preview, future) in enumerate(zip(recipe.evaluation.previews, sent, strict=True)):
        try:
            with _within(at, client, began + recipe.evaluation.preview_seconds):
                reply = client.wrote(client.wait(future, "answering a preview"))
        except _TooLong:
            most = recipe.evaluation.preview_seconds
            at.run.log("warning", f"preview {place + 1} took longer than {most:g} s at step {at.step:,} and is passed over")
            continue
        except _Asked:
            return
        except EndpointLost:
            if not _elsewhere(at):
                raise
            at.run.log("warning", f"previews are passed over at step {at.step:,}: {recipe.evaluation.preview_endpoint} is gone")
            close(at)
            return
        except EngineError as error:
            at.run.log("warning", f"preview {place + 1} is passed over at step {at.step:,}: {error}")
            continue
        ended = time.monotonic()
        written += len(reply.sequences[0].tokens)
        text = cut(at.renderer.text(reply.sequences[0].tokens), recipe.stop)
        correct = exact_match(text, preview.expected) if preview.expected else None
        judged, right = judged + (correct is not None), right + bool(correct)
        at.run.sample(at.step, FIRST_POSITION + place, preview.prompt, preview.expected or None, text, correct)
    numbers = {"preview_tokens_per_second": written / max(1e-6, ended - began)} if written else {}
    if judged:
        numbers["preview_exact_match"] = right / judged
    if numbers:
        at.run.metrics(at.step, numbers)


def _elsewhere(at: Attempt) -> bool:
    """Whether they are answered at another endpoint than the run's."""
    named = at.recipe.evaluation.preview_endpoint
    return bool(named) and named != at.run.recipe.endpoint


def _place(at: Attempt, sampler: Any) -> tuple[Client, Any]:
    """Where they are answered, and a sampler of the present weights there. Raises EngineError."""
    if not _elsewhere(at):
        return at.client, sampler
    if at.preview_client is None:
        name, base_model = at.recipe.evaluation.preview_endpoint, at.run.recipe.base_model
        folder = models.resolve(base_model, weights=kind(name, at.run.owner).weights)
        at.run.stage(f"starting {name}, where previews are answered")
        server = start(name, base_model, folder, at.run.owner)
        server.ready(at.run.stage, at.client.poll)
        at.preview_client = Client(server, {"job": at.run.job_id}, poll=at.run.control)
        at.run.stage("learning")
    name = f"{at.run.job_id}-preview-{at.step:06d}-{at.run.attempt}"
    saved = at.desk.training.save_weights_for_sampler(name, ttl_seconds=_KEPT_S)
    path = at.client.wait(saved, "saving weights for previews").path
    return at.preview_client, at.preview_client.sampler(path=path)


@contextmanager
def _within(at: Attempt, client: Client, deadline: float) -> Iterator[None]:
    """Waits in here end with _TooLong at the deadline, and with _Asked once somebody asks to pause or stop."""
    usual, listening = client.poll, at.client.poll

    def poll() -> None:
        if at.run.control():
            raise _Asked
        if listening is not None:
            listening()
        if time.monotonic() > deadline:
            raise _TooLong

    client.poll = poll
    try:
        yield
    finally:
        client.poll = usual
    if time.monotonic() > deadline:
        raise _TooLong
