from __future__ import annotations

import pytest

from engine.errors import NotFound


def test_a_conversation_from_its_beginning_to_its_end(store, clock):
    first = store.begin_conversation("  What\nis  " + "x" * 90, {"speakers": ["base:nano"]})
    assert first.title.startswith("What is xxx") and len(first.title) == 60 and first.title.endswith("…")
    clock.time += 1
    second = store.begin_conversation("", {})
    assert second.title == "Untitled" and [one.id for one in store.conversations()] == [second.id, first.id]
    clock.time += 1
    answers = [{"speaker": "base:nano", "text": "a\0\ud800", "error": None}]
    turn = store.add_turn(first.id, "hello", answers)
    store.add_turn(first.id, "and?", [])
    assert [one.prompt for one in store.turns(first.id)] == ["hello", "and?"]
    assert store.turns(first.id)[0].id == turn.id and store.turns(first.id)[0].answers[0]["speaker"] == "base:nano"
    assert [one.id for one in store.conversations(limit=1)] == [first.id], "the one last spoken in"
    changed = store.change_conversation(first.id, title="Numbers", setup={"speakers": []})
    assert (changed.title, changed.setup, changed.updated_at) == ("Numbers", {"speakers": []}, clock.time)
    assert store.drop_turn(first.id, turn.id).prompt == "hello"
    with pytest.raises(NotFound):
        store.drop_turn(first.id, turn.id)
    store.delete_conversation(first.id)
    assert [one.id for one in store.conversations()] == [second.id]
    with pytest.raises(NotFound):
        store.turns(first.id)


def test_conversations_belong_to_somebody(store):
    theirs = store.begin_conversation("secret", {}, owner="ann")
    turn = store.add_turn(theirs.id, "hello", [], owner="ann")
    assert store.conversations() == []
    for refused in (
        lambda: store.conversation(theirs.id),
        lambda: store.turns(theirs.id),
        lambda: store.add_turn(theirs.id, "hello", []),
        lambda: store.drop_turn(theirs.id, turn.id),
        lambda: store.change_conversation(theirs.id, title="mine"),
        lambda: store.delete_conversation(theirs.id),
    ):
        with pytest.raises(NotFound):
            refused()
    assert [one.title for one in store.conversations("ann")] == ["secret"]


def test_notes_of_a_model(store):
    known = {"base_model": "nano", "endpoint": "local", "weights_path": "w", "renderer": "chatml"}
    model = store.add_model("pig", job_id=None, sampler_path="a", **known)
    assert model.notes == ""
    assert store.set_notes(model.id, "good at words").notes == store.model("pig").notes == "good at words"
    store.add_model("pig", job_id=None, sampler_path="a", owner="ann", **known)
    assert (store.weights_used("a"), store.weights_used("w", "ann"), store.weights_used("z")) == (2, 1, 0)
    with pytest.raises(NotFound):
        store.set_notes(model.id, "mine now", owner="ann")
