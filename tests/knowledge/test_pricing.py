"""The price list: which model an id means, one's own prices before it, and a file that somebody wrote by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from engine import Engine
from engine.errors import BudgetSpent, NotAllowed, RecipeError, StateError
from engine.knowledge import pricing


@pytest.mark.parametrize(
    ("base_model", "listed"),
    [
        ("Qwen/Qwen3-8B", "Qwen3-8B"),
        ("qwen/qwen3-8b", "Qwen3-8B"),
        ("Qwen/Qwen3.5-397B-A17B", "Qwen3.5-397B"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "Nemotron-Nano"),
        ("deepseek-ai/DeepSeek-V3.1", "DeepSeek-V3.1"),
        ("Qwen/Qwen3-VL-8B", None),
        ("Qwen/Qwen3-8B-Instruct", None),
        ("nano", None),
    ],
)
def test_which_model_is_meant(base_model: str, listed: str | None) -> None:
    found = pricing.find("tinker", base_model)
    assert (found.model if found else None) == listed


def test_an_endpoint_that_isnt_listed_has_no_price() -> None:
    assert pricing.find("elsewhere", "Qwen/Qwen3-8B") is None
    here = pricing.find("local", "anything")
    assert here is not None and here.free and here.dollars({"train": 10**9}) == 0


def test_each_kind_has_its_price() -> None:
    price = pricing.find("tinker", "Qwen/Qwen3-8B")
    assert price is not None and price.as_of == "2026-07-17"
    assert price.dollars({"prefill": 1e6}) == 0.195 and price.dollars({"sample": 2e6}) == 1.2 and price.dollars({"train": 5e5}) == 0.22
    assert price.dollars({"prefill": 1e6, "sample": 1e6, "train": 1e6, "other": 1e9}) == pytest.approx(1.235)


def test_ones_own_price_goes_first(thinker_home: Path) -> None:
    mine = {"prefill": 1.0, "sample": 2.0, "train": 3.0}
    with Engine() as engine:
        engine.spending.change("tinker", "Qwen/Qwen3-8B", mine)
        engine.spending.change("lab", "*", {"prefill": 0, "sample": 0, "train": 0.5})
        found = engine.spending.price("tinker", "Qwen/Qwen3-8B")
        assert found is not None and (found.prefill, found.sample, found.train, found.source) == (1, 2, 3, pricing.OWN)
        assert engine.spending.price("lab", "whatever").train == 0.5
        assert [price.endpoint for price in engine.spending.table()][:2] == ["tinker", "lab"]
        engine.spending.change("tinker", "Qwen/Qwen3-8B", None)
        assert engine.spending.price("tinker", "Qwen/Qwen3-8B").as_of
        for wrong in ({"prefill": -1, "sample": 1, "train": 1}, {"prefill": 1, "sample": 1}, {"prefill": True, "sample": 1, "train": 1}):
            with pytest.raises(RecipeError, match="no price"):
                engine.spending.change("tinker", "x", wrong)
        with pytest.raises(RecipeError):
            engine.spending.change("tinker", "  ", mine)
    with Engine("visitor-1") as visitor, pytest.raises(NotAllowed):
        visitor.spending.change("tinker", "Qwen/Qwen3-8B", mine)
    assert set(yaml.safe_load((thinker_home / pricing.FILE).read_text())["endpoints"]) == {"lab"}


@pytest.mark.parametrize(
    "text", ["{", "endpoints: 5", "endpoints: {tinker: {models: {x: {prefill: lots}}}}", "[1]", "endpoints: {tinker: 1}"]
)
def test_a_file_that_cant_be_read_says_so(thinker_home: Path, text: str) -> None:
    thinker_home.mkdir(parents=True, exist_ok=True)
    (thinker_home / pricing.FILE).write_text(text)
    with pytest.raises(RecipeError, match="prices"):
        pricing.find("tinker", "Qwen/Qwen3-8B")
    with Engine() as engine:
        job = engine.store.create_job(engine.demo_recipe("piglatin"))
        assert engine.spending.of(job).dollars is None and engine.runs.card(job.id).spent == "", "runs can be looked at all the same"
        with pytest.raises(RecipeError, match="prices"):
            engine.spending.table()


@pytest.mark.parametrize("hit", ["max_minutes", "max_tokens", "max_dollars"])
def test_a_run_at_a_limit_goes_on_once_that_one_is_raised(hit: str) -> None:
    with Engine() as engine:
        job = engine.store.create_job(engine.demo_recipe("piglatin", {"budget": {hit: 10}}))
        job = engine.store.claim_job("test", job_id=job.id)
        error = BudgetSpent("it is at its limit", "Raise it.", where=f"recipe budget.{hit}").to_dict()
        engine.store.transition(job.id, "stopping", attempt=job.attempt)
        job = engine.store.transition(job.id, "stopped", attempt=job.attempt, error=error)
        other = "max_tokens" if hit != "max_tokens" else "max_minutes"
        for budget in ({}, {hit: 10}, {hit: 9}, {other: 1000}):
            with pytest.raises(StateError, match="at its limit"):
                engine.spending.raised(job, budget)
        for value in (11, None):
            recipe = engine.spending.raised(job, {hit: value})
            assert recipe is not None and getattr(recipe.budget, hit) == value
