"""Small talk and polite refusals: nano is judged by prompts that it can't have been trained on, and by rules that nonsense fails."""

from __future__ import annotations

import itertools
import re

import pytest

from engine.data.demos import birth
from engine.data.demos.manners import Prompt, acceptable, declines, is_reserved, is_whole, normal, prompts
from engine.data.demos.phrases import expand, typed
from engine.data.demos.sentences import sentence_task
from engine.data.demos.skills import Source
from engine.data.demos.talk import beyond, lexicon, small_talk
from engine.data.demos.words import Dice, train_words

JUDGED = {normal(prompt.prompt) for prompt in prompts()}


def test_the_lists():
    kinds = [prompt.kind for prompt in prompts()]
    assert (kinds.count("small_talk"), kinds.count("beyond")) == (40, 20) and len(JUDGED) == 60
    assert all(bool(prompt.accept) == (prompt.kind == "small_talk") for prompt in prompts())


@pytest.mark.parametrize("prompt", [prompt.prompt for prompt in prompts()])
def test_a_judged_prompt_is_known_however_it_is_written(prompt):
    dice = Dice(4)
    assert is_reserved(prompt) and is_reserved(prompt.upper()) and is_reserved(f" {prompt.rstrip('?!. ')} ?!")
    written = {normal(typed(prompt, dice, exact=True)) for _ in range(40)}
    assert written == {normal(prompt)}


def test_the_stream_that_trains_nano_throws_judged_prompts_away(monkeypatch):
    # Each judged prompt is put in the generators' way, over and over, and written as people write.
    judged = itertools.cycle(prompt.prompt for prompt in prompts())
    count = itertools.count()

    def seduced(pattern, dice, draw):
        return next(judged) if next(count) % 3 else expand(pattern, dice, draw)

    monkeypatch.setattr("engine.data.demos.talk.expand", seduced)
    dice = Dice(0)
    for _ in range(300):
        assert normal(small_talk(dice)[0]) not in JUDGED
        assert normal(beyond(dice)[0]) not in JUDGED
    assert next(count) > 1000


def test_the_stream_that_trains_nano_holds_no_judged_prompt_and_no_demo():
    source = Source(Dice(0), train_words())
    prompts_made = [birth.draw(source)[0] for _ in range(20_000)]
    assert not JUDGED & {normal(prompt) for prompt in prompts_made}
    demo = re.compile(r"pig latin|camelcase|caesar: |\breview: |\d\d ?\+ ?\d", re.IGNORECASE)
    assert not [prompt for prompt in prompts_made if demo.search(prompt)]


def test_what_is_taught_is_acceptable_itself():
    dice = Dice(1)
    for _ in range(2000):
        prompt, answer = small_talk(dice)
        assert is_whole(answer, prompt, lexicon()) and not declines(answer)
        prompt, answer = beyond(dice)
        assert acceptable(Prompt("beyond", prompt), answer, lexicon())


def judged(words: str) -> Prompt:
    return next(prompt for prompt in prompts() if prompt.prompt == words)


@pytest.mark.parametrize(
    ("prompt", "answer", "good"),
    [
        ("Hi there, Nano!", "Hello! How can I help?", True),
        ("Hi there, Nano!", "Helo! How can I hlep?", False),  # words that are none
        ("Hi there, Nano!", "Goodbye!", False),
        ("Hi there, Nano!", "onan", False),
        ("Hi there, Nano!", "Hello hello hello", False),
        ("Hi there, Nano!", "Sorry, I do not know that. Hello!", False),
        ("Tell me something funny", "Why do bees hum? They forgot the words.", True),
        ("Tell me something funny", "something funny", False),
        ("Tell me something funny", "I am fine, thank you.", False),
        ("Are you a real person?", "No, I am a tiny language model.", True),
        ("Are you a real person?", "Yes, I am a person.", False),
        ("I feel a bit sad today", "I am glad to hear that!", False),
        ("I am so happy right now!", "I am sorry to hear that.", False),
        ("What is the capital of Mongolia?", "Sorry, I am too small to know that. I can spell, sort and reverse words.", True),
        ("What is the capital of Mongolia?", "The capital is France.", False),
        ("What is the capital of Mongolia?", "M", False),
        ("How far away is the moon?", "I am sorry, I do not know that. It is 12 miles.", False),
        ("How far away is the moon?", "I do not know that.", False),  # not polite
    ],
)
def test_the_rules_tell_good_answers_from_bad(prompt, answer, good):
    assert acceptable(judged(prompt), answer, lexicon()) is good


def test_no_one_answer_passes_for_everything():
    dice = Dice(2)
    answers = {small_talk(dice)[1] for _ in range(3000)}
    talk = [prompt for prompt in prompts() if prompt.kind == "small_talk"]
    assert max(sum(acceptable(prompt, answer, lexicon()) for prompt in talk) for answer in answers) <= 12


def test_patterns():
    dice = Dice(0)
    said = {expand("[a|b] {x}[|!]", dice, {"x": lambda: "y"}) for _ in range(100)}
    assert said == {"a y", "b y", "a y!", "b y!"}


def test_plain_english_is_whole_and_holds_the_word_asked_for():
    dice = Dice(3)
    for _ in range(2000):
        prompt, answer = sentence_task(dice)
        assert answer and "{" not in prompt + answer and len(answer) <= 160
        if word := re.fullmatch(r"Write a sentence with the word ['\"]?(\w+)['\"]?", prompt):
            assert re.search(rf"\b{word[1]}\b", answer, re.IGNORECASE) and re.fullmatch(r"[A-Z].*\.", answer)
