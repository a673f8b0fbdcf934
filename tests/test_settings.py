"""What a person chose is kept for that person alone, and only what fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import Engine
from engine.errors import NotFound, RecipeError


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINKER_HOME", str(tmp_path))


def test_kept_per_person_and_put_back() -> None:
    with Engine("ann") as ann, Engine("bob") as bob:
        ann.settings.set("tour", "skipped")
        assert (ann.settings.get("tour"), bob.settings.get("tour")) == ("skipped", "new")
    with Engine("ann") as again:
        assert again.settings.get("tour") == "skipped"
        again.settings.reset("tour")
        assert again.settings.get("tour") == "new"


@pytest.mark.parametrize("value", ["sometimes", 1, None, ["done"]])
def test_what_does_not_fit_is_refused(value: object) -> None:
    with Engine() as engine, pytest.raises(RecipeError, match="tour"):
        engine.settings.set("tour", value)


def test_an_unknown_name() -> None:
    with Engine() as engine, pytest.raises(NotFound, match="colour"):
        engine.settings.get("colour")


def test_conversations_with_the_assistant_are_ones_own() -> None:
    with Engine() as engine:
        store = engine.store
        talk = store.add_talk("ann", "pirates")
        store.extend_talk(talk.id, "ann", [{"role": "user", "text": "hello"}], {"goal": "style"})
        found = store.extend_talk(talk.id, "ann", [{"role": "assistant", "text": "ahoy"}], {"goal": "qa"})
        assert [turn["text"] for turn in found.turns] == ["hello", "ahoy"] and found.state == {"goal": "qa"}
        assert store.talks("bob") == [] and [one.id for one in store.talks("ann")] == [talk.id]
        for call in (
            lambda: store.talk(talk.id, "bob"),
            lambda: store.delete_talk(talk.id, "bob"),
            lambda: store.extend_talk(talk.id, "bob", [], {}),
        ):
            with pytest.raises(NotFound):
                call()
        store.delete_talk(talk.id, "ann")
        assert store.talks("ann") == []
