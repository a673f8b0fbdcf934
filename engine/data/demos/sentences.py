"""Plain English for nano: sentences with a given word, what simple things are, very short stories, opposites and what comes next.

Everything is put together by rule from `sentences.yaml`, so it is grammatical and harmless, if seldom surprising. None of it is
a task that a demo teaches. Knows nothing of small talk.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from engine.data.demos.words import Dice, train_words

Pair = tuple[str, str]
ASK_WITH = (
    "Write a sentence with the word {w}", "Use {w} in a sentence", "Make a sentence with {w}", "Write a sentence with {w}",
    "Give me a sentence with the word {w}", "Use the word {w} in a sentence", "Write a short sentence with {w}",
    "Can you use {w} in a sentence?", "Write one sentence with {w}",
)  # fmt: skip
ASK_ABOUT = ("Write a sentence about {n}", "Make a sentence about {n}", "Give me a sentence about {n}")
ASK_ANY = ("Write a sentence", "Give me a sentence", "Make a short sentence", "Write any sentence", "Write a simple sentence")
ASK_STORY = ("Tell me a story about {n}", "Tell me a short story about {n}", "Write a story about {n}", "Write a short story about {n}")
ASK_ANY_STORY = ("Tell me a story", "Tell a story", "Write a story", "Can you tell me a story?", "Tell me a short story")
ASK_WHAT = ("What is {n}?", "Describe {n}", "what is {n}", "Describe {n} to me", "Tell me what {n} is", "What is {n}")
TALE_OBJECTS = ("ball", "key", "box", "map", "coin", "book", "bell", "ring", "flower", "apple", "cake", "hat", "kite", "lamp")


@cache
def _words() -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name("sentences.yaml").read_text(encoding="utf-8"))


def sentence_task(dice: Dice) -> Pair:
    """A prompt that wants plain English, and an answer."""
    return dice.choice((_with_word, _with_word, _with_word, _about, _story, _what, _what, _opposite, _next, _color))(dice)


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _place(dice: Dice) -> str:
    known = _words()
    return dice.choice(known["where"]).format(place=dice.choice(list(known["places"])))


def _about_being(dice: Dice, noun: str, adjective: str = "") -> str:
    known = _words()
    adjective = adjective or dice.choice(known["being_adjectives"])
    thing = dice.choice(list(known["things"]))
    return dice.choice(
        (
            f"The {adjective} {noun} {dice.choice(known['went'])} {_place(dice)}.",
            f"The {adjective} {noun} {dice.choice(known['did'])} the {dice.choice(known['thing_adjectives'])} {thing}.",
            f"I saw {_a(adjective)} {noun} {_place(dice)} {dice.choice(known['when'])}.",
        )
    )


def _about_thing(dice: Dice, noun: str, adjective: str = "") -> str:
    known = _words()
    adjective = adjective or dice.choice(known["thing_adjectives"])
    being = dice.choice(list(known["beings"]))
    return dice.choice(
        (
            f"The {being} {dice.choice(known['did'])} the {adjective} {noun}.",
            f"The {being} {dice.choice(known['did'])} the {adjective} {noun} {dice.choice(known['when'])}.",
            f"There is {_a(adjective)} {noun} {_place(dice)}.",
        )
    )


def _about_place(dice: Dice, noun: str, adjective: str = "") -> str:
    known = _words()
    being, adjective = dice.choice(list(known["beings"])), adjective or dice.choice(known["place_adjectives"])
    return dice.choice(
        (
            f"The {dice.choice(known['being_adjectives'])} {being} walked to the {adjective} {noun}.",
            f"We went to the {adjective} {noun} {dice.choice(known['when'])}.",
            f"The {being} {dice.choice(known['went'])} near the {adjective} {noun}.",
        )
    )


def _sentence(dice: Dice, word: str = "") -> str:
    """A sentence; with a word, one that holds it."""
    known = _words()
    if not word:
        word = dice.choice([*known["beings"], *known["things"], *known["places"]])
    for kind, about in (("beings", _about_being), ("things", _about_thing), ("places", _about_place)):
        if word in known[kind]:
            return about(dice, word)
    if word in known["verbs"]:
        return dice.choice((f"I like to {word} with my friends.", f"They {word} every day.", f"We want to {word} now."))
    if word in known["being_adjectives"]:
        return _about_being(dice, dice.choice(list(known["beings"])), word)
    if word in known["adjectives"]:
        return _about_thing(dice, dice.choice(list(known["things"])), word)
    return dice.choice((f"I found the word {word} in a book.", f"The teacher wrote the word {word} on the board."))


def _with_word(dice: Dice) -> Pair:
    known = _words()
    chance = dice.random()
    if chance < 0.1:
        return dice.choice(ASK_ANY), _sentence(dice)
    if chance < 0.35:
        word = dice.choice(train_words())
    else:
        kinds = ("beings", "things", "places", "verbs", "adjectives")
        word = dice.choice(list(known[dice.choice(kinds)]))
    shown = dice.choice((word, word, f'"{word}"', f"'{word}'"))
    return dice.choice(ASK_WITH).format(w=shown), _sentence(dice, word)


def _noun(dice: Dice) -> str:
    return dice.choice(list(_words()[dice.choice(("beings", "things", "places"))]))


def _about(dice: Dice) -> Pair:
    noun = _noun(dice)
    return dice.choice(ASK_ABOUT).format(n=dice.choice((_a(noun), f"the {noun}"))), _sentence(dice, noun)


def _what(dice: Dice) -> Pair:
    known = _words()
    noun = _noun(dice)
    meaning = next(known[kind][noun] for kind in ("beings", "things", "places") if noun in known[kind])
    return dice.choice(ASK_WHAT).format(n=_a(noun)), f"{_a(noun).capitalize()} is {meaning}."


def _story(dice: Dice) -> Pair:
    known = _words()
    hero = dice.choice(list(known["beings"])) if dice.random() < 0.7 else dice.choice(train_words())
    asked = dice.choice(ASK_STORY).format(n=_a(hero)) if dice.random() < 0.8 else dice.choice(ASK_ANY_STORY)
    adjective, place = dice.choice(known["being_adjectives"]), dice.choice(list(known["places"]))
    found = f"{_a(dice.choice(known['thing_adjectives']))} {dice.choice(TALE_OBJECTS)}"
    end = dice.choice(("was very happy", "gave it to a friend", "took it home", "laughed and danced"))
    return asked, f"Once {_a(adjective)} {hero} lived near {_a(place)}. One day the {hero} found {found}. The {hero} {end}."


def _opposite(dice: Dice) -> Pair:
    pairs = _words()["opposites"]
    word = dice.choice([*pairs])
    return dice.choice(("What is the opposite of {w}?", "Opposite of {w}", "what is the opposite of {w}")).format(w=word), pairs[word]


def _next(dice: Dice) -> Pair:
    row = dice.choice(_words()["rows"])
    place = dice.randrange(len(row) - 1)
    kind = {"Monday": "day", "January": "month", "one": "number"}[row[0]]
    after = dice.random() < 0.7
    asked = dice.choice((f"Which {kind} comes {{}} {{}}?", f"What {kind} is {{}} {{}}?", f"What {kind} comes {{}} {{}}?"))
    if after:
        return asked.format("after", row[place]), row[place + 1]
    return asked.format("before", row[place + 1]), row[place]


def _color(dice: Dice) -> Pair:
    colors = _words()["colors"]
    thing = dice.choice([*colors])
    return dice.choice(("What color is {t}?", "What is the color of {t}?", "Which color has {t}?")).format(t=thing), colors[thing]
