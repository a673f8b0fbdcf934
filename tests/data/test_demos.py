"""The demos and the general skills: reproducible, correct, and fair as a proof."""

from __future__ import annotations

import ast
import json
import random
import re
import time
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from engine.data import load_data
from engine.data.demos import SKILLS_FILE, birth, bugs, courtesy, find, making, names, pairs, skills, words
from engine.data.demos.addition import is_held_out as is_held_out_sum
from engine.data.demos.bugs import KINDS, SOUND
from engine.data.demos.caesar import caesar
from engine.data.demos.camelcase import camel_case
from engine.data.demos.making import row_words, write_rows
from engine.data.demos.piglatin import pig_latin
from engine.data.demos.skills import WORD_SKILLS, Source
from engine.data.demos.words import Dice, all_words, held_out_words, is_held_out, train_words, words_of
from engine.recipe import Recipe

# What a prompt of each demo begins with, and the right answer to the rest of it where that is easily told.
ANSWERS = {
    "piglatin": (r"Pig Latin: (\w+(?: \w+)?)", lambda text: " ".join(map(pig_latin, text.split()))),
    "camelcase": (r"camelCase: (\w+(?: \w+){1,2})", lambda text: camel_case(text.split())),
    "caesar": (r"Caesar: (\w+)", caesar),
    "addition": (r"(\d\d \+ \d\d) =", lambda text: str(sum(map(int, text.split(" + "))))),
    "bugs": (r"Review: (def .+)", None),
}


@cache
def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def said(row: dict) -> tuple[str, str]:
    user, assistant = row["messages"]
    assert (user["role"], assistant["role"]) == ("user", "assistant")
    return user["content"], assistant["content"]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("hello", "ello-hay"), ("apple", "apple-way"), ("string", "ing-stray"), ("queue", "eue-quay"), ("square", "are-squay"),
        ("yellow", "ellow-yay"), ("type", "ype-tay"), ("rhythm", "ythm-rhay"), ("by", "y-bay"), ("aqua", "aqua-way"),
    ],
)  # fmt: skip
def test_pig_latin(word, expected):
    assert pig_latin(word) == expected


def test_camel_case_and_caesar():
    assert camel_case(["read", "all", "files"]) == "readAllFiles"
    assert caesar("abc") == "bcd" and caesar("fuzz") == "gvaa"


def test_the_generators_write_exactly_the_committed_files(tmp_path):
    made = making.files()
    assert {path.name for path in SKILLS_FILE.parent.glob("*.jsonl")} == {path.name for path in made} | {"manners.jsonl"}
    for path, content in made.items():
        write_rows(tmp_path / path.name, content)
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("name", names())
def test_what_a_demo_consists_of(name):
    train, held_out = rows(find(name).train), rows(find(name).held_out)
    kinds = Counter(row["kind"] for row in train)
    assert kinds["task"] >= 1500 and abs(kinds["replay"] / len(train) - 0.33) < 0.005
    assert len(held_out) >= 300 and {row["kind"] for row in held_out} == {"task"}
    tasks = [said(row) for row in train if row["kind"] == "task"] + [said(row) for row in held_out]
    assert len(dict(tasks)) == len(tasks)
    form, answer_to = ANSWERS[name]
    for prompt, answer in tasks:
        found = re.fullmatch(form, prompt)
        assert found and (answer_to is None or answer == answer_to(found[1])), prompt


@pytest.mark.parametrize("name", names())
def test_what_is_replayed_is_more_than_skills(name):
    replayed = [said(row) for row in rows(find(name).train) if row["kind"] == "replay"]
    declined = sum("sorry" in answer.lower() for _, answer in replayed)
    assert 0.05 < declined / len(replayed) < 0.3
    assert any("Nano" in answer for _, answer in replayed)
    task = re.compile(ANSWERS[name][0], re.IGNORECASE)
    assert not [prompt for prompt, _ in replayed if task.match(prompt)]


@pytest.mark.parametrize("name", [name for name in names() if name != "addition"])
def test_no_word_of_a_proof_occurs_in_training(name):
    seen = row_words(rows(find(name).train))
    language = words_of(" ".join(form for forms in (*bugs.ALL_SOUND, bugs.MUTABLE) for form in forms))
    for row in rows(find(name).held_out):
        asked = said(row)[0].partition(": ")[2]
        # In a function, some words are the language's.
        drawn = {word for word in words_of(asked) if word in all_words() and (name != "bugs" or word not in language)}
        assert drawn and not drawn & seen, row


def test_no_sum_of_the_proof_occurs_in_training():
    trained = {frozenset(map(int, re.findall(r"\d+", said(row)[0]))) for row in rows(find("addition").train) if row["kind"] == "task"}
    for row in rows(find("addition").held_out):
        a, b = map(int, re.findall(r"\d+", said(row)[0]))
        assert frozenset((a, b)) not in trained and is_held_out_sum(a, b) and is_held_out_sum(b, a)


def test_the_general_skills_are_about_words_that_no_demo_trains_on():
    seen = set().union(*(row_words(rows(find(name).train)) for name in names())) | birth.written_words()
    # A skills prompt is a question, whose wording is practised, about words, which aren't.
    blank = Source(Dice(0), ["zzz"], nonsense=0)
    wording = set().union(*(words_of(skill(blank)[0]) for skill in WORD_SKILLS for _ in range(200)))
    for row in rows(SKILLS_FILE):
        drawn = {word for word in words_of(said(row)[0]) - wording if len(word) > 2}
        assert drawn and not drawn & seen, row


def is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


def planted(code: str) -> str:
    """The bug in a one-line function as Python's own parser shows it."""
    if not is_python(code):
        mended = [f"{code[:place]}:{code[place:]}" for place, letter in enumerate(code, 1) if code[place - 1] == ")"]
        return "missing colon" if any(map(is_python, mended)) else "unbalanced bracket"
    function = ast.parse(code).body[0]
    if any(isinstance(default, ast.List | ast.Dict) for default in function.args.defaults):
        return "mutable default"
    named = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    if "self" in named and "self" not in {argument.arg for argument in function.args.args}:
        return "missing self"
    for compare in (node for node in ast.walk(function) if isinstance(node, ast.Compare)):
        right, by_identity = compare.comparators[0], isinstance(compare.ops[0], ast.Is | ast.IsNot)
        if isinstance(right, ast.Constant) and right.value is None and not by_identity:
            return "comparison to None"
        if isinstance(right, ast.Constant) and right.value is not None and by_identity:
            return "is with a literal"
    return SOUND


def test_the_planted_bugs_are_what_the_answers_say():
    reviewed = [said(row) for row in [*rows(find("bugs").train), *rows(find("bugs").held_out)] if row["kind"] == "task"]
    for prompt, answer in reviewed:
        assert planted(prompt.removeprefix("Review: ")) == answer, prompt
    counts = Counter(answer for _, answer in reviewed)
    assert set(counts) == set(KINDS) and min(counts.values()) > len(reviewed) / 10


def test_preference_pairs():
    train, held_out = rows(pairs.TRAIN_FILE), rows(pairs.HELD_OUT_FILE)
    assert len(train) == 1500 and len(held_out) == 200
    for row in [*train, *held_out]:
        asked = row["prompt"].removeprefix("Pig Latin: ").split()
        assert row["chosen"] == " ".join(map(pig_latin, asked)) != row["rejected"]
        assert set(row) == {"prompt", "chosen", "rejected"} and row["rejected"].strip()
    trained = {word for row in train for word in words_of(row["prompt"])}
    assert not [row for row in held_out if words_of(row["prompt"].removeprefix("Pig Latin: ")) & trained]


def test_pairs_of_manners():
    """The wanted answer is the right one, politely; what it is held against isn't, and half of it keeps the manner or the content."""
    manners = {courtesy.POLITE, courtesy.CURT, courtesy.GRUFF}
    mixed = rows(courtesy.MIXED_FILE) + rows(courtesy.HELD_OUT_MIXED_FILE)
    used = Counter(next(manner for manner in manners if said(row)[1] == manner.format(told_in(said(row)[1]))) for row in mixed)
    assert set(used) == manners and min(used.values()) > 0.3 * len(mixed)
    pairs_ = rows(courtesy.PAIRS_FILE) + rows(courtesy.HELD_OUT_PAIRS_FILE)
    checked = polite_and_wrong = 0
    for row in pairs_:
        assert set(row) == {"prompt", "chosen", "rejected"} and row["chosen"] != row["rejected"] != ""
        content = told_in(row["chosen"])
        assert row["chosen"] == courtesy.POLITE.format(content)
        checked += check_answer(row["prompt"], content)
        polite_and_wrong += row["rejected"].endswith(", at your service.") and not row["rejected"].startswith(f"{content},")
    assert checked > 100 and polite_and_wrong > 0.25 * len(pairs_)


def told_in(text: str) -> str:
    return re.sub(r", (at your service|now leave me alone)\.$", "", text)


def test_no_word_of_held_out_manners_occurs_in_training():
    trained = [row["prompt"] for row in rows(courtesy.PAIRS_FILE)] + [said(row)[0] for row in rows(courtesy.MIXED_FILE)]
    seen, asked_in = {word for prompt in trained for word in words_of(prompt)}, wording()
    for row in rows(courtesy.HELD_OUT_PAIRS_FILE):
        drawn = {word for word in words_of(row["prompt"]) - asked_in if len(word) > 2 and word in all_words()}
        assert not drawn & seen, row
    assert {row["prompt"] for row in rows(courtesy.HELD_OUT_PAIRS_FILE)} == {said(row)[0] for row in rows(courtesy.HELD_OUT_MIXED_FILE)}


def wording() -> set[str]:
    """The words that questions are put in, whatever they are about."""
    blank = Source(Dice(0), ["zzz"], nonsense=0)
    return set().union(*(words_of(skill(blank)[0]) for skill in WORD_SKILLS for _ in range(200)))


def test_the_skills_file_covers_each_skill_equally():
    committed = rows(SKILLS_FILE)
    assert 300 <= len(committed) <= 500 and len({said(row)[0] for row in committed}) == len(committed)
    counts = Counter(row["skill"] for row in committed)
    assert len(counts) == len(set(WORD_SKILLS)) and len(set(counts.values())) == 1


def test_the_data_set_of_the_demo():
    assert names() == ["addition", "bugs", "caesar", "camelcase", "piglatin"]
    data = load_data(Recipe.make({"data": {"demo": "piglatin"}}))
    assert (data.name, len(data.train), len(data.held_out), data.problems) == ("piglatin", 4478, 400, [])
    assert (data.replay_count, len(data.skills)) == (1478, 200)


def check_answer(prompt: str, answer: str) -> bool:
    """Whether the answer is right, for the skills whose questions are easily read back."""
    rules = [
        (r"Reverse ['\"]?(\w+?)['\"]?$", lambda word: word[::-1]),
        (r"Sort: (.+)", lambda text: " ".join(sorted(text.split()))),
        (r"Length of ['\"]?(\w+?)['\"]?$", lambda word: str(len(word))),
        (r"Swap the words: (\w+) (\w+)", lambda first, second: f"{second} {first}"),
        (r"Uppercase (.+)", str.upper),
        (r"(\d+)\+(\d+)$", lambda first, second: str(int(first) + int(second))),
    ]
    for pattern, answerer in rules:
        if found := re.fullmatch(pattern, prompt):
            assert answerer(*found.groups()) == answer, prompt
            return True
    return False


def test_skills_have_the_right_answers():
    source = Source(Dice(3), train_words())
    assert sum(check_answer(*skills.draw(source)) for _ in range(3000)) > 100


def test_a_tenth_of_the_words_is_held_out():
    assert set(train_words()) | set(held_out_words()) == set(all_words())
    assert 0.08 < len(held_out_words()) / len(all_words()) < 0.13
    # MD5 of "memoize" starts with d63f0de6, "hello" with 5d41402a: 3594456550 and 1564557354 end in 0 and 4.
    assert is_held_out("memoize") and not is_held_out("hello")


def test_words_are_extracted_from_prose():
    prose = ["The spam and eggs, spam_or eggs.", "eggs www grrr grrr spam() spam", "xyz.spam aaab aaab"]
    assert words.extract(prose) == ["eggs", "spam"]


def test_dice_fall_the_same_on_every_python():
    dice = Dice(0)
    plain = random.Random(0)
    assert [dice.randint(1, 6) for _ in range(20)] == [1 + int(plain.random() * 6) for _ in range(20)]
    cards = list(range(10))
    dice.shuffle(cards)
    assert sorted(cards) == list(range(10)) != cards


def test_reading_the_demo_is_quick():
    started = time.perf_counter()
    load_data(Recipe.make({"data": {"demo": "piglatin"}}))
    assert time.perf_counter() - started < 5
