from __future__ import annotations

import pytest

from engine.errors import NotFound, StateError

WEIGHTS = {"base_model": "nano", "endpoint": "local", "weights_path": "w", "renderer": "chatml"}


def test_models(store, recipe, clock):
    job = store.create_job(recipe)
    first = store.add_model("pig", job_id=job.id, sampler_path="a", stop=["\n"], system_prompt="oink", proof={"em": 0.9}, **WEIGHTS)
    clock.time += 1
    second = store.add_model("pig", job_id=None, sampler_path="b", **WEIGHTS)
    assert (first.name, second.name) == ("pig", "pig-2")
    assert store.model("pig") == first == store.model(first.id) == store.model(first.id[:9])
    assert (first.stop, first.proof, first.system_prompt) == (["\n"], {"em": 0.9}, "oink")
    assert [m.name for m in store.models()] == ["pig-2", "pig"] and store.models(job_id=job.id) == [first]
    again = store.add_model("pig", job_id=job.id, sampler_path="a", proof={"em": 1.0}, **WEIGHTS)
    assert again.id == first.id and again.proof == {"em": 1.0}
    with pytest.raises(StateError):
        store.rename_model("pig-2", "pig")
    assert store.rename_model("pig-2", "hog").name == "hog"
    assert store.set_proof("hog", {"x": 1}).proof == {"x": 1}
    store.delete_job(job.id)
    assert store.model("pig").job_id is None
    store.delete_model("pig")
    for missing in ("pig", "", "zzz"):
        with pytest.raises(NotFound):
            store.model(missing)


def test_models_belong_to_somebody(store):
    theirs = store.add_model("pig", job_id=None, sampler_path="a", owner="ann", **WEIGHTS)
    assert store.models() == []
    for look in (store.model, store.delete_model):
        for key in ("pig", theirs.id):
            with pytest.raises(NotFound):
                look(key)
    assert store.add_model("pig", job_id=None, sampler_path="a", **WEIGHTS).name == "pig"
