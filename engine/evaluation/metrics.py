"""Scores of one answer against the expected one, and their summaries. Pure functions; know nothing of models.

Token F1 is SQuAD's (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250): lower case, no punctuation, no articles.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answer: str, expected: str) -> bool:
    """Whether the two are the same text, but for blanks around them."""
    return answer.strip() == expected.strip()


def normalise(text: str) -> str:
    """SQuAD's normal form: lower case, without punctuation and articles, single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def token_f1(answer: str, expected: str) -> float:
    """The share of words in common, 0 to 1: the harmonic mean of precision and recall over normalised words."""
    said, wanted = normalise(answer).split(), normalise(expected).split()
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(wanted)
    return 2 * precision * recall / (precision + recall)


def perplexity(nll_sum: float, tokens: int) -> float:
    """exp of the mean negative log-likelihood (in nats) a token; infinite beyond what a float holds, NaN for no tokens."""
    if tokens <= 0:
        return math.nan
    try:
        return math.exp(nll_sum / tokens)
    except OverflowError:
        return math.inf


@dataclass(frozen=True)
class Scores:
    """Answers against what was expected, averaged. The interval is Wilson's 95 % for `exact_match`."""

    count: int
    exact_match: float
    exact_match_low: float
    exact_match_high: float
    token_f1: float

    def to_dict(self) -> dict[str, float | int]:
        """A JSON-ready form."""
        return asdict(self)


def score(answers: Sequence[str], expected: Sequence[str]) -> Scores:
    """The mean scores of answers that belong one by one to what was expected. No answers score 0."""
    pairs = list(zip(answers, expected, strict=True))
    count = len(pairs)
    right = sum(exact_match(answer, wanted) for answer, wanted in pairs)
    f1 = sum(token_f1(answer, wanted) for answer, wanted in pairs) / count if count else 0.0
    low, high = wilson(right, count)
    return Scores(count, right / count if count else 0.0, low, high, f1)


def wilson(right: float, count: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval for a share (Wilson 1927); (0, 1) when nothing was counted."""
    if not count:
        return 0.0, 1.0
    share, square = right / count, z * z / count
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return max(0.0, middle - half), min(1.0, middle + half)
