"""Text on its way in and out: what a person wrote made plain, slips of the finger mended, names made safe for Markdown.

Knows no subject; which words there are to be recognised is given from outside.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

MOST_READ = 2000
_MARKS = re.compile(r"([\\`*_{}\[\]()#+\-.!|~$<>:^])")
_WORD = re.compile(r"[a-z]+")
_SHORT = {
    "what's": "what is", "whats": "what is", "wht": "what", "wat": "what", "wut": "what", "how's": "how is", "hows": "how is",
    "it's": "it is", "that's": "that is", "who's": "who is", "where's": "where is", "i'm": "i am", "im": "i am", "i've": "i have",
    "ive": "i have", "i'd": "i would", "let's": "let us", "lets": "let us", "don't": "do not", "dont": "do not", "doesn't": "does not",
    "doesnt": "does not", "didn't": "did not", "didnt": "did not", "isn't": "is not", "isnt": "is not", "can't": "can not",
    "cant": "can not", "cannot": "can not", "won't": "will not", "wont": "will not", "u": "you", "ur": "your", "pls": "please",
    "plz": "please", "lr": "learning rate", "datasets": "data sets", "dataset": "data set", "finetune": "fine-tune",
    "finetuning": "fine-tuning", "finetuned": "fine-tuned", "gpus": "gpu", "thx": "thanks", "ty": "thanks", "n": "and",
}  # fmt: skip


def plain(text: str) -> str:
    """Lower case, one space between words, no punctuation but what numbers and names need; a question mark stands apart."""
    text = re.sub(r"(?<=\d)[,_](?=\d{3}\b)", "", unicodedata.normalize("NFKC", text[:MOST_READ]).lower())
    text = text.replace("’", "'").replace("`", "'")
    text = re.sub(r"\bfine[\s-]+tun", "fine-tun", text)
    found = re.findall(r"[^\W_](?:[\w'./+%-]*[\w%])?|\?", text)
    words = " ".join(_SHORT.get(word, word) for word in found)
    return re.sub(r"\bdata ?sets?\b", lambda match: "data sets" if match[0].endswith("s") else "data set", words)


def mended(text: str, vocabulary: Iterable[str]) -> str:
    """The same with words that look like slips put right: one wrong letter in a word of five, two from nine on, two swapped in any."""
    known = frozenset(vocabulary)
    return re.sub(_WORD, lambda match: _mended(match[0], known), text)


@lru_cache(maxsize=4096)
def _mended(word: str, known: frozenset[str]) -> str:
    if word in known or len(word) < 3 or len(word) > 24:
        return word
    most = 0 if len(word) < 5 else 1 if len(word) < 9 else 2
    best, least = word, most + 1
    for other in sorted(known):
        if abs(len(other) - len(word)) > max(most, 0):
            continue
        if _swapped(word, other):
            return other
        if most and other[0] == word[0] and (away := _distance(word, other, most)) < least:
            best, least = other, away
    return best


def _swapped(word: str, other: str) -> bool:
    """Whether two neighbours only changed places."""
    if len(word) != len(other):
        return False
    differ = [place for place, (a, b) in enumerate(zip(word, other, strict=True)) if a != b]
    if len(differ) != 2 or differ[1] - differ[0] != 1:
        return False
    return word[differ[0]] == other[differ[1]] and word[differ[1]] == other[differ[0]]


def _distance(word: str, other: str, most: int) -> int:
    """How many letters have to be put in, taken out, changed or swapped with a neighbour; `most` + 1 stands for more."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(word, 1):
        last, before, row = before, row, [i]
        for j, b in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and word[i - 2] == b:
                cost = min(cost, last[j - 2] + 1)
            row.append(cost)
        if min(row) > most:
            return most + 1
    return row[-1]


def safe(text: str, limit: int = 80) -> str:
    """Text of people for Markdown: on one line, cut to `limit` characters, nothing in it is markup."""
    flat = " ".join(str(text).split())
    return _MARKS.sub(r"\\\1", flat if len(flat) <= limit else flat[: limit - 1] + "…")


def percent(share: float | None) -> str:
    """97.5 %, 97 %, or a dash."""
    return "–" if share is None else f"{100 * share:.1f}".removesuffix(".0") + " %"


def figure(value: float) -> str:
    """Three figures that count."""
    if value != value:
        return "not a number"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
