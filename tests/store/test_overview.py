"""Many jobs at a glance, on both databases: miniatures, last numbers, counts, totals; what is somebody else's stays out of them."""

from __future__ import annotations

import pytest

from engine.errors import NotAllowed, NotFound, StateError
from tests.store.test_lifecycle import save


def made(store, recipe, owner="local", steps=20, name="Pig Latin"):
    """A run that has taken so many steps."""
    queued = store.create_job(recipe.merged({"name": name}), owner)
    job = store.claim_job(f"r-{queued.id}", 15, queued.id)
    store.transition(job.id, "training", attempt=job.attempt)
    rows = [{"step": step, "name": "train_loss", "value": 100.0 - step} for step in range(1, steps + 1)]
    rows += [{"step": 0, "name": "dollars", "value": 0.5}, {"step": steps, "name": "dollars", "value": 2.0}]
    progress = {"step": steps, "total_steps": 40, "tokens": 10 * steps, "training_seconds": 2.0 * steps}
    store.record(job.id, job.attempt, metrics=rows, progress=progress)
    return store.job(job.id, owner)


def test_counts_and_search(store, recipe):
    for name in ("Pig Latin", "pig farm", "50% off", "under_score"):
        made(store, recipe, name=name)
    store.create_job(recipe, "ann")
    assert store.count_jobs() == {"training": 4} and store.count_jobs(None) == {"training": 4, "queued": 1}
    assert store.count_jobs("local", "PIG") == {"training": 2}
    # What the database itself takes for a pattern is only text.
    assert store.count_jobs("local", "%") == {"training": 1} and store.count_jobs("local", "_") == {"training": 1}
    assert [job.name for job in store.jobs("local", search="50%")] == ["50% off"]


def test_miniatures(store, recipe):
    job, other = made(store, recipe, steps=20), made(store, recipe, "ann")
    found = store.miniatures([job.id, other.id], "train_loss", points=4)
    assert found == {job.id: [95.0, 90.0, 85.0, 80.0]}
    assert store.miniatures([job.id], "nothing") == {} and store.miniatures([], "train_loss") == {}


def test_last_values_and_values_at(store, recipe):
    job, other = made(store, recipe), made(store, recipe, "ann")
    assert store.last_values([job.id, other.id], ["train_loss", "dollars", "none"]) == {job.id: {"train_loss": 80.0, "dollars": 2.0}}
    assert store.values_at(job.id, ["dollars", "train_loss"], 0) == {"dollars": 0.5}
    with pytest.raises(NotFound):
        store.values_at(other.id, ["dollars"], 0)


def test_what_was_undone_is_in_no_overview(store, recipe, clock):
    job = made(store, recipe, steps=20)
    save(store, job, 5)
    clock.time += 16
    again = store.claim_job("r2", 15, job.id)
    assert again.step == 5 and store.last_values([job.id], ["train_loss"]) == {job.id: {"train_loss": 95.0}}
    store.add_metrics(job.id, again.attempt, [(6, "train_loss", 1.0)])
    assert store.curves_since(job.id, {"train_loss": 4})["train_loss"] == [(5, 95.0), (6, 1.0)]


def test_light_jobs_totals_and_names(store, recipe):
    job = made(store, recipe)
    made(store, recipe, "ann")
    [light] = store.light_jobs()
    assert light["id"] == job.id and not {"recipe", "result", "error"} & set(light)
    assert store.totals() == {"runs": 1, "finished": 0, "tokens": 200, "seconds": 40.0} and store.totals("nobody")["runs"] == 0
    assert store.rename_job(job.id, "Ü 🐖 'quoted'").name == "Ü 🐖 'quoted'" == store.jobs_by_id([job.id])[0].name
    with pytest.raises(NotFound):
        store.rename_job(job.id, "mine now", "ann")


def test_a_recipe_is_changed_when_the_job_is_resumed_and_only_then(store, recipe):
    job = made(store, recipe)
    changed = job.recipe.merged({"budget": {"max_dollars": 3}})
    for owner, error in (("local", StateError), ("ann", NotFound)):
        with pytest.raises(error):
            store.resume(job.id, owner, recipe=changed)
    store.set_control(job.id, "pause")
    store.transition(job.id, "paused", attempt=job.attempt)
    with pytest.raises(NotAllowed):
        store.resume(job.id, recipe=changed, most=0)
    assert store.job(job.id).recipe.budget.max_dollars is None, "what isn't resumed isn't changed"
    resumed = store.resume(job.id, recipe=changed)
    assert (resumed.state, resumed.recipe.budget.max_dollars) == ("queued", 3)
