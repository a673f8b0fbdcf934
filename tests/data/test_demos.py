"""The Pig Latin demo and the general skills: reproducible, correct, and fair as a proof."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter

import pytest

from engine.data import load_data
from engine.data.demos import names, piglatin, skills, words
from engine.data.demos.piglatin import HELD_OUT_FILE, TRAIN_FILE, pig_latin
from engine.data.demos.skills import GREETINGS, SKILLS_FILE, WORD_SKILLS, Source, draw, row_words
from engine.data.demos.words import Dice, all_words, held_out_words, is_held_out, train_words, words_of
from engine.recipe import Recipe


def rows(path) -> list[dict]:
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


def test_the_generators_write_exactly_the_committed_files(tmp_path):
    for path, made in piglatin.files().items():
        skills.write_rows(tmp_path / path.name, made)
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_what_the_demo_consists_of():
    train, held_out = rows(TRAIN_FILE), rows(HELD_OUT_FILE)
    kinds = Counter(row["kind"] for row in train)
    assert kinds["task"] >= 2000 and abs(kinds["replay"] / len(train) - 0.33) < 0.005
    assert len(held_out) >= 400
    tasks = [said(row) for row in train if row["kind"] == "task"] + [said(row) for row in held_out]
    assert len(dict(tasks)) == len(tasks)
    for prompt, answer in tasks:
        asked = prompt.removeprefix("Pig Latin: ").split()
        assert len(asked) in (1, 2) and answer == " ".join(map(pig_latin, asked))
    assert {greeting for greeting, _ in GREETINGS} <= {said(row)[0] for row in train if row["kind"] == "replay"}


def test_no_word_of_a_proof_occurs_in_training():
    seen = row_words(rows(TRAIN_FILE))
    assert len(seen) > 2000
    for row in rows(HELD_OUT_FILE):
        assert not words_of(said(row)[0].removeprefix("Pig Latin: ")) & seen, row
    # A skills prompt is a question, whose wording is practised, about words, which aren't.
    blank = Source(Dice(0), ["zzz"], nonsense=0)
    wording = set().union(*(words_of(skill(blank)[0]) for skill in WORD_SKILLS for _ in range(200)))
    for row in rows(SKILLS_FILE):
        drawn = {word for word in words_of(said(row)[0]) - wording if len(word) > 2}
        assert drawn and not drawn & seen, row


def test_the_skills_file_covers_each_skill_equally():
    committed = rows(SKILLS_FILE)
    assert 300 <= len(committed) <= 500 and len({said(row)[0] for row in committed}) == len(committed)
    counts = Counter(row["skill"] for row in committed)
    assert len(counts) == len(set(WORD_SKILLS)) and len(set(counts.values())) == 1


def test_the_data_set_of_the_demo():
    assert names() == ["piglatin"]
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
    assert sum(check_answer(*draw(source)) for _ in range(3000)) > 100


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
