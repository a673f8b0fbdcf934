"""Samples share a budget of memory: those that it has no room for wait, and come out as if there had been room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.errors import DataError, EngineError
from engine.server import dense, memory
from engine.server.cache_room import CacheRoom, measured_bytes_a_token
from engine.server.decode import Decoder, Request
from engine.server.model import BaseModel
from engine.server.sampler import SampleJob, Sampler
from engine.server.slots import GeneralBatch, SlotBatch
from tests.server.families import make
from tests.server.test_decode import adapter_of, assert_same, jobs

pytestmark = pytest.mark.slow

LONG = [SampleJob(prompt=[20 + i] * (5 + 3 * i), n=2, max_tokens=60 + 5 * i, temperature=0.8, seed=i, stop_tokens=()) for i in range(8)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def decoder_of(base: BaseModel, path: str, rows: float) -> tuple[Decoder, list[int]]:
    """With room for so many rows of 128 tokens; and what was in use after each step."""
    decoder = Decoder(base)
    if path == "general":
        decoder.dense = None
        decoder.caches = CacheRoom(base, measured_bytes_a_token(base))
    caches = decoder.caches
    caches.whole = caches.bytes = int(rows * 128 * caches.bytes_a_token)
    used: list[int] = []
    return decoder, used


def held(batch: SlotBatch | GeneralBatch) -> int:
    """Bytes of keys and values, counted one by one."""
    if isinstance(batch, SlotBatch):
        return sum(layer.nbytes for block in batch._blocks for layer in block)
    layers = batch._cache.layers if batch._cache is not None else []
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers)


def watch(monkeypatch: pytest.MonkeyPatch, decoder: Decoder, used: list[int]) -> None:
    advance = decoder.advance

    def noted(seconds: float) -> None:
        advance(0)
        used.append(sum(held(running.batch) for lane in decoder._turns for running in lane.running))

    monkeypatch.setattr(decoder, "advance", noted)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nano's short texts need several."""
    from engine.server import slots

    monkeypatch.setattr(slots, "block_columns", lambda slots, device: 16)


@pytest.mark.parametrize("path", ["slots", "general"])
@pytest.mark.parametrize("rows", [1.5, 4, 9])
def test_the_same_comes_out_however_little_room_there_is(base: BaseModel, path: str, rows: float, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Sampler(base).sample(None, LONG)
    decoder, used = decoder_of(base, path, rows)
    watch(monkeypatch, decoder, used)
    assert_same(decoder.sample(None, LONG), expected)
    # One alone may always go on, to the end of its block.
    assert 0 < max(used) <= max(decoder.caches.bytes, 144 * decoder.caches.bytes_a_token)


def test_weights_wait_for_each_others_room(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    adapters = [None, adapter_of(base, 1), adapter_of(base, 2)]
    expected = [Sampler(base).sample(adapter, LONG[:4]) for adapter in adapters]
    decoder, used = decoder_of(base, "slots", 3)
    found: dict[tuple[int, int], object] = {}
    for i, job in enumerate(LONG[:4]):
        for j, adapter in enumerate(adapters):
            decoder.add(adapter, Request(job, lambda outcome, at=(j, i): found.__setitem__(at, outcome)))
    watch(monkeypatch, decoder, used)
    for _ in range(20_000):
        if not decoder.busy:
            break
        decoder.advance(0)
    assert not decoder.busy and decoder.hungry is None and len(found) == 12
    for j in range(3):
        assert_same([found[j, i] for i in range(4)], expected[j])


def test_a_request_that_goes_leaves_its_place_in_the_queue(base: BaseModel) -> None:
    """The one that waits for room is abandoned: the others take newcomers in again."""
    decoder, _ = decoder_of(base, "slots", 1.2)
    gone, found = [False], []
    decoder.add(None, Request(LONG[0], found.append))
    decoder.add(adapter_of(base, 1), Request(LONG[1], found.append, lambda: gone[0]))
    for _ in range(10):
        decoder.advance(0)
    gone[0] = True
    decoder.add(None, Request(LONG[2], found.append))
    for _ in range(5000):
        if not decoder.busy:
            break
        decoder.advance(0)
    assert len(found) == 3 and sum(isinstance(outcome, Exception) for outcome in found) == 1


@pytest.mark.parametrize("path", ["slots", "general"])
def test_what_runs_out_while_sampling_goes_on_with_fewer(base: BaseModel, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Sampler(base).sample(None, LONG)
    decoder, _ = decoder_of(base, path, 100)
    kind = SlotBatch if path == "slots" else GeneralBatch
    step, failures = kind.step, []

    def failing(batch: SlotBatch | GeneralBatch, tokens: torch.Tensor) -> torch.Tensor:
        if len(batch) > 3:
            failures.append(len(batch))
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes.")
        return step(batch, tokens)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "step", failing)
        assert_same(decoder.sample(None, LONG), expected)
    assert 1 <= len(failures) <= 4 and failures == sorted(failures, reverse=True)
    for seed in range(8):
        decoder.sample(None, jobs(seed, count=1))
    assert decoder.caches.bytes == decoder.caches.whole and decoder.caches.rows == 128, "what memory took comes back"


def test_one_that_fits_in_no_way_ends_alone(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, _ = decoder_of(base, "slots", 100)
    join = SlotBatch.join

    def failing(batch: SlotBatch, prompts: list[list[int]]) -> torch.Tensor:
        if any(len(prompt) > 50 for prompt in prompts):
            raise MemoryError
        return join(batch, prompts)

    monkeypatch.setattr(SlotBatch, "join", failing)
    outcomes: dict[str, object] = {}
    for name, job in (("short", LONG[0]), ("long", SampleJob(prompt=[9] * 60, max_tokens=3)), ("other", LONG[1])):
        decoder.add(None, Request(job, lambda outcome, name=name: outcomes.__setitem__(name, outcome)))
    for _ in range(5000):
        if not decoder.busy:
            break
        decoder.advance(0)
    assert isinstance(outcomes["long"], EngineError) and "after 60 tokens" in str(outcomes["long"]) and not decoder.busy
    assert_same([outcomes["short"], outcomes["other"]], Sampler(base).sample(None, LONG[:2]))


def test_what_could_never_fit_is_refused_beforehand(base: BaseModel) -> None:
    decoder, _ = decoder_of(base, "slots", 1)
    assert decoder.caches.most_tokens == 128
    decoder.caches.check(SampleJob(prompt=[9] * 100, max_tokens=28))
    for job in (SampleJob(prompt=[9] * 100, max_tokens=29), SampleJob(prompt=[9] * 128)):
        with pytest.raises(DataError, match="Stay within 128 tokens") as caught:
            decoder.caches.check(job)
        assert "--cache-share" in str(caught.value) and caught.value.where == "max_tokens"
    unbounded = SampleJob(prompt=[9] * 100, temperature=0)
    decoder.caches.check(unbounded)
    [(sequences, _)] = decoder.sample(None, [unbounded])
    assert len(sequences[0][0]) == 28, "without max_tokens it ends where the room does"


@pytest.mark.parametrize("family", ["gpt_neox", "qwen3_moe", "gemma2", "deepseek_v3", "lfm2", "jamba"])
def test_a_token_of_any_family_is_measured(tmp_path: Path, family: str) -> None:
    base = BaseModel(make(tmp_path, family), "cpu", "float32")
    found = measured_bytes_a_token(base)
    by_hand = {"gpt_neox": 2 * 2 * 32 * 4, "qwen3_moe": 2 * 2 * 2 * 8 * 4}  # layers x (keys, values) x their width x float32
    assert found == by_hand.get(family, found) and found > 0


def test_slots_and_the_models_own_cache_count_alike(base: BaseModel) -> None:
    decoder = Decoder(base)
    assert decoder.dense is not None and measured_bytes_a_token(base) == decoder.dense.bytes_a_token


def test_merged_copies_have_a_budget(base: BaseModel) -> None:
    """In bytes, beside the number that are kept; without room the base's own modules do the same."""
    adapters = [adapter_of(base, seed) for seed in range(3)]
    expected = [Sampler(base).sample(adapter, LONG[:2]) for adapter in adapters]
    for copies, kept in ((2.5, 2), (0.5, 0)):
        decoder = Decoder(base)
        assert decoder.dense is not None and decoder.dense.merges
        decoder.dense.merged_room = int(copies * base.parameters * 4)
        for adapter, answer in zip(adapters, expected, strict=True):
            assert_same(decoder.sample(adapter, LONG[:2]), answer)
        assert len(decoder.dense._kept) == kept
    assert dense.MERGED_SHARE < 0.5


def test_log_probabilities_of_a_long_text_are_asked_for_first(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "SMALL", 0)
    monkeypatch.setattr(memory, "free_memory", lambda device: 100 * base.vocab_size * memory.BYTES_A_LOGIT)
    assert len(Sampler(base).prompt_logprobs([9] * 100)) == 100
    with pytest.raises(EngineError, match="101 tokens"):
        Sampler(base).prompt_logprobs([9] * 101)
