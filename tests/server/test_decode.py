"""Fast sampling gives what the plain sampler gives: same tokens, same log-probabilities, whoever joins or leaves meanwhile."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
import transformers

from engine.errors import ModelError
from engine.rendering import load_tokenizer
from engine.server import dense, slots
from engine.server.decode import Answer, Decoder, Request
from engine.server.draw import Draw
from engine.server.model import Adapter, BaseModel, LoraSpec
from engine.server.sampler import Row, SampleJob, Sampler, draw_token
from engine.server.slots import SlotBatch, together
from tests.server.harness import NANO, text_tokens


@pytest.fixture(scope="module")
def adapter(base: BaseModel) -> Adapter:
    return adapter_of(base, 3)


def adapter_of(base: BaseModel, seed: int, scale: float = 0.02) -> Adapter:
    """A frozen one that changes what the base says."""
    made, generator = base.new_adapter(LoraSpec(8), seed), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, b in made.pairs.values():
            b.copy_(torch.randn(b.shape, generator=generator) * scale)
    return made.frozen_copy()


def jobs(seed: int, count: int = 12, vocab: int = 264) -> list[SampleJob]:
    """Of all kinds, seeded or greedy, so that they can be repeated."""
    pick = random.Random(seed)
    return [
        SampleJob(
            prompt=[pick.randrange(8, vocab) for _ in range(pick.choice([1, 3, 12, 30]))],
            n=pick.choice([1, 1, 1, 3]),
            max_tokens=pick.choice([1, 8, 25]),
            temperature=pick.choice([0, 0, 0.7, 1.0, 2.0]),
            top_k=pick.choice([-1, -1, 1, 5, 10_000]),
            top_p=pick.choice([1, 1, 0.9, 0.3]),
            seed=i,
            stop_tokens=pick.choice([(), (1, 40, 50)]),
            prompt_logprobs=pick.random() < 0.3,
        )
        for i in range(count)
    ]


def assert_same(got: list[Answer], expected: list[Answer]) -> None:
    for (sequences, prompt), (plain_sequences, plain_prompt) in zip(got, expected, strict=True):
        assert [(tokens, stopped) for tokens, _, stopped in sequences] == [(tokens, stopped) for tokens, _, stopped in plain_sequences]
        for (_, logprobs, _), (_, plain_logprobs, _) in zip(sequences, plain_sequences, strict=True):
            assert logprobs == pytest.approx(plain_logprobs, abs=2e-4)
        assert (prompt is None) == (plain_prompt is None)
        if prompt is not None and plain_prompt is not None:
            assert math.isnan(prompt[0]) and prompt[1:] == pytest.approx(plain_prompt[1:], abs=2e-4)


class TestSameAsThePlainSampler:
    @pytest.mark.parametrize("path", ["merged", "shared", "general"])
    @pytest.mark.parametrize("adapted", [False, True])
    def test_all_kinds_of_requests(
        self, base: BaseModel, adapter: Adapter, path: str, adapted: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if path == "shared":
            monkeypatch.setattr(dense, "MERGED_PARAMETERS", 0)
        decoder = Decoder(base)
        assert decoder.dense is not None and decoder.dense.merges == (path != "shared")
        if path == "general":
            decoder.dense = None
        wanted, weights = jobs(1), adapter if adapted else None
        assert_same(decoder.sample(weights, wanted), Sampler(base).sample(weights, wanted))

    def test_stop_strings_and_full_contexts(self, base: BaseModel) -> None:
        tokenizer = load_tokenizer(NANO)
        spell = text_tokens("<|user|>Spell the word keyboard with dashes<|end|><|assistant|>")
        wanted = [
            SampleJob(spell, temperature=0, max_tokens=40, stop_strings=("-y-",)),
            SampleJob(spell, temperature=0, stop_tokens=base.eos_tokens),
            SampleJob([9] * 1020, temperature=0),
            SampleJob([9] * 1024, temperature=0, n=2),
        ]
        got = Decoder(base, tokenizer).sample(None, wanted)
        assert_same(got, Sampler(base, tokenizer).sample(None, wanted))
        assert tokenizer.decode(got[0][0][0][0]) == "k-e-y-" and len(got[2][0][0][0]) == 4 and got[3][0] == [([], [], False)] * 2

    def test_more_rows_than_a_batch_holds(self, base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
        wanted = [SampleJob([9, 10 + i], n=40, max_tokens=6, temperature=2.0, seed=i) for i in range(5)]
        expected = Sampler(base).sample(None, wanted)
        assert_same(Decoder(base).sample(None, wanted), expected)
        monkeypatch.setattr(slots, "_MATMUL_ROWS", 1)
        assert_same(Decoder(base).sample(None, wanted), expected)

    @pytest.mark.parametrize("columns", [1, 7, 64])
    def test_whatever_the_size_of_a_block(self, base: BaseModel, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(slots, "block_columns", lambda slots, device: columns)
        wanted = jobs(6)
        assert_same(Decoder(base).sample(None, wanted), Sampler(base).sample(None, wanted))

    def test_draws_are_those_of_the_plain_sampler(self) -> None:
        pick = torch.Generator().manual_seed(1)
        logits = torch.randn(64, 100, generator=pick) * 3
        kinds = [SampleJob([1], temperature=t, top_k=k, top_p=p, seed=1) for t in (0, 0.5, 3.0) for k in (-1, 1, 7) for p in (1, 0.8, 1e-9)]
        rows = [Row(kinds[i % len(kinds)], torch.Generator().manual_seed(i), 1, 0) for i in range(64)]
        _, tokens, logprobs = Draw(rows, "cpu", torch.Generator())(logits)
        for i, row in enumerate(rows):
            job = row.job
            alone = draw_token(logits[i], job.temperature, job.top_k, job.top_p, torch.Generator().manual_seed(i))
            assert tokens[i] == alone and logprobs[i] == pytest.approx(float(logits[i].log_softmax(-1)[alone]), abs=1e-5)

    def test_draws_without_a_seed_follow_the_distribution(self) -> None:
        odds = torch.tensor([0.5, 0.25, 0.125, 0.125])
        rows = [Row(SampleJob([1]), torch.Generator(), 1, 0)] * 20_000
        _, tokens, _ = Draw(rows, "cpu", torch.Generator().manual_seed(5))(odds.log().expand(20_000, -1))
        counts = torch.bincount(torch.tensor(tokens), minlength=4) / 20_000
        assert torch.allclose(counts, odds, atol=0.02)


class TestFamilies:
    def model(self, folder: Path, kind: str, **config) -> BaseModel:
        small = {"vocab_size": 80, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
        torch.manual_seed(0)
        settings = {**small, "max_position_embeddings": 128, "initializer_range": 0.3, "eos_token_id": 1, **config}
        model = getattr(transformers, f"{kind}ForCausalLM")(getattr(transformers, f"{kind}Config")(**settings))
        model.save_pretrained(folder)
        return BaseModel(folder, "cpu", "float32")

    @pytest.mark.parametrize("merged", [True, False])
    @pytest.mark.parametrize(
        ("kind", "config"),
        [
            ("Llama", {"num_key_value_heads": 2, "tie_word_embeddings": True}),
            (
                "Llama",
                {"attention_bias": True, "mlp_bias": True, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            ),
            ("Qwen2", {"num_key_value_heads": 1}),
            ("Qwen3", {"num_key_value_heads": 2, "head_dim": 16}),
            ("Mistral", {"num_key_value_heads": 2, "sliding_window": None}),
        ],
    )
    def test_dense_decoders_take_the_fast_forward(
        self, tmp_path: Path, kind: str, config: dict, merged: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dense, "MERGED_PARAMETERS", 10**9 if merged else 0)
        base = self.model(tmp_path, kind, **config)
        decoder, adapter = Decoder(base), adapter_of(base, 1, scale=0.05)
        assert decoder.dense is not None
        for weights in (None, adapter):
            wanted = jobs(2, 8, vocab=80)
            assert_same(decoder.sample(weights, wanted), Sampler(base).sample(weights, wanted))

    @pytest.mark.parametrize(
        ("kind", "config"),
        [
            ("Granite", {"residual_multiplier": 0.5, "num_key_value_heads": 4}),
            ("Mistral", {"num_key_value_heads": 2, "sliding_window": 8}),
            ("GPTNeoX", {}),
            ("Llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}}),
        ],
    )
    def test_others_take_the_forward_of_transformers(self, tmp_path: Path, kind: str, config: dict) -> None:
        base = self.model(tmp_path, kind, **config)
        decoder = Decoder(base)
        assert decoder.dense is None
        wanted = jobs(3, 8, vocab=80)
        assert_same(decoder.sample(None, wanted), Sampler(base).sample(None, wanted))

    def test_the_check_on_loading_tells_a_wrong_forward(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Granite has Llama's parts under Llama's names, and multipliers besides: only its logits give it away."""
        base = self.model(tmp_path, "Granite", residual_multiplier=0.5, num_key_value_heads=4)
        assert dense.looks_dense(base.model) and dense.DenseModel.of(base) is None


class TestJoiningAndLeaving:
    def run(self, base: BaseModel, arrivals: dict[int, list[SampleJob]], general: bool = False) -> tuple[list[Answer], list[int]]:
        """Requests that arrive at those steps. -> answers in order, and the order in which they came."""
        decoder = Decoder(base)
        if general:
            decoder.dense = None
        found: dict[int, Answer] = {}
        number = step = 0
        while decoder.busy or step <= max(arrivals):
            for job in arrivals.get(step, []):
                decoder.add(None, Request(job, lambda outcome, i=number: found.__setitem__(i, outcome)))
                number += 1
            if decoder.busy:
                decoder.advance(0.0)
            step += 1
        return [found[i] for i in range(number)], list(found)

    @pytest.mark.parametrize(("general", "columns"), [(False, 1024), (False, 16), (True, 0)])
    def test_at_any_step(self, base: BaseModel, general: bool, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(slots, "block_columns", lambda slots, device: columns)
        pick = random.Random(4)
        arrivals = {
            step: [
                SampleJob(
                    [pick.randrange(8, 264) for _ in range(pick.choice([2, 20, 90]))],
                    n=pick.choice([1, 2]),
                    max_tokens=pick.choice([1, 5, 30]),
                    temperature=1.5,
                    seed=step,
                )
            ]
            for step in (0, 1, 3, 4, 10, 11, 20, 40)
        }
        wanted = [job for step in sorted(arrivals) for job in arrivals[step]]
        got, _ = self.run(base, arrivals, general)
        assert_same(got, Sampler(base).sample(None, wanted))

    def test_a_stream_that_never_pauses_keeps_its_cache_small(self, base: BaseModel) -> None:
        arrivals = {step: [SampleJob([9, 10, 11 + step % 50], max_tokens=12, temperature=1.0, seed=step)] for step in range(0, 400, 5)}
        wanted = [arrivals[step][0] for step in sorted(arrivals)]
        widths: list[int] = []
        original = SlotBatch.step

        def noting(batch: SlotBatch, tokens: torch.Tensor) -> torch.Tensor:
            logits = original(batch, tokens)
            widths.append(batch._width)
            return logits

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SlotBatch, "step", noting)
            patch.setattr(slots, "block_columns", lambda slots, device: 16)
            got, _ = self.run(base, arrivals)
        assert_same(got, Sampler(base).sample(None, wanted))
        assert max(widths) < 48 and len(widths) > 390

    def test_a_short_answer_overtakes_a_long_one(self, base: BaseModel) -> None:
        long, short = SampleJob([9, 10], max_tokens=200, temperature=0), SampleJob([9, 11], max_tokens=3, temperature=0)
        got, order = self.run(base, {0: [long], 5: [short]})
        assert order == [1, 0] and len(got[0][0][0][0]) == 200

    def test_other_weights_take_turns(self, base: BaseModel, adapter: Adapter) -> None:
        decoder, order = Decoder(base), []
        adapters = [None, adapter, *(adapter_of(base, seed) for seed in range(10, 20))]
        expected = [Sampler(base).sample(weights, [SampleJob([9, 10], max_tokens=8, temperature=0)])[0] for weights in adapters]
        answers: dict[int, Answer] = {}

        def add(i: int, weights: Adapter | None, tokens: int) -> None:
            def done(outcome: Answer) -> None:
                order.append(i)
                answers[i] = outcome

            decoder.add(weights, Request(SampleJob([9, 10], max_tokens=tokens, temperature=0), done))

        add(-1, adapter_of(base, 99), 300)
        for i, weights in enumerate(adapters):
            add(i, weights, 8)
        while decoder.busy:
            decoder.advance(0.0)
        assert order[-1] == -1 and sorted(order[:-1]) == list(range(12))
        assert_same([answers[i] for i in range(12)], expected)

    def test_each_distinct_prompt_is_computed_once(self) -> None:
        assert together([[1, 2], [3], [1, 2], (1, 2)]) == ([(1, 2), (3,)], [0, 1, 0, 0])

    def test_tokens_are_told_as_they_come_and_an_abandoned_answer_ends(self, base: BaseModel) -> None:
        told: list[tuple[int, int, float]] = []
        job = SampleJob([9, 10], n=2, max_tokens=50, temperature=1.0, seed=1, on_token=lambda *news: told.append(news))
        plain = Sampler(base).sample(None, [SampleJob([9, 10], n=2, max_tokens=50, temperature=1.0, seed=1)])[0][0]
        decoder = Decoder(base)
        ((sequences, _),) = decoder.sample(None, [job])
        for position in (0, 1):
            assert [token for which, token, _ in told if which == position] == plain[position][0] == sequences[position][0]
        told.clear()
        job.abandoned = lambda: len(told) >= 10
        stayed = SampleJob([9, 10], max_tokens=50, temperature=0)
        (left, _), (kept, _) = decoder.sample(None, [job, stayed])
        assert len(left[0][0]) < 10 and left[0][0] == plain[0][0][: len(left[0][0])]
        assert len(kept[0][0]) == 50


class TestWeights:
    def test_training_goes_on_and_a_snapshot_stays(self, base: BaseModel) -> None:
        """Merged weights are kept for snapshots only, never for an adapter that still changes."""
        decoder, wanted = Decoder(base), [SampleJob([9, 10, 11], max_tokens=20, temperature=0)]
        trained = base.new_adapter(LoraSpec(8), 5)
        before = decoder.sample(trained, wanted)
        snapshot = trained.frozen_copy()
        with torch.no_grad():
            for _, b in trained.pairs.values():
                b.normal_(0, 0.05)
        assert_same(decoder.sample(snapshot, wanted), before)
        assert_same(decoder.sample(trained, wanted), Sampler(base).sample(trained, wanted))
        assert decoder.sample(trained, wanted) != before

    def test_few_merged_copies_are_kept(self, base: BaseModel) -> None:
        decoder = Decoder(base)
        for seed in range(8):
            decoder.sample(adapter_of(base, seed), [SampleJob([9], max_tokens=1, temperature=0)])
        assert decoder.dense is not None and len(decoder.dense._kept) == dense.MERGED_KEPT

    def test_diverged_weights_are_an_error_and_nobody_elses(self, base: BaseModel) -> None:
        broken = adapter_of(base, 1, scale=math.nan)
        decoder, good = Decoder(base), SampleJob([9, 10], max_tokens=5, temperature=0)
        with pytest.raises(ModelError, match="diverged"):
            decoder.sample(broken, [good])
        assert not decoder.busy
        assert_same(decoder.sample(None, [good]), Sampler(base).sample(None, [good]))
