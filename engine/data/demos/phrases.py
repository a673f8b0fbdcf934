"""Many ways to say one thing: patterns with choices, and what people do to a sentence when they type it.

A pattern is text in which `[one|other]` is a choice and `{list}` a draw from a list; choices may hold lists, not other choices.
Knows nothing of what the sentences are about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from engine.data.demos.words import Dice

SHORT = {
    "i am": "i'm", "you are": "you're", "what is": "what's", "who is": "who's", "where is": "where's", "how is": "how's",
    "it is": "it's", "that is": "that's", "do not": "don't", "did not": "didn't", "cannot": "can't", "let us": "let's",
    "i will": "i'll", "i would": "i'd", "is not": "isn't", "does not": "doesn't",
}  # fmt: skip
QUESTIONS = re.compile(
    r"(who|what|where|when|why|how|which|are|is|am|do|does|did|can|could|will|would|should|shall|may|was|were|have you|have we)\b"
)
BEFORE = ("so ", "hey ", "well, ", "nano, ", "please ", "ok, ", "um, ", "and ", "now ", "hey nano, ")
AFTER = (" please", ", nano", " now", ", my friend", " then")
TYPED = {"typos": 0.08, "fillers": 0.08, "short": 0.4, "bare_short": 0.3}


def expand(pattern: str, dice: Dice, draw: Mapping[str, Callable[[], str]]) -> str:
    """One of the sentences that the pattern stands for."""
    text = re.sub(r"\[([^\[\]]*)\]", lambda match: dice.choice(match[1].split("|")), pattern)
    return re.sub(r"\{(\w+)\}", lambda match: draw[match[1]](), text)


def typed(text: str, dice: Dice, *, exact: bool = False) -> str:
    """The sentence as somebody might type it: shortened, with or without capitals and marks, now and then with a typing error.

    `exact` leaves its words alone, for where the answer repeats one of them.
    """
    if dice.random() < TYPED["short"]:
        for long, short in SHORT.items():
            text = re.sub(rf"\b{long}\b", short, text)
        if dice.random() < TYPED["bare_short"]:
            text = text.replace("'", "")
    if not exact and " " in text and dice.random() < TYPED["fillers"]:
        text = dice.choice(BEFORE) + text if dice.random() < 0.6 else text + dice.choice(AFTER)
    asks = bool(QUESTIONS.match(text.lower()))
    if not exact and dice.random() < TYPED["typos"]:
        text = _mistyped(text, dice)
    text += _mark(asks, dice)
    chance = dice.random()
    if chance < 0.62:
        return re.sub(r"\bi\b", "I", text[0].upper() + text[1:])
    return text.lower() if chance < 0.95 else text.upper()


def _mark(asks: bool, dice: Dice) -> str:
    if asks:
        return "?" if dice.random() < 0.7 else ""
    return dice.choice(("", "", ".", "!"))


def _mistyped(text: str, dice: Dice) -> str:
    """One letter left out, doubled or swapped with the next, inside a word."""
    places = [match.start() + 1 for match in re.finditer(r"[a-z]{4,}", text)]
    if not places:
        return text
    place = dice.choice(places) + dice.randrange(2)
    how = dice.randrange(3)
    if how == 0:
        return text[:place] + text[place + 1 :]
    if how == 1:
        return text[:place] + text[place] + text[place:]
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]
