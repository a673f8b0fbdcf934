"""How nano's small talk is judged: 40 prompts of small talk and 20 questions beyond it, each with what is acceptable.

The prompts and their rules stand in `manners.jsonl`. An answer must be a short, whole, correctly spelled reply first of all; small
talk must then fit the prompt's own pattern, and a question beyond nano must be declined politely. What trains nano asks
`is_reserved`, so that none of these prompts is ever trained on. Knows nothing of models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from engine.data.demos.phrases import SHORT
from engine.data.demos.words import all_words, words_of

MANNERS_FILE = Path(__file__).with_name("manners.jsonl")
LONGEST = 160
_DECLINES = re.compile(
    r"\b(too small|too hard|too big|do not know|don't know|cannot|can't|beyond me|never learned|no idea)\b", re.IGNORECASE
)
_POLITE = re.compile(r"\bsorry\b|\bafraid\b|\b(I|me) can\b|\bask me\b|\blet me\b", re.IGNORECASE)


@dataclass(frozen=True)
class Prompt:
    """What is asked, and the pattern that an acceptable answer holds; questions beyond nano all have the same rule."""

    kind: Literal["small_talk", "beyond"]
    prompt: str
    accept: str = ""


@cache
def prompts() -> tuple[Prompt, ...]:
    """All of them, small talk first."""
    return tuple(Prompt(**json.loads(line)) for line in MANNERS_FILE.read_text(encoding="utf-8").splitlines())


def normal(prompt: str) -> str:
    """The prompt without what people vary: case, punctuation, spaces, apostrophes, short forms such as "I'm"."""
    text = " ".join(re.sub(r"[^a-z0-9 ]", " ", re.sub(r"['’]", "", prompt.lower())).split())
    for long, short in SHORT.items():
        bare = short.replace("'", "")
        text = re.sub(rf"\b{bare}\b", long, text)
    return text


@cache
def _reserved() -> frozenset[str]:
    return frozenset(normal(prompt.prompt) for prompt in prompts())


def is_reserved(prompt: str) -> bool:
    """Whether this is one of the prompts that nano is judged by, however it is written."""
    return normal(prompt) in _reserved()


def is_whole(answer: str, prompt: str, lexicon: Collection[str] = ()) -> bool:
    """Whether it reads like a reply at all: short, begun and ended as sentences are, each word a word, none said twice in a row.

    Words are those of `words.txt`, of the lexicon and of the prompt."""
    if not answer or len(answer) > LONGEST or not re.match(r"[A-Z]", answer) or not re.search(r"[.!?]$", answer):
        return False
    if re.search(r"\b(\w+) \1\b", answer.lower()):
        return False
    # The first half of "don't" and the like is no word of its own.
    return words_of(answer.replace("'", "")) <= {*all_words(), *lexicon, *words_of(prompt), "a", "i"}


def declines(answer: str) -> bool:
    """Whether the answer says that it can't."""
    return bool(_DECLINES.search(answer))


def acceptable(prompt: Prompt, answer: str, lexicon: Collection[str] = ()) -> bool:
    """Whether the answer will do."""
    if not is_whole(answer, prompt.prompt, lexicon):
        return False
    if prompt.kind == "beyond":
        # A figure would be an answer made up after all.
        return declines(answer) and bool(_POLITE.search(answer)) and not re.search(r"\d", answer)
    return bool(re.search(prompt.accept, answer, re.IGNORECASE)) and not declines(answer)
