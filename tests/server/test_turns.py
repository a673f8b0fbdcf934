"""Jobs and chats on one server at once: none waits for the other's end, and neither changes what the other gives."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import tinker
from safetensors.torch import load_file
from tinker import types

from tests.server.harness import RunningServer, batch, text_tokens

PROMPT = types.ModelInput.from_ints(text_tokens("<|user|>Spell apple<|end|><|assistant|>"))
GREEDY = types.SamplingParams(max_tokens=12, temperature=0.0, stop=[])
ADAM = types.AdamParams(learning_rate=1e-3, beta1=0.9, beta2=0.95, eps=1e-8)


@contextmanager
def meanwhile(work) -> Iterator[list[float]]:
    """`work()` again and again in a thread. -> when each time was over."""
    over, times = threading.Event(), []

    def run() -> None:
        while not over.is_set():
            work()
            times.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield times
    finally:
        over.set()
        thread.join(timeout=60)


def pipelined(client: tinker.TrainingClient, rows: int):
    """A job as the engine runs it: the next step is submitted before the last one's result is awaited."""
    waiting: list = []

    def work() -> None:
        waiting.append(client.forward_backward(batch(0, 12) * (rows // 12), "cross_entropy"))
        waiting.append(client.optim_step(ADAM))
        while len(waiting) > 2:
            waiting.pop(0).result(timeout=60)

    return work


def test_a_chat_starts_while_a_job_trains(service: tinker.ServiceClient) -> None:
    training = service.create_lora_training_client("nano", rank=32).result(timeout=60)
    sampler = service.create_sampling_client(base_model="nano").result(timeout=60)
    first = types.SamplingParams(max_tokens=1, temperature=0.0)
    sampler.sample(PROMPT, 1, first).result(timeout=60)
    waits = []
    with meanwhile(pipelined(training, 36)) as steps:
        while len(steps) < 3:
            time.sleep(0.01)
        for _ in range(9):
            started = time.monotonic()
            sampler.sample(PROMPT, 1, first).result(timeout=60)
            waits.append(time.monotonic() - started)
    # A chat waits for the step that is on, whatever the machine makes of a step; never for those that are queued behind it.
    step = statistics.median(later - earlier for earlier, later in itertools.pairwise(steps))
    assert statistics.median(waits) < max(0.5, 2 * step), (waits, step)


@pytest.mark.slow
def test_a_job_goes_on_and_chats_start_while_somebody_samples_long(service: tinker.ServiceClient) -> None:
    training = service.create_lora_training_client("nano", rank=8).result(timeout=60)
    sampler = service.create_sampling_client(base_model="nano").result(timeout=60)
    tuned = training.save_weights_and_get_sampling_client().result(timeout=60)
    alone = list(tuned.sample(PROMPT, 1, GREEDY).result(timeout=60).sequences[0].tokens)
    ended = []
    long = sampler.sample(PROMPT, 16, types.SamplingParams(max_tokens=1000, temperature=1.0, stop=[]))
    watcher = threading.Thread(target=lambda: (long.result(timeout=120), ended.append(time.monotonic())))
    watcher.start()
    with meanwhile(pipelined(training, 12)) as steps:
        same, other = (client.sample(PROMPT, 1, GREEDY).result(timeout=60).sequences[0].tokens for client in (sampler, tuned))
        short_ended = time.monotonic()
        while not ended:
            time.sleep(0.02)
    watcher.join()
    assert list(other) == alone and len(same) == 12
    assert short_ended < ended[0] and len([moment for moment in steps if moment < ended[0]]) >= 3
    assert all(len(sequence.tokens) == 1000 - max(0, len(PROMPT.to_ints()) + 1000 - 1024) for sequence in long.result().sequences)


def test_sampling_leaves_training_as_it_is(server: RunningServer, service: tinker.ServiceClient) -> None:
    """The same updates, bit for bit, whether or not somebody samples from base, snapshot and checkpoint between them."""

    def trained(busy: bool) -> dict:
        client = service.create_lora_training_client("nano", rank=4, seed=8).result(timeout=60)
        samplers = [service.create_sampling_client(base_model="nano").result(timeout=60)] if busy else []
        for start in (0, 6, 3):
            futures = [sampler.sample(PROMPT, 4, types.SamplingParams(max_tokens=30, temperature=1.0)) for sampler in samplers]
            client.forward_backward(batch(start), "cross_entropy")
            client.optim_step(ADAM).result(timeout=60)
            for future in futures:
                future.result(timeout=60)
            if busy:
                samplers.append(client.save_weights_and_get_sampling_client().result(timeout=60))
        path = client.save_state("w").result(timeout=60).path
        return load_file(server.checkpoint_folder(path) / "adapter_model.safetensors")

    quiet, busy = trained(False), trained(True)
    assert all(quiet[name].equal(busy[name]) for name in quiet)


def test_the_reference_server_gives_the_same(tmp_path, service: tinker.ServiceClient) -> None:
    server = RunningServer(tmp_path, "--reference")
    plain_service = server.client()
    try:
        plain, fast = (client.create_sampling_client(base_model="nano").result(timeout=60) for client in (plain_service, service))
        for params in (GREEDY, types.SamplingParams(max_tokens=20, temperature=1.3, seed=4, top_k=20, top_p=0.9)):
            expected, got = (client.sample(PROMPT, 3, params).result(timeout=60).sequences for client in (plain, fast))
            assert [list(sequence.tokens) for sequence in got] == [list(sequence.tokens) for sequence in expected]
    finally:
        plain_service.close("success").result(timeout=20)
        server.stop()
