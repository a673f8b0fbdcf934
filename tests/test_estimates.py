"""Golden figures of the estimates, worked out by hand, and the warnings."""

from __future__ import annotations

import json

import pytest

from engine import advice, estimates, models, tokens_ahead
from engine.estimates import ModelSize, Workload
from engine.knowledge import pricing
from engine.knowledge.pricing import Price
from engine.recipe import Recipe

LOAD = Workload(rows=1000, mean_length=40, longest=100, batch_size=32, steps=100, proof_answers=600, answer_length=10)
SPEEDS = {"per_core": [[1e6, 2000], [1e8, 20]], "start": 10, "sampling": 3}
FIGURES = {"train": 500, "held_out": 50, "truncated": 0, "without_any_answer": 0, "max_length": 1024}
RECOMMENDED = {"training.learning_rate": {"value": 5e-4}, "lora.rank": {"value": 32}}


def test_the_size_of_nano() -> None:
    config = json.loads((models.nano_folder() / "config.json").read_text())
    # 264 x 128 embeddings; a layer: 4 x 128 x 128 of attention and 3 x 128 x 384 of feed-forward.
    assert estimates.model_size(config) == ModelSize(264 * 128 + 6 * (4 * 128 * 128 + 3 * 128 * 384), 6, 128, 264, 384)


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        # Qwen3-0.6B and Llama-3.2-1B, as their cards count them: 0.6 and 1.24 billion; GPT-2: 124 million.
        (
            {"hidden_size": 1024, "num_hidden_layers": 28, "vocab_size": 151936, "num_attention_heads": 16, "num_key_value_heads": 8}
            | {"head_dim": 128, "intermediate_size": 3072, "hidden_act": "silu", "tie_word_embeddings": True},
            596,
        ),
        (
            {"hidden_size": 2048, "num_hidden_layers": 16, "vocab_size": 128256, "num_attention_heads": 32, "num_key_value_heads": 8}
            | {"head_dim": 64, "intermediate_size": 8192, "hidden_act": "silu", "tie_word_embeddings": True},
            1236,
        ),
        ({"n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50257, "activation_function": "gelu_new"}, 124),
    ],
)
def test_the_size_of_known_models(config: dict, millions: float) -> None:
    size = estimates.model_size(config)
    assert size is not None and size.parameters / 1e6 == pytest.approx(millions, rel=0.01)


def test_a_config_that_says_too_little() -> None:
    assert estimates.model_size({"model_type": "odd"}) is None


def test_speed_by_the_table() -> None:
    assert estimates.table_speed(1_000_000, 2, SPEEDS) == 4000
    assert estimates.table_speed(10_000_000, 1, SPEEDS) == pytest.approx(200)  # half-way in logarithms
    assert estimates.table_speed(200_000_000, 1, SPEEDS) == pytest.approx(10)


def test_time() -> None:
    found = estimates.time(LOAD, 1000, "measured", SPEEDS)
    # 100 x 32 x 40 = 128,000 tokens: 128 s; 2 x 600 x 10 x 3 = 36,000: 36 s; 10 s to start.
    assert found.value == pytest.approx(174) and found.size == "small" and found.text == "about 2 min 50 s"
    assert estimates.time(LOAD, 100, "measured", SPEEDS).size == "moderate"
    assert estimates.time(LOAD, 10, "measured", SPEEDS).size == "large"
    assert "128,000 tokens" in found.assumptions[0] and "measured" in found.assumptions[1]


def test_memory() -> None:
    model = ModelSize(1_000_000, 2, 100, 1000, 400)
    # A layer: 4 x 2 x 100 of attention, 3 x 500 of feed-forward, times rank 8, times 2 layers.
    adapter = estimates.adapter_parameters(model, 8)
    assert adapter == 8 * 2 * (800 + 1500)
    row = 100 * (2 * 100 * 4 + 12 * 400 * 4) + 100 * 1000 * 8
    found = estimates.memory(model, LOAD, int(2e9), full=False, trained=adapter)
    assert found.value == 4e6 + adapter * 16 + row + 600e6
    assert found.size == "small"
    # 32 x 40 tokens at once, two layers of 9 x 100 + 3 x 400 numbers each; 6 bytes more a weight.
    usual = 600e6 + 4e6 + adapter * 16 + 32 * 40 * 2 * (900 + 1200) * 4 + 6e6
    assert found.text == f"about {usual / 1e6:.0f} MB, at least {found.value / 1e6:.0f} MB, of 2 GB free"
    assert estimates.memory(model, LOAD, int(5e8), full=True, trained=10**6).size == "large"
    assert "all weights" in estimates.memory(model, LOAD, int(5e8), full=True, trained=10**6).assumptions[1]


def test_money() -> None:
    price = Price("cloud", "a model", prefill=1, sample=5, train=10, as_of="2026-01-02", source="a list", note="No tax.")
    # 2 million read, a million written, 0.128 million learned from: 2 + 5 + 1.28.
    found = estimates.money({"prefill": 2_000_000, "sample": 1_000_000, "train": 128_000}, price)
    assert found is not None and found.value == pytest.approx(8.28) and (found.text, found.size) == ("about $8.28", "moderate")
    assert found.assumptions[0] == "Tokens: 2,000,000 read, 1,000,000 written, 128,000 learned from"
    assert "2026-01-02" in found.assumptions[1] and found.assumptions[2] == "No tax."
    assert estimates.money({}, None) is None
    here = estimates.money({"train": 1e9}, pricing.find("local", "nano"))
    assert here is not None and (here.value, here.text, here.size) == (0, "nothing", "small")


def test_what_a_list_price_comes_to() -> None:
    """1,000 rows of 500 tokens, gone through 3 times, are 1.5 million tokens: worked out by hand from the list."""
    tokens = {"train": 1_500_000}
    for model, cost in (("openai/gpt-oss-20b", 0.594), ("Qwen/Qwen3-8B", 0.66), ("moonshotai/Kimi-K2.6", 7.26)):
        price = pricing.find("tinker", model)
        assert price is not None and price.dollars(tokens) == pytest.approx(cost)


ROWS = {"train": 100, "epoch": 100, "held_out": 10, "skills": 50, "mean": 30.0, "answer_mean": 10.0, "shape": "answers"}
QUIET = {"eval_every": 0, "samples_every": 0, "proof": False}


@pytest.mark.parametrize(
    ("changes", "prefill", "sample", "train"),
    [
        # 20 updates of 8 rows of 30 tokens; the held-out rows are measured once.
        ({}, 300, 0, 4800),
        # Every 5th step and at the start: 5 times 10 rows of 30 tokens; 4 prompts of 20 tokens at 0, 10 and 20, 10 tokens answered.
        ({"evaluation": {**QUIET, "eval_every": 5, "samples_every": 10, "samples": 4}}, 1500 + 240, 120, 4800),
        # 10 held-out and 20 skill prompts, twice: 60 of 20 tokens, 20 rows of 30; answers of up to 16 before, 10 after.
        ({"evaluation": {**QUIET, "proof": True, "skills_max": 20, "max_new_tokens": 16}}, 300 + 1200 + 600, 30 * 26, 4800),
        # Pairs: each is read once more than it is learned from, and once for the reference (100 of them).
        ({"method": "dpo"}, 300 + 4800 + 3000, 0, 4800),
    ],
)
def test_tokens_ahead(changes: dict, prefill: int, sample: int, train: int) -> None:
    base = {"data": {"demo": "piglatin"}, "training": {"steps": 20, "batch_size": 8}, "evaluation": QUIET}
    method = {"method": changes.get("method", "sft")}
    recipe = Recipe.make({**base, **{name: value for name, value in changes.items() if name != "method"}}).model_copy(update=method)
    assert dict(tokens_ahead.expect(recipe, ROWS)) == {k: v for k, v in {"prefill": prefill, "sample": sample, "train": train}.items() if v}


def test_rollouts_are_counted_at_their_longest() -> None:
    values = {"data": {"demo": "piglatin"}, "training": {"steps": 2, "batch_size": 4}, "evaluation": QUIET}
    recipe = Recipe.make({**values, "rl": {"group_size": 8, "max_new_tokens": 12, "kl": 0.1}}).model_copy(update={"method": "rl"})
    # 8 prompts of 20 tokens, 64 answers of up to 12; each whole answer is learned from, and read by the reference.
    assert dict(tokens_ahead.learning(recipe, ROWS, 2)) == {"prefill": 8 * 20 + 64 * 32, "sample": 64 * 12, "train": 64 * 32}


def test_limits_are_spoken_of() -> None:
    recipe = Recipe.make({"data": {"demo": "piglatin"}, "budget": {"max_dollars": 0.5, "max_tokens": 1000}})
    price = Price("cloud", "m", 1, 1, 1)
    told = advice.limits(recipe, {"train": 2_000_000}, price)
    assert [concern.field for concern in told] == ["budget.max_dollars", "budget.max_tokens"] and "$2.00" in told[0].text
    assert advice.limits(recipe, {"train": 900}, price) == []
    assert "isn't known" in advice.limits(recipe, {"train": 900}, None)[0].text


@pytest.mark.parametrize(
    ("changes", "figures", "said"),
    [
        ({}, {}, ""),
        ({}, {"train": 20}, "only 20 examples"),
        ({}, {"held_out": 0}, "nothing can be proven"),
        ({"training": {"learning_rate": 5e-3}}, {}, "10 times what suits this model"),
        ({"training": {"learning_rate": 1e-5}}, {}, "less than a tenth"),
        ({}, {"truncated": 7}, "7 examples are longer than 1,024 tokens"),
        ({}, {"without_any_answer": 3}, "they teach nothing"),
        ({"lora": {"rank": 256}}, {}, "far more than 500 examples fill"),
        ({"lora": {"rank": 512}}, {"hidden": 128}, "larger than the model's width (128)"),
    ],
)
def test_warnings(changes: dict, figures: dict, said: str) -> None:
    hidden = figures.get("hidden", 2048)
    found = advice.warnings(Recipe.make(changes), {**FIGURES, **figures}, RECOMMENDED, 10, hidden, None, 10**9)
    assert len(found) == bool(said)
    assert all(said in concern.text and concern.action for concern in found)


def test_what_stops_a_run_comes_first() -> None:
    memory = estimates.memory(ModelSize(10**9, 2, 100, 1000, 400), LOAD, 10**9, full=True, trained=10**9)
    recipe = Recipe.make({"full": True})
    found = advice.warnings(recipe, {**FIGURES, "train": 20}, RECOMMENDED, 1000, 100, memory, 10**9)
    assert [concern.level for concern in found] == ["stop", "care", "care"]
    assert found[0].field == "full" and "gone through 1,600 times" in found[-1].text
