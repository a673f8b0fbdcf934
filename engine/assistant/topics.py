"""Which terms of the trade a text speaks of. Reads engine.knowledge; explains nothing."""

from __future__ import annotations

import re
from functools import cache

from engine import knowledge
from engine.assistant.wording import plain


def found(text: str) -> tuple[str, ...]:
    """The terms in a plain text, in order; where one word is part of a longer term, the longer counts."""
    places: dict[int, str] = {}
    left = text
    for words, term in _aliases():
        # Few of them are there at all, and a pattern for each would be costly.
        if words not in left:
            continue
        for match in re.finditer(rf"(?<![\w-]){re.escape(words)}(?![\w-])", left):
            places[match.start()] = term
            left = left[: match.start()] + " " * len(words) + left[match.end() :]
    return tuple(dict.fromkeys(places[place] for place in sorted(places)))


def alone(text: str) -> bool:
    """Whether the text is nothing but one term."""
    return text.removesuffix(" ?") in {words for words, _ in _aliases()}


def field(term: str) -> str:
    """The recipe's field that it stands for, or nothing."""
    return str(_terms()[term].get("field", ""))


def unavailable(term: str) -> bool:
    """Whether it's a way of training that a recipe can't name yet."""
    trains = _terms()[term].get("trains")
    return bool(trains) and trains not in knowledge.methods()


@cache
def vocabulary() -> frozenset[str]:
    """Every word of every term."""
    return frozenset(word for words, _ in _aliases() for word in re.findall(r"[a-z]{3,}", words))


@cache
def _terms() -> dict[str, dict[str, object]]:
    return knowledge.terms()


@cache
def _aliases() -> tuple[tuple[str, str], ...]:
    """(words, term), the longest first."""
    pairs = {plain(words): term for term, entry in _terms().items() for words in (term, str(entry["title"]), *entry.get("also", []))}
    return tuple(sorted(pairs.items(), key=lambda pair: -len(pair[0])))
