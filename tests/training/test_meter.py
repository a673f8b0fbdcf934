"""The meter: its arithmetic by hand, and real runs on nano that are priced, capped, resumed with more, and cut off."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from engine import Engine, data, models
from engine.errors import BudgetSpent, RecipeError, StateError
from engine.jobs import host
from engine.jobs.runner import Runner
from engine.knowledge.pricing import Price
from engine.recipe import Budget, Recipe
from engine.rendering import get_renderer, load_tokenizer
from engine.store.artefacts import read_json
from engine.training.meter import FILE, Meter
from engine.training.schedule import rows_of_step

PRICE = Price("lab", "m", prefill=1.0, sample=10.0, train=100.0)
# So dear that a few hundred of nano's tokens come to dollars.
DEAR = {"prefill": 1000.0, "sample": 5000.0, "train": 2000.0}
PLAIN = {"training": {"steps": 12, "batch_size": 4}, "data": {"held_out_max": 4}}
PLAIN["evaluation"] = {"skills": False, "proof": False, "eval_every": 0, "samples_every": 0}


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def made(tmp_path: Path, price: Price | None = PRICE, **budget: float) -> tuple[Meter, Counter, Clock]:
    counted, clock = Counter(), Clock()
    return Meter(counted, price, Budget(**budget), tmp_path, clock), counted, clock


def test_money(tmp_path: Path) -> None:
    meter, counted, _ = made(tmp_path)
    counted.update(prefill=1_000_000, sample=50_000, train=20_000)
    assert meter.values() == {"prefill_tokens": 1e6, "sample_tokens": 5e4, "train_tokens": 2e4, "dollars": 1 + 0.5 + 2}
    unpriced, _, _ = made(tmp_path, None)
    free, _, _ = made(tmp_path, Price("local", "nano", 0, 0, 0))
    assert "dollars" not in unpriced.values() and "dollars" not in free.values()


def test_it_stops_before_the_step_that_would_go_past(tmp_path: Path) -> None:
    meter, counted, _ = made(tmp_path, max_tokens=1000)
    for size in (300, 200, 300):
        assert meter.reached(meter.step_cost) is None
        meter.mark()
        counted["train"] += size
        meter.stepped()
    # 800 so far; the costliest step took 300.
    assert meter.step_cost == {"train": 300}
    found = meter.reached(meter.step_cost)
    assert isinstance(found, BudgetSpent) and "800 tokens" in str(found) and found.where == "recipe budget.max_tokens"
    assert meter.reached() is None and meter.reached({"train": 200}) is None


def test_limits_in_money_and_time(tmp_path: Path) -> None:
    meter, counted, clock = made(tmp_path, max_dollars=2.0, max_minutes=5)
    counted["train"] = 19_000
    assert meter.reached({"train": 1000}) is None
    assert "$1.90" in str(meter.reached({"train": 1001}))
    clock.now += 299
    assert meter.reached() is None
    clock.now += 1
    assert "5 min" in str(meter.reached())
    unpriced, counted, _ = made(tmp_path, None, max_dollars=0.01)
    counted["train"] = 10**12
    assert unpriced.reached() is None, "what nobody knows the price of can't be held to one"


def test_what_was_written_down_counts_after_a_cut(tmp_path: Path) -> None:
    meter, counted, clock = made(tmp_path)
    counted.update(train=500, prefill=100)
    clock.now += 60
    meter.keep(now=True)
    again, counted, clock = made(tmp_path)
    counted.update(train=400, prefill=120)  # as of its last checkpoint
    again.restore({"seconds": 40.0, "step_cost": {"train": 7}, "proof_cost": {"sample": 9}})
    assert counted == {"train": 500, "prefill": 120} and again.seconds == 60 and again.step_cost == {"train": 7}
    clock.now += 5
    assert again.seconds == 65
    assert read_json(tmp_path / FILE)["seconds"] == 60


def run(engine: Engine, recipe: Recipe, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(host, "ensure_runner", lambda *_: None)
    job = engine.launch(recipe)
    return Runner(engine.store, host.resolve()).run_one(job.id)


@pytest.mark.slow
def test_a_run_counts_what_it_sends(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = engine.demo_recipe("piglatin", PLAIN)
    job = run(engine, recipe, monkeypatch)
    assert job.state == "done"
    # Worked out from the data alone: each sequence is sent without its last token, which is only ever a target.
    loaded = data.load_data(recipe, skills=False)
    render = get_renderer("auto", load_tokenizer(models.nano_folder()))
    lengths = [len(render.examples(example.messages)[0].tokens) - 1 for example in loaded.train]
    by_step = [sum(lengths[row] for row in rows_of_step(step, 4, len(lengths), recipe.seed)) for step in range(12)]
    curve = dict(engine.curve(job.id, "train_tokens"))
    assert curve == {0: 0} | {step: sum(by_step[:step]) for step in range(1, 13)}
    assert job.result["counted"]["train"] == sum(by_step)
    assert "dollars" not in engine.metric_names(job.id) and engine.spending.of(job).free


@pytest.mark.slow
def test_a_cap_stops_and_saves_and_more_goes_on(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.spending.change("local", "nano", DEAR)
    try:
        whole = run(engine, engine.demo_recipe("piglatin", PLAIN), monkeypatch)
        spent = engine.spending.of(whole)
        assert spent.dollars == pytest.approx(whole.result["dollars"]) and not spent.free
        at = {name: dict(engine.curve(whole.id, name))[12] for name in ("dollars", "prefill_tokens", "sample_tokens", "train_tokens")}
        by_hand = at["prefill_tokens"] * 1000 + at["sample_tokens"] * 5000 + at["train_tokens"] * 2000
        assert at["dollars"] == pytest.approx(by_hand / 1e6)

        cap = dict(engine.curve(whole.id, "dollars"))[6] + 0.01
        recipe = engine.demo_recipe("piglatin", {**PLAIN, "budget": {"max_dollars": cap}})
        job = run(engine, recipe, monkeypatch)
        assert job.state == "stopped" and job.error["kind"] == "BudgetSpent" and 0 < job.step <= 6
        assert engine.latest(job.id)["dollars"] <= cap
        last = [point for point in engine.checkpoints(job.id) if point.step == job.step]
        assert {point.reason for point in last} == {"cap"} and {point.kind for point in last} == {"weights", "sampler_weights"}
        assert engine.models(job.id), "what it learned is kept"
        assert "of at most" in engine.spending.of(job).text
        with pytest.raises(StateError, match="at its limit"):
            engine.resume(job.id)
        with pytest.raises(RecipeError, match="already"):
            engine.resume(job.id, {"max_dollars": engine.latest(job.id)["dollars"] / 2})
        with pytest.raises(RecipeError, match="no limit called"):
            engine.resume(job.id, {"max_euros": 3})
        assert engine.job(job.id).state == "stopped"
        engine.resume(job.id, {"max_dollars": 1000.0})
        job = Runner(engine.store, host.resolve()).run_one(job.id)
        assert (job.state, job.step, job.error) == ("done", 12, None)
        assert dict(engine.curve(job.id, "train_loss")) == pytest.approx(dict(engine.curve(whole.id, "train_loss")), abs=1e-5)
        assert dict(engine.curve(job.id, "dollars"))[12] == pytest.approx(dict(engine.curve(whole.id, "dollars"))[12])
    finally:
        engine.spending.change("local", "nano", None)


@pytest.mark.slow
def test_the_proof_is_within_the_limit_too(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before: as much as it takes. After: only if as much is left."""
    proven = {**PLAIN, "evaluation": {**PLAIN["evaluation"], "proof": True, "max_new_tokens": 8}}
    whole = run(engine, engine.demo_recipe("piglatin", proven), monkeypatch)
    taken = sum(whole.result["counted"].values())
    before = sum(dict(engine.curve(whole.id, f"{kind}_tokens"))[0] for kind in ("prefill", "sample", "train"))
    job = run(engine, engine.demo_recipe("piglatin", {**proven, "budget": {"max_tokens": taken - int(before) // 2}}), monkeypatch)
    assert (job.state, job.step) == ("stopped", 12) and job.error["kind"] == "BudgetSpent"
    engine.resume(job.id, {"max_tokens": None})
    job = Runner(engine.store, host.resolve()).run_one(job.id)
    assert job.state == "done" and job.result["held_out"]["after"]
    assert sum(job.result["counted"].values()) == pytest.approx(taken, rel=0.02)


@pytest.mark.slow
def test_a_limit_below_the_first_test_stops_at_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    job = run(engine, engine.demo_recipe("piglatin", {**PLAIN, "budget": {"max_tokens": 1}}), monkeypatch)
    assert job.state == "stopped" and job.step <= 1 and job.error["where"] == "recipe budget.max_tokens"
