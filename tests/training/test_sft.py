"""Supervised fine-tuning's batches, token by token. nano's ids: <|end|> 1, <|system|> 2, <|user|> 3, <|assistant|> 4, and a
printable ASCII character's code less 25."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from engine import models
from engine.data import DataSet, Example
from engine.errors import DataError, RecipeError
from engine.recipe import Recipe
from engine.rendering import get_renderer, load_tokenizer
from engine.training.methods import make_method

END, SYSTEM, USER, ASSISTANT = 1, 2, 3, 4
CONTEXT = 1024


def ids(text: str) -> list[int]:
    return [ord(letter) - 25 for letter in text]


def chat(*said: str, system: str = "") -> Example:
    roles = ["user", "assistant"] * len(said)
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
    return Example(([{"role": "system", "content": system}] if system else []) + messages, 1)


def method(train: list[Example], held_out: Sequence[Example] = (), context: int = CONTEXT, **training):
    recipe = Recipe.make({"data": {"demo": "piglatin"}, "training": {"batch_size": len(train), **training}})
    renderer = get_renderer("auto", load_tokenizer(models.nano_folder()))
    return make_method(recipe, DataSet("mine", train, list(held_out), [], 0, []), renderer, context)


def plain(datum) -> tuple[list[int], list[int], list[float]]:
    inputs = datum.loss_fn_inputs
    return datum.model_input.to_ints(), inputs["target_tokens"].data, inputs["weights"].data


def test_two_rows_by_hand():
    sft = method([chat("Hi", "Yo"), chat("a", "b")])
    datums, counts = sft.batch(0)
    short, long = sorted(map(plain, datums), key=lambda row: len(row[0]))
    # Three answer tokens and two, ends included: each weighs a fifth.
    assert long[0] == [USER, *ids("Hi"), END, ASSISTANT, *ids("Yo")]
    assert long[1] == [*ids("Hi"), END, ASSISTANT, *ids("Yo"), END]
    assert long[2] == pytest.approx([0, 0, 0, 0, 0.2, 0.2, 0.2])
    assert short[0] == [USER, *ids("a"), END, ASSISTANT, *ids("b")]
    assert short[1] == [*ids("a"), END, ASSISTANT, *ids("b"), END]
    assert short[2] == pytest.approx([0, 0, 0, 0.2, 0.2])
    assert counts == {"tokens": 14.0, "targets": 5.0}
    assert (sft.rows, sft.notes, sft.loss_fn) == (2, [], "cross_entropy")


def test_every_answer_of_a_conversation_is_learned():
    [datum], counts = method([chat("a", "b", "c", "d", system="S")]).batch(0)
    inputs, targets, weights = plain(datum)
    assert inputs == [SYSTEM, *ids("S"), END, USER, *ids("a"), END, ASSISTANT, *ids("b"), END, USER, *ids("c"), END, ASSISTANT, *ids("d")]
    learned = [target for target, weight in zip(targets, weights, strict=True) if weight]
    assert learned == [*ids("b"), END, *ids("d"), END]
    assert [weight for weight in weights if weight] == pytest.approx([0.25] * 4)
    assert counts["targets"] == 4


def test_a_batch_may_be_larger_than_the_data():
    datums, counts = method([chat("Hi", "Yo")], batch_size=3).batch(0)
    assert len(datums) == 3 and counts == {"tokens": 24.0, "targets": 9.0}
    assert sum(sum(plain(datum)[2]) for datum in datums) == pytest.approx(1)


def test_held_out_rows_weigh_the_same_over_all():
    sft = method([chat("x", "y")], [chat("Hi", "Yo"), chat("a", "b")])
    assert sum(sum(plain(datum)[2]) for datum in sft.held_out()) == pytest.approx(1)
    assert sft.held_out_tokens() == 5
    assert method([chat("x", "y")]).held_out() == []


def test_what_is_cut_is_said():
    # <user>Hi<end><assistant>abcdefghij<end> is 16 tokens; 8 inputs and their targets are 9 of them.
    sft = method([chat("Hi", "abcdefghij"), chat("a", "b")], max_length=8)
    assert sft.notes == ["1 training examples were cut to 8 tokens (7 tokens lost): row 1"]
    longest = max(map(plain, sft.batch(0)[0]), key=lambda row: len(row[0]))
    assert longest[0] == [USER, *ids("Hi"), END, ASSISTANT, *ids("abc")]
    assert longest[1][-4:] == ids("abcd")


def test_what_has_no_answer_left_is_counted_and_left_out():
    sft = method([chat("much too long a prompt", "b"), chat("a", "b")], [chat("this one is too long as well", "b")], max_length=8)
    assert sft.rows == 1 and sft.held_out() == []
    assert sft.notes == [
        "1 training examples were left out: their prompts alone are longer than 8 tokens: row 1",
        "1 held-out examples were left out: their prompts alone are longer than 8 tokens: row 1",
    ]


def test_the_models_own_limit_holds_too():
    sft = method([chat("Hi", "abcdefghij")], context=10, max_length=500)
    assert len(plain(sft.batch(0)[0][0])[0]) == 10
    assert "cut to 10 tokens" in sft.notes[0]


def test_nothing_left_to_learn():
    with pytest.raises(DataError, match="no training example has an answer within 8 tokens") as caught:
        method([chat("much too long a prompt", "b")], max_length=8)
    assert caught.value.where == "mine" and "max_length" in caught.value.next_step


def test_an_unknown_method_is_a_recipe_error():
    recipe = Recipe.make({"data": {"demo": "piglatin"}}).model_copy(update={"method": "magic"})
    with pytest.raises(RecipeError, match="no method 'magic'"):
        make_method(recipe, DataSet("mine", [chat("a", "b")], [], [], 0, []), None, CONTEXT)
