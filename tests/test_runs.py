"""engine.runs and the store's overview: many runs at a glance, by owner, through attempts."""

from __future__ import annotations

import math

import pytest

from engine import Engine
from engine.errors import NotFound, RecipeError
from engine.evaluation.curves import Curve
from engine.recipe import Recipe
from engine.store import Job, Store


@pytest.fixture
def engine():
    with Engine() as made:
        yield made


def trained(store: Store, name: str, steps: int = 100, owner: str = "local", **changes) -> Job:
    """A run that has got somewhere, as the loop reports it."""
    recipe = Recipe.make({"name": name, "data": {"demo": "piglatin"}, **changes})
    job = store.create_job(recipe, owner)
    job = store.claim_job("test", lease_s=3600, job_id=job.id)
    store.transition(job.id, "training", attempt=job.attempt)
    rows = [{"step": step, "name": "train_loss", "value": 100.0 - step} for step in range(1, steps + 1)]
    rows += [{"step": step, "name": "held_out_loss", "value": 200.0 - step} for step in range(0, steps + 1, 25)]
    rows += [{"step": step, "name": "tokens", "value": 10.0 * step} for step in range(1, steps + 1)]
    store.record(
        job.id, job.attempt, metrics=rows, progress={"step": steps, "total_steps": 200, "tokens": 10 * steps, "training_seconds": 2.0}
    )
    return store.job(job.id, owner)


def test_cards_show_the_loss_in_miniature(engine: Engine) -> None:
    long, short, none = trained(engine.store, "Long"), trained(engine.store, "Short", 3), engine.store.create_job(Recipe(name="None"))
    cards = {card.job.name: card for card in engine.runs.cards()}
    assert list(cards) == ["None", "Short", "Long"]
    losses = cards["Long"].curve
    assert len(losses) == 32 and losses == sorted(losses, reverse=True) and losses[-1] == 0.0
    assert cards["Short"].curve == [99.0, 98.0, 97.0] and cards["None"].curve == []
    assert engine.store.miniatures([long.id, short.id, none.id], "train_loss", owner="else") == {}


def test_miniatures_leave_out_what_was_undone_and_what_is_no_number(engine: Engine) -> None:
    store, job = engine.store, trained(engine.store, "Twice", 40)
    row = {"step": 20, "kind": "weights", "path": "p", "reason": "schedule", "loop_state": {}, "renderer": "r"}
    store.record(job.id, job.attempt, checkpoints=[row])
    store.transition(job.id, "interrupted", attempt=job.attempt)
    again = store.claim_job("other", job_id=job.id)
    assert again.step == 20
    store.record(job.id, again.attempt, metrics=[{"step": 21, "name": "train_loss", "value": math.nan}], progress={"step": 21})
    losses = store.miniatures([job.id], "train_loss")[job.id]
    assert losses == [100.0 - step for step in range(1, 21)]
    news = engine.runs.news(job.id, {"train_loss": 18})
    assert news["train_loss"][:2] == [(19, 81.0), (20, 80.0)] and math.isnan(news["train_loss"][2][1])
    assert news["held_out_loss"] == [(0, 200.0)] == engine.curve(job.id, "held_out_loss")
    assert store.last_values([job.id], ["train_loss", "held_out_loss"])[job.id] == {"held_out_loss": 200.0}


def test_states_are_counted_and_chosen(engine: Engine) -> None:
    trained(engine.store, "Runs"), engine.store.create_job(Recipe(name="Waits")), trained(engine.store, "Else", owner="else")
    done = trained(engine.store, "Done")
    engine.store.transition(done.id, "done", attempt=done.attempt)
    assert engine.runs.counts() == {"running": 2, "paused": 0, "finished": 1, "stopped": 0, "failed": 0}
    assert engine.runs.counts("wait")["running"] == 1
    assert [card.job.name for card in engine.runs.cards("finished")] == ["Done"]
    assert [card.job.name for card in engine.runs.cards(search="run")] == ["Runs"]


def test_a_run_is_renamed_and_made_again(engine: Engine) -> None:
    job = trained(engine.store, "Old")
    assert engine.runs.rename(job.id, "  New \n name ").name == "New name"
    recipe = engine.runs.again(job.id, {"training": {"steps": 5}, "seed": 3})
    assert (recipe.name, recipe.training.steps, recipe.seed) == ("New name", 5, 3)
    assert recipe.merged({"name": "Old", "training": {"steps": None}, "seed": 0}) == job.recipe
    for wrong in ("", "   ", "x" * 121):
        with pytest.raises(RecipeError):
            engine.runs.rename(job.id, wrong)
    with pytest.raises(RecipeError):
        engine.runs.again(job.id, {"training": {"learning_rate": "fast"}})


def test_the_table_reads_again_only_what_may_have_changed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    moves, done = trained(engine.store, "Moves"), trained(engine.store, "Done", lora={"rank": 8})
    engine.store.set_fields(done.id, done.attempt, result={"held_out": {"before": {"exact_match": 0.0}, "after": {"exact_match": 0.9}}})
    engine.store.transition(done.id, "done", attempt=done.attempt)
    rows = {row["id"]: row for row in engine.runs.table()}
    assert (rows[done.id]["before"], rows[done.id]["after"], rows[done.id]["rank"]) == (0.0, 0.9, 8)
    assert (rows[moves.id]["train_loss"], rows[moves.id]["held_out_loss"], rows[moves.id]["tokens"]) == (0.0, 100.0, 1000)
    asked: list[str] = []
    real = engine.store.jobs_by_id
    monkeypatch.setattr(engine.store, "jobs_by_id", lambda ids, owner: asked.extend(ids) or real(ids, owner))
    engine.runs.rename(done.id, "Named anew")
    asked.clear()
    again = {row["id"]: row for row in engine.runs.table(rows)}
    assert asked == [moves.id]
    assert again[done.id] == {**rows[done.id], "name": "Named anew"}
    assert engine.runs.totals() == {"runs": 2, "finished": 1, "tokens": 2000, "seconds": 4.0}


def test_runs_are_laid_over_each_other(engine: Engine) -> None:
    one, two = trained(engine.store, "One", 50), trained(engine.store, "Two", 100, training={"learning_rate": 1e-3}, seed=5)
    found = engine.runs.overlay([one.id, two.id], "held_out_loss")
    assert found[one.id] == [(0.0, 200.0), (25.0, 175.0), (50.0, 150.0)] and len(found[two.id]) == 5
    assert engine.runs.overlay([one.id], "held_out_loss", "tokens")[one.id] == [(0.0, 200.0), (250.0, 175.0), (500.0, 150.0)]
    # Nobody counted its seconds step by step: 2 s over 50 steps.
    assert engine.runs.overlay([one.id], "held_out_loss", "seconds")[one.id] == [(0.0, 200.0), (1.0, 175.0), (2.0, 150.0)]
    assert engine.runs.overlay([one.id], "nonesuch")[one.id] == []
    assert engine.runs.metric_names([one.id, two.id]) == ["held_out_loss", "train_loss"]
    differences = {row["field"]: row["values"] for row in engine.runs.differences([one.id, two.id])}
    assert differences == {"training.learning_rate": {one.id: 5e-4, two.id: 1e-3}, "seed": {one.id: 0, two.id: 5}}


def test_what_is_somebody_elses_is_not_found(engine: Engine) -> None:
    job = trained(engine.store, "Else", owner="else")
    for ask in (
        lambda: engine.runs.rename(job.id, "Mine"), lambda: engine.runs.again(job.id), lambda: engine.runs.shared(job.id),
        lambda: engine.runs.differences([job.id]), lambda: engine.runs.overlay([job.id], "train_loss"),
        lambda: engine.runs.metric_names([job.id]), lambda: engine.runs.news(job.id, {}),
        lambda: engine.travel.stops(job.id), lambda: list(engine.travel.ask(job.id, "hello")),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            ask()
    assert engine.runs.table() == [] and engine.runs.cards() == [] and engine.runs.totals()["runs"] == 0


def test_the_doctor_knows_the_model(engine: Engine) -> None:
    job = trained(engine.store, "Slow", training={"learning_rate": 1e-6})
    assert engine.runs.recommended_rate("nano") == 5e-3
    assert engine.runs.recommended_rate("some/model-that-is-not-here") is None
    assert engine.runs.recommended_rate("/no/such/folder") is None
    signs = [finding.sign for finding in engine.runs.diagnose(job, {"train_loss": Curve([(step, 3.0) for step in range(1, 61)])})]
    assert any("hardly falls" in sign for sign in signs)
