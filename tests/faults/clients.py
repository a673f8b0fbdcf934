"""Clients in a process of their own, with the official SDK: `python -m tests.faults.clients URL KEY WHAT ...`.

    train FIRST COUNT STEPS     COUNT clients at once, numbered from FIRST, each with its own run, once a line comes on stdin;
                                prints their losses, their seconds, and the statuses from 500 that they met
    alone FIRST COUNT STEPS     the same, one after the other
    vanish training|sampling|chunks   makes the server work, says so, and waits to be killed; `chunks` kills itself

Knows nothing of the tests that start it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

import httpx
import tinker
from tinker import types

from tests.server.harness import batch

RANKS = (4, 8)
ADAM = types.AdamParams(learning_rate=2e-3, beta1=0.9, beta2=0.95, eps=1e-8)


failures: list[int] = []


def count_failures() -> None:
    """The SDK tries again after a 5xx and says nothing."""
    send = httpx.AsyncClient.send

    async def counted(self: httpx.AsyncClient, *arguments: Any, **more: Any) -> httpx.Response:
        reply = await send(self, *arguments, **more)
        if reply.status_code >= 500:
            failures.append(reply.status_code)
        return reply

    httpx.AsyncClient.send = counted


def train(service: tinker.ServiceClient, number: int, steps: int) -> dict[str, Any]:
    """One run; its data, rank and seed are the number's."""
    training = service.create_lora_training_client("nano", rank=RANKS[number % len(RANKS)], seed=number).result()
    losses, began = [], time.monotonic()
    for step in range(steps):
        gradients = training.forward_backward(batch(number + step, 2 + number % 3), "cross_entropy")
        update = training.optim_step(ADAM)
        losses.append(gradients.result(timeout=120).metrics["loss:sum"])
        update.result(timeout=120)
    return {"losses": losses, "seconds": time.monotonic() - began}


def train_many(url: str, key: str, first: int, count: int, steps: int, *, together: bool) -> dict[int, Any]:
    """Each client has a session; those that train together have a thread each."""
    found: dict[int, Any] = {}
    services = [tinker.ServiceClient(base_url=url, api_key=key) for _ in range(count)]
    for service in services:
        service.holder  # noqa: B018  the session is created on first use
    batch(0, 1)  # loads the tokenizer, which transformers can't bear from several threads at once
    if together:
        print("ready", flush=True)
        sys.stdin.readline()

    def one(place: int) -> None:
        try:
            found[first + place] = train(services[place], first + place, steps)
        except Exception as error:
            found[first + place] = {"error": repr(error)}

    threads = [threading.Thread(target=one, args=(place,)) for place in range(count)]
    for thread in threads:
        thread.start()
        if not together:
            thread.join()
    for thread in threads:
        thread.join()
    for service in services:
        service.close("success").result(timeout=20)
    return found


def vanish(url: str, key: str, how: str) -> None:
    """Never returns."""
    service = tinker.ServiceClient(base_url=url, api_key=key)
    kept: list[Any] = []
    if how == "sampling":
        sampler = service.create_sampling_client(base_model="nano").result()
        # Without end marks each row goes on to the end of the context: minutes of work.
        endless = types.SamplingParams(temperature=1.0, stop=[])
        kept = [sampler.sample(types.ModelInput.from_ints([5, 6, 7]), num_samples=1000, sampling_params=endless) for _ in range(4)]
    else:
        training = service.create_lora_training_client("nano", rank=8, seed=99).result()
        if how == "chunks":
            _die_before_the_first_chunk()
            training.forward_backward(batch(0, 2500), "cross_entropy").result()
        data = batch(0, 48)
        for _ in range(500):
            kept += [training.forward_backward(data, "cross_entropy"), training.optim_step(ADAM)]
        kept[0].result()
    print("at work", flush=True)
    time.sleep(600)


def _die_before_the_first_chunk() -> None:
    """The SDK posts a large batch's first chunk last: the others wait on the server for a number that will never come."""
    submit = tinker.resources.training.AsyncTrainingResource.forward_backward

    async def forward_backward(self: Any, *, request: Any, **more: Any) -> Any:
        if request.seq_id == 1:
            print("at work", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return await submit(self, request=request, **more)

    tinker.resources.training.AsyncTrainingResource.forward_backward = forward_backward


def main(arguments: list[str]) -> None:
    url, key, what, *rest = arguments
    if what == "vanish":
        vanish(url, key, rest[0])
    count_failures()
    found = train_many(url, key, *map(int, rest), together=what == "train")
    print(json.dumps({"runs": found, "failures": failures}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
