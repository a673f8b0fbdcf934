"""Golden figures of the estimates, worked out by hand, and the warnings."""

from __future__ import annotations

import json

import pytest

from engine import advice, estimates, knowledge, models
from engine.estimates import ModelSize, Workload
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
    assert found.text == f"about {usual / 1e6:.1f} MB, at least {found.value / 1e6:.1f} MB, of 2.0 GB free"
    assert estimates.memory(model, LOAD, int(5e8), full=True, trained=10**6).size == "large"
    assert "all weights" in estimates.memory(model, LOAD, int(5e8), full=True, trained=10**6).assumptions[1]


def test_money() -> None:
    prices = {"endpoints": {"cloud": {"per_million_tokens": 10, "note": "As listed."}}}
    found = estimates.money(LOAD, "cloud", prices)
    assert found is not None and found.value == pytest.approx(1.28) and (found.text, found.size) == ("about $1.28", "moderate")
    assert estimates.money(LOAD, "elsewhere", prices) is None
    here = estimates.money(LOAD, "local", knowledge.prices())
    assert here is not None and (here.value, here.text) == (0, "nothing")


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
