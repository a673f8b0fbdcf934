"""Splits that are the same every time and never let a held-out prompt into training."""

from __future__ import annotations

import pytest

from engine.data import Example, load_data, unseen
from engine.data.dataset import DataSet
from engine.errors import DataError
from engine.recipe import Recipe


def recipe(path="", **values) -> Recipe:
    data = {"path": str(path), **values.pop("data", {})}
    return Recipe.make({"data": data, **values})


def numbered(count: int, **more: str) -> list[dict]:
    return [{"prompt": f"question {number}", "completion": f"answer {number}", **more} for number in range(count)]


def prompts(examples) -> list[str]:
    return [example.prompt[-1]["content"] for example in examples]


def assert_apart(data: DataSet) -> None:
    trained = {prompt for example in data.train for prompt in example.prompts()}
    assert not [example for example in data.held_out if list(example.prompts())[-1] in trained]


def test_a_tenth_is_held_out_and_nothing_is_lost(write):
    path = write("rows.jsonl", rows=numbered(100))
    data = load_data(recipe(path))
    assert (data.name, len(data.train), len(data.held_out), data.replay_count, data.problems) == ("rows", 90, 10, 0, [])
    assert sorted(prompts(data.train) + prompts(data.held_out)) == sorted(f"question {number}" for number in range(100))
    assert_apart(data)


def test_the_split_depends_on_the_seed_alone(write):
    path = write("rows.jsonl", rows=numbered(100))
    backwards = write("backwards.jsonl", rows=numbered(100)[::-1])
    held_out = prompts(load_data(recipe(path)).held_out)
    assert prompts(load_data(recipe(path)).held_out) == held_out
    assert sorted(prompts(load_data(recipe(backwards)).held_out)) == sorted(held_out)
    assert prompts(load_data(recipe(path, seed=1)).held_out) != held_out


@pytest.mark.parametrize(
    ("count", "spec", "held_out"),
    [
        (9, {"held_out_fraction": 0.05}, 0),
        (10, {"held_out_fraction": 0.01}, 1),
        (50, {"held_out_fraction": 0}, 0),
        (50, {"held_out_max": 3}, 3),
    ],
)
def test_how_many_are_held_out(write, count, spec, held_out):
    data = load_data(recipe(write("rows.jsonl", rows=numbered(count)), data=spec))
    assert (len(data.train), len(data.held_out)) == (count - held_out, held_out)


def test_the_same_prompt_stays_on_one_side(write):
    rows = [{"prompt": f"question {number // 2}", "completion": f"answer {number}"} for number in range(40)]
    data = load_data(recipe(write("rows.jsonl", rows=rows), data={"held_out_fraction": 0.25}))
    assert len(data.held_out) == 10
    assert_apart(data)


def test_a_prompt_that_is_part_of_a_longer_conversation_is_not_held_out(write):
    first = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    longer = [[*first, {"role": "user", "content": f"more {number}"}, {"role": "assistant", "content": "OK"}] for number in range(20)]
    path = write("rows.jsonl", rows=[{"messages": messages} for messages in [first, *longer]])
    for seed in range(5):
        data = load_data(recipe(path, seed=seed, data={"held_out_fraction": 0.5}))
        assert len(data.train) + len(data.held_out) == 21
        assert_apart(data)


def test_replay_rows_are_never_held_out(write):
    path = write("rows.jsonl", rows=numbered(20) + [{**row, "prompt": "old " + row["prompt"], "kind": "replay"} for row in numbered(20)])
    data = load_data(recipe(path, data={"held_out_fraction": 0.5}))
    assert data.replay_count == 20 and {example.kind for example in data.held_out} == {"task"}


def test_a_file_of_its_own_for_the_proof(write):
    train = write("train.jsonl", rows=numbered(10))
    held_out = write("held_out.jsonl", rows=numbered(12))
    data = load_data(recipe(train, data={"held_out_path": str(held_out)}))
    assert (len(data.train), prompts(data.held_out)) == (10, ["question 10", "question 11"])
    assert len(data.problems) == 10 and "in the training data too" in data.problems[0].message
    with pytest.raises(DataError, match="nothing could be proven"):
        load_data(recipe(train, data={"held_out_path": str(train)}))


def test_problems_of_the_file_come_along(write):
    data = load_data(recipe(write("rows.jsonl", rows=[*numbered(5), {"prompt": "Hi"}])))
    assert [problem.place for problem in data.problems] == ["line 6, completion"]


def test_the_system_prompt_leads_every_conversation(write):
    data = load_data(recipe(write("rows.jsonl", rows=numbered(20)), system_prompt="Be kind."))
    for example in [*data.train, *data.held_out, *data.skills]:
        assert example.messages[0] == {"role": "system", "content": "Be kind."}
        assert len(example.messages) == 3


def test_general_skills_come_with_nano_or_on_demand(write):
    path = write("rows.jsonl", rows=numbered(20))
    assert len(load_data(recipe(path, evaluation={"skills_max": 30})).skills) == 30
    assert load_data(recipe(path, base_model="Qwen/Qwen3-0.6B")).skills == []
    assert load_data(recipe(path), skills=False).skills == []
    assert load_data(recipe(path, base_model="my/folder"), skills=True).skills


def test_a_recipe_without_data_and_an_unknown_demo():
    with pytest.raises(DataError, match="names no data"):
        load_data(Recipe())
    with pytest.raises(DataError, match="no demo called 'klingon'") as caught:
        load_data(Recipe.make({"data": {"demo": "klingon"}}))
    assert "piglatin" in caught.value.next_step


def test_what_another_stage_learns_is_nothing_to_prove_on():
    def row(prompt, number):
        return Example([{"role": "user", "content": prompt}, {"role": "assistant", "content": "yes"}], number)

    earlier = DataSet("a", [row("one", 1), row("two", 2)], [], [], 0, [])
    data = DataSet("b", [row("four", 1)], [row("two", 2), row("three", 3)], [], 0, [], notes=["as it came"])
    left = unseen(data, earlier)
    assert [example.row for example in left.held_out] == [3] and left.train == data.train
    assert left.notes == ["as it came", "1 held-out rows were left out of the proof: an earlier stage learns their prompts"]
    assert unseen(data, data) is data
