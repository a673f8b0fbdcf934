from __future__ import annotations

import pytest

from engine.errors import NotFound, StateError
from engine.recipe import Recipe

VALUES = {"file": "a.csv", "bytes": 3, "digest": "d", "format": "", "mapping": {}, "state": "unmapped", "stats": {}, "error": {"x": 1}}


def test_datasets(store, clock):
    first = store.add_dataset(store.new_dataset_id(), "pig", **VALUES)
    clock.time += 1
    second = store.add_dataset(store.new_dataset_id(), "pig", **{**VALUES, "digest": "e", "file": "50%.csv"})
    assert (first.name, second.name) == ("pig", "pig-2") and first.error == {"x": 1}
    assert store.datasets() == [second, first] and store.datasets(search="50%") == [second]
    assert store.dataset_with("d") == first and store.dataset_with("f") is None
    changed = store.set_dataset(first.id, state="ready", stats={"examples": 2, "problems": 1}, error=None, mapping={"prompt": "q"})
    assert (changed.examples, changed.left_out, changed.error, changed.mapping) == (2, 1, None, {"prompt": "q"})
    with pytest.raises(StateError):
        store.rename_dataset(second.id, "pig")
    assert store.rename_dataset(second.id, "hog").name == "hog"
    store.delete_dataset(second.id)
    assert [found.id for found in store.datasets()] == [first.id]


def test_datasets_belong_to_somebody(store):
    theirs = store.add_dataset(store.new_dataset_id(), "pig", owner="ann", **VALUES)
    assert store.datasets() == [] and store.dataset_with("d") is None
    for look in (store.dataset, store.delete_dataset, store.set_dataset, lambda one: store.rename_dataset(one, "x")):
        with pytest.raises(NotFound):
            look(theirs.id)


def test_runs_on_a_dataset(store, recipe):
    kept = store.add_dataset(store.new_dataset_id(), "pig", **VALUES)
    store.create_job(recipe)
    job = store.create_job(Recipe.make({"data": {"dataset": kept.id}}))
    store.create_job(job.recipe, owner="ann")
    assert store.jobs_on_dataset(kept.id) == [job]
    assert store.jobs_on_dataset("%") == []
