"""The built-in model can what it is said to: general skills on words it never practised, small talk, polite refusals."""

from __future__ import annotations

import re

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.models import make_nano, nano_folder
from engine.rendering import load_tokenizer


@pytest.fixture(scope="module")
def nano():
    return AutoModelForCausalLM.from_pretrained(nano_folder(), dtype=torch.float32), load_tokenizer(nano_folder())


@pytest.fixture(scope="module")
def judged(nano):
    return make_nano.judge_manners(*nano)


@pytest.mark.slow
def test_general_skills(nano):
    assert make_nano.evaluate(*nano)["all"] >= 0.90


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "least"), [("small_talk", 36), ("beyond", 18)])
def test_manners(judged, kind, least):
    failed = [f"{prompt.prompt} -> {answer}" for prompt, answer, good in judged if prompt.kind == kind and not good]
    asked = sum(prompt.kind == kind for prompt, _, _ in judged)
    assert asked - len(failed) >= least, failed


def test_a_sentence_with_a_word(nano):
    words = ("river", "garden", "happy", "sing", "brave", "bridge")
    said = make_nano.answers(*nano, [f"Write a sentence with the word {word}" for word in words], 100)
    right = [bool(re.fullmatch(rf"[A-Z].*\b{word}\b.*\.", answer)) for word, answer in zip(words, said, strict=True)]
    assert sum(right) >= 5, said


def test_it_is_small():
    assert (nano_folder() / "model.safetensors").stat().st_size < 10_000_000
