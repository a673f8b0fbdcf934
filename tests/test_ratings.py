"""Thumbs on answers: kept, changed, taken back, and made into a data set that methods of labels learn from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine import Engine, Recipe
from engine.data import load_data
from engine.errors import NotFound, StateError
from engine.playground import Answer, Settings
from engine.ratings import found
from engine.store import Turn


@pytest.fixture
def engine(database: str | None) -> Iterator[Engine]:
    with Engine() as made:
        yield made


def chat(engine: Engine, *said: tuple[str, str]) -> list[Turn]:
    """A conversation with nano, as if it had answered so."""
    playground = engine.playground
    who = [playground.speaker("base:nano")]
    conversation = playground.begin(said[0][0], who, Settings(system_prompt="Be kind.", remember=True))
    return [playground.keep(conversation.id, prompt, [Answer(who[0], text=text, finish="stop")]) for prompt, text in said]


def test_a_verdict_is_kept_changed_and_taken_back(engine: Engine) -> None:
    first, second = chat(engine, ("Hi", "Hello!"), ("Bye", "No."))
    chat_id, rate = first.conversation_id, engine.ratings.rate
    kept = rate(chat_id, second.id, 0, True)
    # What it was shown: the system prompt, and what was said before.
    said = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye")]
    assert [(message["role"], message["content"]) for message in kept.messages] == said
    assert (kept.answer, kept.speaker, kept.good, engine.ratings.count()) == ("No.", "base:nano", True, (1, 0))
    changed = rate(chat_id, second.id, 0, False)
    assert (changed.id, changed.good, engine.ratings.count()) == (kept.id, False, (0, 1))
    rate(chat_id, first.id, 0, True)
    with Engine() as later:
        assert [one.answer for one in later.ratings.of_chat(chat_id)] == ["No.", "Hello!"]
    engine.ratings.unrate(chat_id, second.id, 0)
    engine.ratings.unrate(chat_id, second.id, 0)
    assert [one.answer for one in engine.ratings.all()] == ["Hello!"]


def test_a_turn_that_was_taken_back_gives_its_verdict_to_no_other_answer(engine: Engine) -> None:
    (turn,) = chat(engine, ("Hi", "Hello!"))
    engine.ratings.rate(turn.conversation_id, turn.id, 0, True)
    engine.playground.take_back(turn.conversation_id, turn.id)
    again = engine.playground.keep(turn.conversation_id, "Hi", [Answer(engine.playground.speaker("base:nano"), text="Go away.")])
    # SQLite gives the number out again.
    assert engine.store.postgres or again.id == turn.id
    assert found(engine.ratings.of_chat(turn.conversation_id), again, 0) is None
    engine.ratings.rate(turn.conversation_id, again.id, 0, False)
    assert engine.ratings.count() == (1, 1)
    verdict = found(engine.ratings.of_chat(turn.conversation_id), again, 0)
    assert verdict is not None and verdict.good is False


def test_what_cant_be_rated(engine: Engine) -> None:
    (turn,) = chat(engine, ("Hi", "  "))
    with pytest.raises(StateError, match="it said nothing"):
        engine.ratings.rate(turn.conversation_id, turn.id, 0, True)
    for place in ((turn.conversation_id, turn.id + 7, 0), (turn.conversation_id, turn.id, 1), ("feedface0000", turn.id, 0)):
        with pytest.raises(NotFound):
            engine.ratings.rate(*place, True)
    with Engine("stranger") as stranger, pytest.raises(NotFound):
        stranger.ratings.unrate(turn.conversation_id, turn.id, 0)
    assert engine.ratings.count() == (0, 0)
    with pytest.raises(StateError, match="no answer was found good or bad"):
        engine.ratings.save_as_dataset("Thumbs")


def test_a_data_set_of_thumbs(engine: Engine) -> None:
    turns = chat(engine, *((f"Question {n}", "yes" if n % 3 else "no") for n in range(12)))
    for number, turn in enumerate(turns):
        engine.ratings.rate(turn.conversation_id, turn.id, 0, bool(number % 3))
    made = engine.ratings.save_as_dataset("My thumbs")
    assert (made.name, made.shape, made.examples, made.stats["good"], made.stats["bad"]) == ("My thumbs", "labels", 12, 8, 4)
    row = engine.datasets.rows(made.id, 1, 1)[0]
    assert (row.example.answer, row.good, row.columns) == ("yes", True, {"model": "base:nano"})
    data = load_data(Recipe.make({"data": {"dataset": made.id}}), shape="labels")
    assert sum(bool(one.good) for one in data.train + data.held_out) == 8
    # Without another verdict it is the same data set; what was liked can also be learned as it is.
    assert engine.ratings.save_as_dataset("My thumbs") == made
    assert {one.answer for one in load_data(Recipe.make({"data": {"dataset": made.id}})).train} == {"yes"}


def test_a_chat_takes_its_verdicts_along(engine: Engine) -> None:
    (turn,) = chat(engine, ("Hi", "Hello!"))
    engine.ratings.rate(turn.conversation_id, turn.id, 0, True)
    engine.playground.delete(turn.conversation_id)
    assert engine.ratings.all() == []
