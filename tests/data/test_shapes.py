"""Pairs, labels and prompts: layouts that people bring, rows that can't be used, and one shape read as another."""

from __future__ import annotations

import json

import pytest

from engine import knowledge
from engine.data import FORMATS, load_data, read_examples
from engine.errors import DataError, NotFound
from engine.recipe import FORMATS as CHOICES
from engine.recipe import METHODS, Recipe

USER, ANSWER, WORSE = ({"role": role, "content": text} for role, text in (("user", "Q"), ("assistant", "A"), ("assistant", "W")))
SYSTEM = {"role": "system", "content": "S"}
MORE = [USER, {"role": "assistant", "content": "M"}, {"role": "user", "content": "R"}]
HH = "\n\nHuman: Q\n\nAssistant: M\n\nHuman: R\n\nAssistant: "


@pytest.fixture
def read(tmp_path):
    def read(*rows, **options):
        path = tmp_path / "data.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_examples(path, **options)

    return read


@pytest.mark.parametrize(
    ("row", "format", "messages"),
    [
        ({"prompt": "Q", "chosen": "A", "rejected": "W"}, "preference", [USER, ANSWER]),
        ({"question": "Q", "chosen": "A", "rejected": "W", "system": "S"}, "preference", [SYSTEM, USER, ANSWER]),
        ({"prompt": [SYSTEM, USER], "chosen": [ANSWER], "rejected": [WORSE]}, "preference", [SYSTEM, USER, ANSWER]),
        # A prompt beside whole conversations, and conversations that hold their prompt themselves.
        ({"prompt": "Q", "chosen": [USER, ANSWER], "rejected": [USER, WORSE], "score_chosen": 9.0}, "preference", [USER, ANSWER]),
        ({"chosen": [*MORE, ANSWER], "rejected": [*MORE, WORSE]}, "preference", [*MORE, ANSWER]),
        ({"chosen": json.dumps([USER, ANSWER]), "rejected": json.dumps([USER, WORSE])}, "preference", [USER, ANSWER]),
        ({"chosen": HH + "A", "rejected": HH + "W"}, "preference", [*MORE, ANSWER]),
        ({"prompt": HH, "chosen": " A", "rejected": " W"}, "preference", [*MORE, {"role": "assistant", "content": " A"}]),
        ({"input": {"messages": [USER], "tools": []}, "preferred_output": [ANSWER], "non_preferred_output": [WORSE]},
         "openai_preference", [USER, ANSWER]),
        ({"messages": [USER, ANSWER], "rejected_message": WORSE}, "rejected_message", [USER, ANSWER]),
        ({"messages": [SYSTEM, *MORE, ANSWER], "rejected": "W"}, "rejected_message", [SYSTEM, *MORE, ANSWER]),
    ],
)  # fmt: skip
def test_pairs(read, row, format, messages):
    report = read(row)
    (found,) = report.examples
    assert (report.format, report.shape, found.messages, found.rejected.strip(), found.good) == (format, "pairs", messages, "W", None)
    assert read(row, format=format, shape="pairs").examples == [found]
    assert found.conversations() == [messages, [*messages[:-1], {"role": "assistant", "content": found.rejected}]]
    assert (found.prompt, found.answer) == (messages[:-1], messages[-1]["content"])


@pytest.mark.parametrize("label", [True, 1, 1.0, "true", "1", "Up", "good", "yes", "thumbs_up", "👍"])
@pytest.mark.parametrize("row", [{"prompt": "Q", "completion": "A"}, {"messages": [USER, ANSWER]}, {"prompt": [USER], "answer": [ANSWER]}])
def test_labels(read, row, label):
    report = read({**row, "label": label})
    assert (report.shape, report.examples[0].messages, report.examples[0].good) == ("labels", [USER, ANSWER], True)


@pytest.mark.parametrize("label", [False, 0, "False", "0", "down", "Bad", "no", -1, "👎"])
def test_bad_labels(read, label):
    (found,) = read({"question": "Q", "response": "A", "thumbs": label}).examples
    assert found.good is False and found.columns == {}


@pytest.mark.parametrize(
    ("row", "format", "messages", "columns"),
    [
        ({"prompt": "Q"}, "prompt", [USER], {}),
        ({"problem": "Q", "level": 3, "tags": ["a"]}, "prompt", [USER], {"level": 3, "tags": ["a"]}),
        ({"prompt": "Q", "ground_truth": 42}, "prompt", [USER, {"role": "assistant", "content": "42"}], {"ground_truth": 42}),
        ({"question": "Q", "answer": 4.5}, "prompt", [USER, {"role": "assistant", "content": "4.5"}], {"answer": 4.5}),
        ({"prompt": [USER], "answer": {"total": 3}}, "prompt", [USER], {"answer": {"total": 3}}),
        ({"prompt": [SYSTEM, USER], "expected": ""}, "prompt", [SYSTEM, USER], {"expected": ""}),
        ({"messages": [USER], "reference_answer": "A"}, "prompt_messages", [USER, ANSWER], {"reference_answer": "A"}),
        ({"messages": [*MORE], "rubric": {"x": 1}}, "prompt_messages", MORE, {"rubric": {"x": 1}}),
    ],
)
def test_prompts(read, row, format, messages, columns):
    report = read(row)
    (found,) = report.examples
    assert (report.format, report.shape, found.messages, found.columns) == (format, "prompts", messages, columns)
    assert found.prompt == [message for message in messages if message != messages[-1] or message["role"] != "assistant"]
    assert read(row, format=format, shape="prompts").examples == [found]


PAIR = {"prompt": "Q", "chosen": "A", "rejected": "W"}
LABEL = {"prompt": "Q", "completion": "A", "label": True}


@pytest.mark.parametrize(
    ("good", "bad", "field", "message"),
    [
        (PAIR, {"prompt": "Q", "chosen": "A"}, "rejected", "missing"),
        (PAIR, {**PAIR, "rejected": " A "}, "rejected", "the same as the better one"),
        (PAIR, {**PAIR, "rejected": ""}, "rejected", "the worse answer is empty"),
        (PAIR, {**PAIR, "chosen": " "}, "chosen", "the answer is empty"),
        (PAIR, {**PAIR, "rejected": 7}, "rejected", "a number, not text"),
        (PAIR, {"chosen": "A", "rejected": "W"}, "prompt", "there is no prompt"),
        (
            PAIR,
            {"chosen": [USER, ANSWER], "rejected": [{"role": "user", "content": "other"}, WORSE]},
            "rejected",
            "different conversations",
        ),
        (PAIR, {"chosen": [USER], "rejected": [USER, WORSE]}, "chosen", "doesn't end in the assistant's answer"),
        (PAIR, {"chosen": "Assistant: A", "rejected": "Assistant: W"}, "chosen", "starts with an answer"),
        (LABEL, {**LABEL, "label": "so-so"}, "label", "says neither good nor bad"),
        (LABEL, {**LABEL, "label": None}, "label", "says neither good nor bad"),
        (LABEL, {**LABEL, "completion": ""}, "completion", "the answer is empty"),
        ({"prompt": "Q", "tests": "t"}, {"prompt": " ", "tests": "t"}, "prompt", "the prompt is empty"),
        ({"messages": [USER]}, {"messages": [SYSTEM]}, "messages", "the last message is the system's"),
    ],
)
def test_bad_rows_are_named_and_the_good_ones_kept(read, good, bad, field, message):
    report = read(good, bad, good)
    assert [example.row for example in report.examples] == [1, 3]
    (problem,) = report.problems
    assert (problem.row, problem.field) == (2, field) and message in problem.message and problem.fix


def test_a_mapping_names_both_sides(read):
    row = {"Frage": "Q", "gut": "A", "schlecht": "W", "Thema": "x"}
    report = read(row, mapping={"prompt": "Frage", "chosen": "gut", "rejected": "schlecht"})
    assert (report.examples[0].rejected, report.examples[0].columns) == ("W", {"Thema": "x"})


def test_a_column_called_label_that_holds_no_verdicts_is_a_column(read):
    report = read({"question": "Q", "answer": "A", "label": "geography"})
    assert (report.shape, report.format, report.examples[0].columns) == ("answers", "prompt_completion", {"label": "geography"})


def test_pairs_serve_answers_labels_and_prompts(read):
    row = {**PAIR, "level": 2}
    (answer,) = (report := read(row, shape="answers")).examples
    assert (answer.messages, answer.rejected, answer.columns) == ([USER, ANSWER], None, {"level": 2})
    assert report.shape == "answers" and "better answer of each is learned" in report.notes[0]
    good, bad = read(row, shape="labels").examples
    assert [(one.answer, one.good, one.row, one.rejected) for one in (good, bad)] == [("A", True, 1, None), ("W", False, 1, None)]
    (prompt,) = read(row, shape="prompts").examples
    assert (prompt.prompt, prompt.answer, prompt.rejected) == ([USER], "A", None)


def test_labels_serve_answers_by_the_good_ones(read):
    report = read(LABEL, {**LABEL, "completion": "W", "label": False}, shape="answers")
    assert [(one.answer, one.good) for one in report.examples] == [("A", None)] and report.notes
    with pytest.raises(DataError, match="no answer in the file was found good"):
        read({**LABEL, "label": False}, shape="answers")
    good, bad = read(LABEL, {**LABEL, "label": False}, shape="prompts").examples
    assert (good.answer, bad.answer, bad.prompt) == ("A", "", [USER])


def test_answers_serve_prompts_open_chats_among_them(read):
    report = read({"messages": [USER, ANSWER]}, {"messages": [USER, ANSWER]}, {"messages": MORE}, shape="prompts")
    assert [one.answer for one in report.examples] == ["A", "A", ""] and report.notes == [] and not report.problems
    assert read({"question": "Q", "answer": "A"}, shape="prompts").examples[0].answer == "A"
    some = read(*[{"prompt": "Q", "completion": [ANSWER]}] * 3, {"prompt": "Q"}, shape="prompts")
    assert [one.answer for one in some.examples] == ["A", "A", "A", ""] and not some.problems


def test_numbers_are_no_answers_to_learn_and_are_told_one_by_one(read):
    with pytest.raises(DataError, match="none of the 2 rows can be used; the first: the field is a number, not text"):
        read({"prompt": "Q", "completion": 1}, {"prompt": "R", "completion": 2}, shape="answers")


@pytest.mark.parametrize(
    ("row", "shape", "said"),
    [
        (
            {"prompt": "Q", "completion": "A"},
            "pairs",
            "these are prompts with answers, and pairs of a better and a worse answer are needed",
        ),
        ({"prompt": "Q", "completion": "A"}, "labels", "answers found good or bad are needed"),
        (LABEL, "pairs", "these are answers found good or bad"),
        ({"prompt": "Q"}, "answers", "these are prompts to try answers to, and prompts with answers are needed"),
        ({"messages": [USER]}, "answers", "these are prompts to try answers to"),
    ],
)
@pytest.mark.parametrize("how", ["auto", "named"])
def test_rows_that_cant_serve_say_what_they_are_and_what_to_do(read, row, shape, said, how):
    format = "auto" if how == "auto" else read(row).format
    with pytest.raises(DataError, match=said) as raised:
        read(row, format=format, shape=shape)
    assert "Give each row" in raised.value.next_step
    if row.get("completion"):
        assert "learn from examples (sft)" in raised.value.next_step


def test_every_layout_can_be_chosen_and_every_method_has_a_shape():
    assert sorted(CHOICES) == sorted(["auto", *FORMATS])
    assert {knowledge.shape(method) for method in METHODS} <= set(knowledge.shapes())
    assert [knowledge.shape(name) for name in ("sft", "dpo", "kto", "rl", "reward_model", "rlhf", "distill", "own_loss")] == [
        "answers", "pairs", "labels", "prompts", "preferences", "preferences", "prompts", "answers",
    ]  # fmt: skip
    with pytest.raises(NotFound):
        knowledge.shape("magic")


# -- what a recipe learns from


def recipe(path="", **values) -> Recipe:
    return Recipe.make({"data": {"path": str(path), **values.pop("data", {})}, **values})


def test_pairs_are_split_by_prompt(write):
    rows = [
        {"prompt": f"question {n // 3}", "chosen": f"good {n}", "rejected": f"bad {n}", "kind": "replay" if n < 6 else ""}
        for n in range(60)
    ]
    data = load_data(recipe(write("rows.jsonl", rows=rows), system_prompt="Be kind.", data={"held_out_fraction": 0.2}), shape="pairs")
    assert (len(data.train) + len(data.held_out), data.shape, data.replay_count) == (60, "pairs", 6)
    assert len(data.held_out) in range(9, 13) and not {one.kind for one in data.held_out} & {"replay"}
    asked = [{one.prompt[-1]["content"] for one in side} for side in (data.train, data.held_out)]
    assert not asked[0] & asked[1]
    for one in data.train + data.held_out:
        assert [messages[0]["content"] for messages in one.conversations()] == ["Be kind."] * 2
    both = load_data(recipe(write("rows.jsonl", rows=rows), data={"held_out_fraction": 0.2}), shape="labels")
    assert len(both.train) + len(both.held_out) == 120 and sum(bool(one.good) for one in both.held_out) == len(both.held_out) / 2


def test_prompts_without_answers_are_split_too(write):
    data = load_data(recipe(write("rows.jsonl", rows=[{"prompt": f"q {n}", "n": n} for n in range(50)])), shape="prompts")
    assert (len(data.train), len(data.held_out)) == (45, 5) and data.train[0].columns["n"] == 0
    assert all(one.prompt == one.messages and one.answer == "" for one in data.train)


@pytest.mark.parametrize(("shape", "train", "held_out"), [("pairs", 1500, 200), ("labels", 3000, 400), ("prompts", 4478, 400)])
def test_the_demo_in_every_shape(shape, train, held_out):
    data = load_data(recipe(data={"demo": "piglatin", "path": ""}), shape=shape)
    assert (len(data.train), len(data.held_out), data.shape) == (train, held_out, shape)
    asked = [{one.prompt[-1]["content"] for one in side} for side in (data.train, data.held_out)]
    assert not asked[0] & asked[1]
    assert all(one.answer for one in data.held_out)
    with pytest.raises(DataError, match="caesar has no pairs") as raised:
        load_data(recipe(data={"demo": "caesar", "path": ""}), shape="pairs")
    assert "piglatin" in raised.value.next_step


def numbered(name: str, count: int) -> list[dict]:
    return [{"prompt": f"{name} {n}", "completion": "A"} for n in range(count)]


def test_mixed_in_data_keeps_the_proof_of_the_main_one(write):
    other = write("other.jsonl", rows=numbered("other", 30) + numbered("main", 100))
    mix = [{"path": str(other), "weight": 0.25}, {"demo": "camelcase", "weight": 0.25}]
    data = load_data(recipe(write("main.jsonl", rows=numbered("main", 100)), data={"mix": mix}))
    assert len(data.held_out) == 10 and all(one.source == 0 for one in data.held_out)
    held_out = {one.answer and one.prompt[-1]["content"] for one in data.held_out}
    assert not held_out & {one.prompt[-1]["content"] for one in data.train}
    counts = [sum(one.source == source for one in data.train) for source in range(3)]
    assert counts[:2] == [90, 120] and counts[2] > 1000
    # Half of what is drawn is from the main source: 90 rows of it, and as many from the others together.
    assert (data.shares, data.epoch) == ((0.5, 0.25, 0.25), 180)
    for bad, said in (([{"weight": 0.5}], "one of demo, path and dataset"), ([{"demo": "caesar", "weight": 0.5}] * 2, "below 1")):
        with pytest.raises(Exception, match=said):
            recipe(other, data={"mix": bad})
