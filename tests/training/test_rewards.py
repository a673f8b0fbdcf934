"""Each kind of reward, on answers whose scores were worked out by hand; sums, notes, and what is said where nothing can be scored."""

from __future__ import annotations

from typing import Any

import pytest

from engine import knowledge
from engine.errors import RecipeError
from engine.recipe import Reward
from engine.recipe.methods import REWARDS
from engine.training.rewards import ASKING, Rollout, Score, labels, make_reward, needs_endpoint
from engine.training.rewards.numbers import last_number, same
from engine.training.rewards.programs import code_of
from engine.training.rewards.shape import find_json

ASK = [{"role": "user", "content": "How much is it?"}]
Parts = dict[str, Any] | list[dict[str, Any]]


def scores(parts: Parts, *answers: Any, expected: str = "", columns: dict[str, Any] | None = None) -> list[Score]:
    spec = Reward.model_validate({"parts": parts if isinstance(parts, list) else [parts]})
    rollouts = [one if isinstance(one, Rollout) else Rollout(ASK, one, expected, columns or {}) for one in answers]
    reward = make_reward(spec, None)
    try:
        return reward.score(rollouts)
    finally:
        reward.close()


def values(parts: Parts, *answers: Any, **known: Any) -> list[float]:
    return [score.value for score in scores(parts, *answers, **known)]


def test_exact_and_normalised() -> None:
    answers = ("Paris", " Paris\n", "paris", "The Paris!", "Paris, France")
    assert values({"kind": "exact"}, *answers, expected="Paris") == [1, 1, 0, 0, 0]
    assert values({"kind": "normalised"}, *answers, expected="Paris") == [1, 1, 1, 1, 0]
    assert scores([{"kind": "exact"}, {"kind": "length", "longest": 5}], "a", expected="b")[0].note == "exact: expected 'b'"
    # Punctuation alone has no words to compare.
    assert values({"kind": "normalised"}, "!", "?", expected="?") == [0, 1]


def test_a_column_can_hold_what_is_expected_and_several_right_answers() -> None:
    columns = {"aliases": ["NYC", "New York"], "n": 7}
    assert values({"kind": "normalised", "expected": "aliases"}, "new york", "nyc", "Boston", columns=columns) == [1, 1, 0]
    assert values({"kind": "numeric", "expected": "n"}, "7.0", "8", columns=columns) == [1, 0]
    with pytest.raises(RecipeError, match=r"no column 'aliasses'.*aliases, n"):
        scores({"kind": "exact", "expected": "aliasses"}, "a", "b", columns=columns)


NUMBERS = [
    ("42", 42), ("-42", -42), ("−42", -42), ("+3.50", 3.5), (".5", 0.5), ("1,234,567", 1234567), ("1,234.5", 1234.5),
    ("It is 12.", 12), ("first 3, then 4", 4), ("$1,000", 1000), ("-$5", -5), ("3/4", 0.75), ("-3/4", -0.75), ("1 1/2", 1.5), ("2e3", 2000),
    ("1.5e-3", 0.0015), (r"3 \times 10^{4}", 30000), (r"\frac{3}{4}", 0.75), (r"-\dfrac{1}{2}", -0.5), (r"\boxed{7} and 8", 7),
    (r"\boxed{\frac{1}{4}}", 0.25), (r"\boxed{1{,}234}", 1234), (r"so \boxed{x = 5}", 5), ("5 + 5\n#### 10\nwell, 11", 10),
    ("The answer is 12 because 3 x 4 = 12, not 13", 12), ("Answer: -3", -3), ("5-3", 3), ("3,14", 3.14), ("1.234,56", 1234.56),
    ("10 / 4", 2.5), ("1, 2, 3", 3), ("2024-05-06", 6), (r"\$25", 25), ("USD25", 25), ("答案是42。", 42), ("10 - 5", 5),
]  # fmt: skip


@pytest.mark.parametrize(("text", "number"), NUMBERS)
def test_numbers_are_read(text: str, number: float) -> None:
    found = last_number(text)
    assert found is not None and float(found[0]) == pytest.approx(number, rel=1e-12) and not found[1]


def test_texts_without_a_number() -> None:
    assert [last_number(text) for text in ("", "none", "one two", r"\boxed{}", "1/0", "9" * 5000)] == [None] * 6


def test_percent_and_tolerance() -> None:
    assert values({"kind": "numeric"}, "50 %", "0.5", "50", "0.05", expected="50%") == [1, 1, 1, 0]
    assert values({"kind": "numeric"}, r"12.5\%", "12.5 percent", "13%", expected="0.125") == [1, 1, 0]
    assert values({"kind": "numeric", "tolerance": 0.01}, "101", "99", "101.1", expected="100") == [1, 1, 0]
    assert values({"kind": "numeric", "tolerance": 0.01}, "0.005", "0.02", expected="0") == [1, 0]
    # Beyond what a float can tell apart, and beyond what it can hold.
    assert values({"kind": "numeric", "tolerance": 0}, "9007199254740993", "9007199254740992", expected="9007199254740993") == [1, 0]
    assert values({"kind": "numeric"}, "1e999", "9" * 400, expected="5") == [0, 0]
    assert same(*(last_number(text) for text in ("0.333333333", "1/3")), 1e-6)
    found = scores({"kind": "numeric"}, "no idea", "about 7", expected="8")
    assert [one.note for one in found] == ["the answer holds no number", "says 7, expected 8"]
    with pytest.raises(RecipeError, match="holds no number"):
        scores({"kind": "numeric"}, "1", expected="one")


def test_regex() -> None:
    assert values({"kind": "regex", "pattern": "a+b"}, "xAAB", "ab", "b") == [1, 1, 0]
    assert values({"kind": "regex", "pattern": "a+b", "whole": True, "ignore_case": False}, " aab ", "xab", "AB") == [1, 0, 0]
    slow = scores({"kind": "regex", "pattern": "(a|a)+$"}, "a" * 40 + "b", "a")
    assert slow[0].failed and "takes longer" in slow[0].note and slow[1].value == 1


def test_contains() -> None:
    texts = {"kind": "contains", "texts": ["red", "Blue"]}
    answers = ("red and blue", "RED", "green")
    assert values({**texts, "want": "all"}, *answers) == [1, 0, 0]
    assert values({**texts, "want": "any"}, *answers) == [1, 1, 0]
    assert values({**texts, "want": "none"}, *answers) == [0, 0, 1]
    assert values({**texts, "want": "share"}, *answers) == [1, 0.5, 0]
    assert values({**texts, "ignore_case": False}, "red and blue", "red and Blue") == [0, 1]
    assert values({"kind": "contains"}, "it is 42, I think", "41", expected="42") == [1, 0]


def test_json_schema() -> None:
    form = {"type": "object", "required": ["name"], "properties": {"age": {"type": "integer"}, "name": {"pattern": "^[A-Z]"}}}
    part = {"kind": "json_schema", "form": form}
    good = [
        '{"name": "Ann", "age": 7}',
        'Sure:\n```json\n{"name": "Ann"}\n```\nDone.',
        'It is {"name": "Ann"}, I think.',
        '```\n{"name": "B"}',
    ]
    assert values(part, *good) == [1, 1, 1, 1]
    bad = scores(part, "Ann", '{"age": 7}', '{"name": "Ann", "age": "7"}', '{"name": "ann"}', '{"name": "Ann"', "[1]")
    assert [one.value for one in bad] == [0] * 6
    assert bad[0].note == "holds no JSON" and "'name' is a required property" in bad[1].note and bad[2].note.startswith("age: ")
    assert find_json("null") == (None,) and find_json("[" * 100_000) is None
    with pytest.raises(RecipeError, match="no JSON schema") as caught:
        scores({"kind": "json_schema", "form": {"type": "objekt"}}, "{}")
    assert caught.value.where == "recipe reward.parts.0.form"
    # Nothing is fetched from anywhere: what can't be followed is told.
    with pytest.raises(RecipeError, match="can't be held against it"):
        scores({"kind": "json_schema", "form": {"$ref": "http://127.0.0.1:1/schema"}}, "{}")


def test_length_falls_in_a_line() -> None:
    words = {"kind": "length", "shortest": 4, "longest": 10}
    texts = [" ".join(["w"] * n) for n in (0, 1, 3, 4, 10, 11, 15, 20, 30)]
    assert values(words, *texts) == pytest.approx([0, 0.25, 0.75, 1, 1, 0.9, 0.5, 0, 0])
    assert values({"kind": "length", "longest": 3, "unit": "characters"}, "abc", "abcd") == pytest.approx([1, 2 / 3])
    tokens = [Rollout(ASK, "x", tokens=n) for n in (5, 15)]
    assert values({"kind": "length", "longest": 10, "unit": "tokens"}, *tokens) == [1, 0.5]
    assert values({"kind": "length", "longest": 0}, "", "a") == [1, 0]


FENCED = "Here:\n```python\ndef double(n):\n    return {}\n```\nThat is it."


def test_code_is_put_to_its_tests() -> None:
    tests = {"tests": "assert double(1) == 2\nassert double(2) == 4\nassert double(0) == 0"}
    answers = [FENCED.format("2 * n"), FENCED.format("n * n"), "def double(n): return n + n", "I can't.", FENCED.format("1 / 0"), ""]
    found = scores({"kind": "code_tests", "seconds": 2}, *answers, columns=tests)
    assert [one.value for one in found] == pytest.approx([1, 2 / 3, 1, 0, 0, 0])
    assert found[1].note == "2 of 3 tests pass; failed: assert double(1) == 2"
    assert "SyntaxError" in found[3].note and "ZeroDivisionError" in found[4].note and found[5].note == "the answer holds no code"
    assert values({"kind": "code_tests", "every_test": True}, *answers[:2], columns=tests) == [1, 0]
    loop = scores({"kind": "code_tests", "seconds": 0.5}, "while True: pass", columns=tests)[0]
    assert loop.value == 0 and "longer than 0.5 seconds" in loop.note


def test_tests_come_in_several_forms() -> None:
    double = "def double(n): return 2 * n"
    functions = "def test_a():\n  assert double(1) == 2\ndef test_b():\n  assert double(2) == 5"
    for tests in (["assert double(1) == 2", "assert double(2) == 5"], functions):
        assert values({"kind": "code_tests", "tests": "test_list"}, double, columns={"test_list": tests}) == [0.5]
    check = {"tests": "def check(candidate):\n  assert candidate(1) == 2\n  assert candidate(2) == 5", "entry_point": "double"}
    assert values({"kind": "code_tests"}, double, columns=check) == [0.5]
    program = "n = int(input())\nprint(2 * n, ' ')\nprint()"
    cases = [{"input": "1\n", "output": "2"}, {"input": "2", "output": "5\n"}]
    found = scores({"kind": "code_tests"}, program, columns={"tests": cases})[0]
    assert found.value == 0.5 and "case 2: prints '4', expected '5'" in found.note
    inputs = '{"inputs": ["1\\n", "4\\n"], "outputs": ["2\\n", "8\\n"]}'
    assert values({"kind": "code_tests"}, program, columns={"tests": inputs}) == [1]


LACKING = [({}, "no tests in a column 'tests'"), ({"tests": "x = 1"}, "hold no test"), ({"tests": "assert ="}, "aren't Python")]


@pytest.mark.parametrize(("columns", "says"), LACKING)
def test_rows_without_tests_are_told(columns: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says) as caught:
        scores({"kind": "code_tests"}, "def f(): pass", columns=columns)
    assert caught.value.where == "reward code_tests"


def test_the_last_fence_of_python_is_the_code() -> None:
    assert code_of("```python\na\n```\ntalk\n```py\nb\n```\n```text\nc\n```") == "b"
    assert code_of("```js\na\n```") == "a" and code_of("plain") == "plain" and code_of("```python\ncut off") == "cut off"


OWN = """
import math

def reward(prompt, answer, expected, row):
    print("looked at", len(answer))
    if answer == "boom":
        return 1 / 0
    if answer == "text":
        return "good"
    if answer == "nan":
        return math.nan
    if answer == "none":
        return None
    return len(answer) + row["bonus"] + (prompt == "How much is it?") + row["tokens"] + (len(row["messages"]) == 1)
"""


def test_a_function_of_ones_own() -> None:
    answers = ["abc", "boom", "text", "nan", "none"]
    found = scores({"kind": "python", "code": OWN}, *answers, columns={"bonus": 0.5, "odd": object()})
    assert found[0].value == 5.5 and not found[0].failed
    assert [one.failed for one in found[1:]] == [True] * 4 and [one.value for one in found[1:]] == [0] * 4
    assert "line 7: ZeroDivisionError" in found[1].note and "gave back 'good', not a number" in found[2].note
    assert "nan is no number" in found[3].note and "is there a return?" in found[4].note


def test_a_function_that_cannot_work_is_an_error() -> None:
    with pytest.raises(RecipeError, match="line 2: ") as caught:
        scores({"kind": "python", "code": "x = 1\ndef reward(:"}, "a")
    assert caught.value.where == "recipe reward.parts.0.code"
    with pytest.raises(RecipeError, match=r"not one of 2 answers could be scored: .*no function called reward"):
        scores({"kind": "python", "code": "x = 1"}, "a", "b")
    with pytest.raises(RecipeError, match="line 2: NameError"):
        scores({"kind": "python", "code": "def reward(*a):\n  return undefined"}, "a")


def test_a_function_is_given_the_column_as_it_is() -> None:
    code = "def reward(prompt, answer, expected, row):\n  return sum(expected[name] for name in answer.split())"
    part = {"kind": "python", "code": code, "expected": "points"}
    assert values(part, "a b", "b", columns={"points": {"a": 1, "b": 2.5}}) == [3.5, 2.5]
    with pytest.raises(RecipeError, match="no row has a column 'points'"):
        scores(part, "a", columns={"point": {}})


SPY = """
import os

def reward(*given):
    try:
        os.listdir("/home")
    except OSError:
        return sum("tml" in value for value in os.environ.values())
    return 9
"""


def test_a_function_sees_nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "tml-secret")
    assert values({"kind": "python", "code": SPY}, "a") == [0]


def test_parts_are_weighed_and_named() -> None:
    parts = [
        {"kind": "exact", "weight": 2},
        {"kind": "length", "longest": 1, "weight": -0.5, "name": "long"},
        {"kind": "exact", "expected": "other"},
    ]
    good, bad = scores(parts, "a", "b c", expected="a", columns={"other": "b c"})
    assert good.value == 2 - 0.5 and good.parts == {"exact": 1, "long": 1, "exact 2": 0}
    assert bad.value == 1 and bad.parts == {"exact": 0, "long": 0, "exact 2": 1}
    assert bad.note == "exact: expected 'a'; long: 2 words, at most 1 wanted" and good.note == "exact 2: expected 'b c'"
    assert labels(Reward.model_validate({"parts": [{"kind": "exact"}] * 3}).parts) == ["exact", "exact 2", "exact 3"]
    assert scores(parts) == []


def test_models_are_needed_for_some_only() -> None:
    judged = Reward.model_validate({"parts": [{"kind": "judge", "rubric": "good?", "model": "nano"}]})
    assert needs_endpoint(judged) and not needs_endpoint(Reward())
    with pytest.raises(RecipeError, match="can't be reached from here"):
        make_reward(judged, None)


@pytest.mark.parametrize("kind", [kind for kind in REWARDS if kind not in ASKING])
def test_the_examples_that_people_are_shown_hold(kind: str) -> None:
    example = knowledge.rewards()[kind]["example"]
    known = {"expected": example["expected"], "columns": example.get("columns")}
    good, bad = values({"kind": kind, **example["part"]}, example["good"], example["bad"], **known)
    assert good == 1 and bad < 1


def test_every_kind_is_explained() -> None:
    told = knowledge.rewards()
    assert set(told) == set(REWARDS)
    for entry in told.values():
        assert entry["title"] and entry["meaning"].endswith(".") and entry["use_when"] and entry["pitfalls"]


@pytest.mark.parametrize("kind", ["regex", "json_schema", "judge", "reward_model", "python", "length"])
def test_parts_that_lack_what_they_need_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="needs"):
        Reward.model_validate({"parts": [{"kind": kind}]})
