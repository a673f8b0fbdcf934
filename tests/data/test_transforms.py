"""What can be done to every example: each function on texts worked out by hand, on rows of every shape, and through a recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from engine import knowledge
from engine.data import load_data
from engine.data.examples import Example
from engine.data.transforms import FUNCTIONS, changed
from engine.errors import DataError
from engine.recipe import TRANSFORMS, Recipe, Transform


def row(answer: str, prompt: str = "Ask", **more: object) -> Example:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return Example(messages, more.pop("row", 3), **more)  # type: ignore[arg-type]


def one(example: Example, **change: object) -> Example:
    (found,), problems = changed([example], [Transform(**change)])  # type: ignore[arg-type]
    assert not problems
    return found


@pytest.mark.parametrize(
    ("change", "before", "after"),
    [
        ({"kind": "strip"}, "  a  \n b \n\n", "a\n b"),
        ({"kind": "one_line"}, " a\n\n b\tc ", "a b c"),
        ({"kind": "lower_case"}, "SPAM", "spam"),
        ({"kind": "first_paragraph"}, "\nOne\ntwo\n \nthree", "One\ntwo"),
        ({"kind": "first_line"}, "\n  One \ntwo", "One"),
        (
            {"kind": "plain_text"},
            "# Head\n- **bold** and *soft* `x = a * b * c`, [link](http://a.b)",
            "Head\nbold and soft x = a * b * c, link",
        ),
        ({"kind": "plain_text"}, "2 * 3 * 4 and snake_case", "2 * 3 * 4 and snake_case"),
        ({"kind": "unfence"}, 'Here:\n```json\n{"a": 1}\n```\nDone', '{"a": 1}'),
        ({"kind": "unfence"}, "no fence", "no fence"),
        ({"kind": "compact_json"}, '{ "ü": [1,\n 2] }', '{"ü":[1,2]}'),
        ({"kind": "drop_thoughts"}, "<think>hm\nso</think>\n\nYes", "Yes"),
        ({"kind": "at_most_words", "words": 3}, "one two three", "one two three"),
        ({"kind": "replace", "find": "a.c", "text": "-"}, "abc a.c", "abc -"),
        ({"kind": "template", "text": "<{answer}>"}, "x", "<x>"),
    ],
)
def test_each_function(change: dict, before: str, after: str) -> None:
    assert one(row(before), **change).answer == after


def test_every_kind_is_there_and_explained() -> None:
    assert {*FUNCTIONS, "template", "system"} == set(TRANSFORMS) == set(knowledge.transforms())
    for entry in knowledge.transforms().values():
        assert entry["title"] and entry["meaning"] and set(entry["fields"]) <= set(Transform.model_fields)


def test_a_system_message_takes_the_place_of_any_other() -> None:
    talk = [{"role": "system", "content": "Old"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for found in (one(Example(talk, 1), kind="system", text="New"), one(Example(talk[1:], 1), kind="system", text="New")):
        assert found.messages == [{"role": "system", "content": "New"}, *talk[1:]]
    assert one(row("KEEP", kind="replay"), kind="system", text="New").messages[0]["role"] == "user", "older skills go without"
    pair = one(row("GOOD", rejected="BAD"), kind="system", text="New")
    assert [side[0]["content"] for side in pair.conversations()] == ["New", "New"]
    with pytest.raises(ValidationError, match="needs the text"):
        Transform(kind="system")


def test_every_shape_goes_through() -> None:
    pair = one(row("GOOD", rejected="BAD"), kind="lower_case")
    assert (pair.answer, pair.rejected, pair.prompt[0]["content"]) == ("good", "bad", "Ask")
    both = one(row("GOOD", good=False), kind="lower_case", part="both")
    assert (both.answer, both.good, both.prompt[0]["content"]) == ("good", False, "ask")
    prompt = one(Example([{"role": "user", "content": " Ask "}], 1), kind="strip", part="both")
    assert prompt.messages == [{"role": "user", "content": "Ask"}] and prompt.answer == ""
    replay = row("KEEP", kind="replay")
    assert one(replay, kind="lower_case").answer == "KEEP", "older skills stay as they are"


def test_a_template_is_about_the_last_turn_and_takes_columns() -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    example = Example([*talk, {"role": "assistant", "content": "d"}], 1, columns={"topic": "t", "n": [1]})
    found = one(example, kind="template", part="prompt", text='{topic}/{n}: {prompt} {"k": {other}}')
    assert [message["content"] for message in found.messages] == ["a", "b", 't/[1]: c {"k": {other}}', "d"]
    assert example.messages[2]["content"] == "c", "what was read stays as it was"
    kept, problems = changed([example, row("x", row=9)], [Transform(kind="template", part="prompt", text="{topic} {prompt}")])
    assert len(kept) == 1 and (problems[0].row, problems[0].field) == (9, "prompt") and "'topic'" in problems[0].message


def test_rows_that_cannot_be_changed_are_named() -> None:
    rows = [row("not json", row=1), row("{}", row=2), row("one two three", row=3, rejected="x")]
    kept, problems = changed(rows, [Transform(kind="compact_json")])
    assert [example.row for example in kept] == [2] and [problem.row for problem in problems] == [1, 3]
    assert "no JSON" in problems[0].message and problems[0].fix
    assert changed([row("a b c")], [Transform(kind="at_most_words", words=2)])[1][0].message.startswith("at_most_words: it has 3 words")
    assert "nothing is left" in changed([row("<think>only")], [Transform(kind="drop_thoughts")])[1][0].message
    assert changed([row("A", rejected="a")], [Transform(kind="lower_case")])[1][0].field == "rejected"


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "template", "text": "no place"},
        {"kind": "template", "part": "both", "text": "{prompt}"},
        {"kind": "replace"},
        {"kind": "at_most_words"},
        {"kind": "shout"},
    ],
)
def test_a_change_that_cannot_be_is_refused(change: dict) -> None:
    with pytest.raises(ValidationError):
        Transform(**change)


def test_through_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"prompt": f" q{n} ", "completion": f'```json\n{{"n": {n}}}\n```'}) + "\n" for n in range(20)))
    with file.open("a") as more:
        more.write(json.dumps({"prompt": "q", "completion": "sorry"}) + "\n")
    spec = {"path": str(file), "transforms": [{"kind": "unfence"}, {"kind": "compact_json"}, {"kind": "strip", "part": "prompt"}]}
    found = load_data(Recipe.make({"data": spec}))
    assert len(found.train) + len(found.held_out) == 20
    assert {example.answer for example in found.train} <= {f'{{"n":{n}}}' for n in range(20)}
    assert all(not example.prompt[0]["content"].startswith(" ") for example in found.train + found.held_out)
    assert [problem.row for problem in found.problems] == [21]
    with pytest.raises(DataError, match="nothing is left of 21 rows"):
        load_data(Recipe.make({"data": {**spec, "transforms": [{"kind": "compact_json"}]}}))
    noted = load_data(
        Recipe.make({"data": {"path": str(file), "transforms": [{"kind": "template", "part": "prompt", "text": "{prompt} {ctx}"}]}})
    )
    assert any("'ctx'" in note for note in noted.notes)
