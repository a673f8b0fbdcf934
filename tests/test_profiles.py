"""Profiles: those that ship, a person's own, what they do to data, and that a run stays what it was when one changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine, Recipe, data
from engine.errors import NotFound, RecipeError


@pytest.fixture
def engine(nothing_starts: list[str]) -> Iterator[Engine]:
    with Engine() as made:
        yield made


@pytest.fixture
def fenced(tmp_path: Path) -> Path:
    file = tmp_path / "fenced.jsonl"
    rows = [
        {"prompt": f"Number {n}", "completion": f'Here it is:\n```json\n{{"n": {n},\n "even": {str(n % 2 == 0).lower()}}}\n```'}
        for n in range(30)
    ]
    rows.append({"prompt": "Anything", "completion": "No."})
    file.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    return file


def test_the_two_that_ship_are_whole(engine: Engine) -> None:
    shipped = engine.profiles.list()
    assert [profile.name for profile in shipped] == ["Concise answers", "JSON only"]
    for profile in shipped:
        assert profile.meaning and profile.use_when and profile.system_prompt and profile.transforms and profile.stop and not profile.own
    assert all(change.kind in engine.profiles.kinds() for profile in shipped for change in profile.transforms)


def test_a_recipe_takes_its_content_over_once(engine: Engine, fenced: Path) -> None:
    recipe = Recipe.make({"profile": "JSON only", "data": {"path": str(fenced)}, "stop": ["END"]})
    job = engine.launch(recipe)
    launched = job.recipe
    assert launched.profile.startswith("JSON only@") and launched.stop == ("\n", "END")
    assert launched.system_prompt == "Answer with one line of JSON and nothing else."
    assert [change.kind for change in launched.data.transforms] == ["drop_thoughts", "unfence", "strip", "compact_json"]
    again = engine.launch(engine.runs.again(job.id))
    assert again.recipe.data == launched.data and again.recipe.profile == launched.profile
    own = engine.launch(recipe.merged({"system_prompt": "Mine."}))
    assert own.recipe.system_prompt == "Mine."
    with pytest.raises(NotFound, match="no profile called 'Yaml'"):
        engine.launch(recipe.merged({"profile": "Yaml"}))


def test_a_run_stays_what_it_was_when_the_profile_changes(engine: Engine, fenced: Path) -> None:
    engine.profiles.save("Mine", transforms=[{"kind": "lower_case"}], stop=["."])
    recipe = Recipe.make({"profile": "Mine", "data": {"path": str(fenced)}})
    job = engine.launch(recipe)
    before = engine.profiles.get("Mine").mark
    engine.profiles.save("Mine", transforms=[{"kind": "one_line"}])
    assert engine.profiles.get("Mine").mark != before
    assert [change.kind for change in engine.job(job.id).recipe.data.transforms] == ["lower_case"]
    assert [change.kind for change in engine.launch(engine.runs.again(job.id)).recipe.data.transforms] == ["lower_case"]
    assert [change.kind for change in engine.launch(recipe).recipe.data.transforms] == ["one_line"]
    engine.profiles.delete("Mine")
    assert engine.launch(engine.runs.again(job.id)).recipe.stop == (".",)
    with pytest.raises(NotFound):
        engine.launch(recipe)


def test_effects_show_the_first_row_and_what_is_left_out(engine: Engine, fenced: Path) -> None:
    found = engine.profiles.effects(Recipe.make({"profile": "JSON only", "data": {"path": str(fenced), "held_out_fraction": 0}}), count=2)
    assert (found.left_out, found.total) == (1, 31)
    first = found.rows[0]
    assert first.before[1][1].startswith("Here it is:") and first.after[-1] == ("answer", '{"n":0,"even":true}')
    assert first.after[0] == ("system", "Answer with one line of JSON and nothing else.")


def test_the_two_sides_of_a_pair_are_told_apart(engine: Engine, tmp_path: Path) -> None:
    """They have the same row number, and only one of them is left out."""
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"p{n}", "chosen": "yes", "rejected": "no no no"}) + "\n" for n in range(6)))
    spec = {"path": str(file), "held_out_fraction": 0, "transforms": [{"kind": "at_most_words", "words": 2}]}
    found = engine.profiles.effects(Recipe.make({"method": "kto", "data": spec}), count=2)
    assert (found.left_out, found.total) == (6, 12)
    assert [bool(row.left_out) for row in found.rows] == [False, True] and found.rows[0].after[-1] == ("answer", "yes")


def test_the_planner_counts_what_is_learned(engine: Engine, fenced: Path) -> None:
    plain = engine.planner.suggest({"data": {"path": str(fenced)}})
    found = engine.planner.suggest({"data": {"path": str(fenced)}, "profile": "JSON only"})
    assert found.recipe.profile.startswith("JSON only@")
    assert found.reasons["system_prompt"]["reason"] == "From the profile JSON only."
    before, after = (engine.planner.figures(one.recipe) for one in (plain, found))
    assert after["answer_mean"] < before["answer_mean"] * 0.6
    seen = engine.planner.preview(found.recipe, 1)[0]
    assert "one line of JSON" in seen.pieces[0][0] and '"even":' in seen.pieces[1][0]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("", {"stop": ["x"]}),
        ("JSON only", {"stop": ["x"]}),
        ("a@b", {"stop": ["x"]}),
        ("Empty", {}),
        ("Bad", {"transforms": [{"kind": "no"}]}),
    ],
)
def test_a_profile_that_cannot_be_is_refused(engine: Engine, name: str, content: dict) -> None:
    with pytest.raises(RecipeError):
        engine.profiles.save(name, **content)
    assert all(not profile.own for profile in engine.profiles.list())


def test_what_ships_cannot_be_deleted(engine: Engine) -> None:
    with pytest.raises(RecipeError):
        engine.profiles.delete("JSON only")


def test_what_another_version_kept_is_passed_over(engine: Engine) -> None:
    engine.store.set_setting("local", "profiles", {"Odd": {"transforms": [{"kind": "from the future"}]}, "Fine": {"stop": ["x"]}})
    assert [profile.name for profile in engine.profiles.list() if profile.own] == ["Fine"]


def test_effects_are_worked_out_once_until_something_changes(engine: Engine, fenced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Recipe] = []
    load = data.load_data
    monkeypatch.setattr(data, "load_data", lambda recipe, **how: read.append(recipe) or load(recipe, **how))
    recipe = Recipe.make({"profile": "JSON only", "data": {"path": str(fenced)}})
    first = engine.profiles.effects(recipe)
    assert engine.profiles.effects(recipe) == first and len(read) == 1 and (first.left_out, first.total) == (1, 28)
    with fenced.open("a", encoding="utf-8") as file:
        file.write('{"prompt": "More", "completion": "No."}\n')
    assert engine.profiles.effects(recipe) != first and len(read) == 2
