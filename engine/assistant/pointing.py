"""What "the second one" means: one of the list that was shown last. Puts the thing's id in its place; knows no subject."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

Shown = Sequence[Mapping[str, str]]
"""What a reply listed, in its order: {kind: run, model or data, id}."""

_NUMBERS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8}
_NUMBERS |= {f"{number}{'st' if number == 1 else 'nd' if number == 2 else 'rd' if number == 3 else 'th'}": number for number in range(1, 9)}
_NUMBERS |= {"top": 1, "last": -1, "bottom": -1}
_WORD = rf"(?:{'|'.join(_NUMBERS)})"
_ONE = r"(?: (?:one|ones|of (?:them|those|these)))"
_SAID = {"run": "run {}", "model": "model {}", "data": "the data set {}"}
_KINDS = {"run": "run", "job": "run", "training": "run", "model": "model", "data set": "data", "dataset": "data", "file": "data"}
_PAIR = re.compile(rf"\b({_WORD}) and (?:the )?({_WORD})(?:{_ONE}| (?:{'|'.join(_KINDS)})s?)?\b", re.IGNORECASE)
_POINTS = re.compile(
    rf"\b(?:the )?({_WORD}){_ONE}\b|\bthe ({_WORD}) ({'|'.join(_KINDS)})\b|\b(?:number|nr\.?|no\.) ?(\d)\b|#(\d)\b", re.IGNORECASE
)
_ALONE = re.compile(rf"\W*(?:and )?(?:the )?({_WORD}|\d)\W*", re.IGNORECASE)
_BOTH = re.compile(r"\b(?:both(?: of (?:them|those))?|them(?: both)?|those two|these two|the two)\b", re.IGNORECASE)
_COMPARES = re.compile(r"\bcompar\w+|\bbetter\b|\bdifferen\w+|\bversus\b|\bvs\b", re.IGNORECASE)


class Missed(Exception):
    """It points at what no list has; says how many there are."""


def resolved(text: str, shown: Shown) -> str:
    """The text with what it points at named by its id. Raises Missed where the list is too short, or there is none."""
    if alone := _ALONE.fullmatch(text):
        # Without a list a number is an answer to something else, or nothing.
        return _named(alone[1], shown) if shown else text
    text = _PAIR.sub(r"the \1 one and the \2 one", text)
    text = _POINTS.sub(lambda match: _pointed(match, shown), text)
    if len(shown) > 1 and _COMPARES.search(text):
        text = _BOTH.sub(lambda _: " and ".join(_SAID[thing["kind"]].format(thing["id"]) for thing in shown[:2]), text)
    return text


def _pointed(match: re.Match[str], shown: Shown) -> str:
    word = next(found for found in (match[1], match[2], match[4], match[5]) if found)
    kind = _KINDS.get((match[3] or "").lower(), "")
    number = _number(word)
    if kind and (not shown or shown[0]["kind"] != kind or number in (1, -1)):
        # "The last run" is the newest, whatever was listed; and a second data set can't be pointed at in a list of runs.
        return match[0]
    if not shown and (number in (1, -1) or match[4] or match[5]):
        return match[0]
    return _named(word, shown)


def _named(word: str, shown: Shown) -> str:
    number = _number(word)
    if not shown or number == 0 or number > len(shown):
        raise Missed(f"{len(shown)}")
    thing = shown[number - 1 if number > 0 else -1]
    return _SAID[thing["kind"]].format(thing["id"])


def _number(word: str) -> int:
    return _NUMBERS.get(word.lower()) or int(word)
