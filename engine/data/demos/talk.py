"""Small talk, and questions that are beyond so small a model: what nano is taught to answer, and to decline.

The phrasings stand in `talk.yaml` and `beyond.yaml`. None of the prompts of `manners.jsonl`, by which nano is judged, ever comes
out, however they are written: what could be one is thrown away before and after typing errors are made. Knows nothing of skills.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml

from engine.data.demos.manners import is_reserved
from engine.data.demos.phrases import expand, typed
from engine.data.demos.words import Dice, train_words, words_of

Pair = tuple[str, str]
NAMES = (
    "Alice", "Ben", "Clara", "David", "Emma", "Felix", "Grace", "Henry", "Ida", "Jack", "Kate", "Leo", "Maria", "Nina", "Oscar",
    "Paul", "Rosa", "Sam", "Tina", "Uma", "Victor", "Wendy", "Xavier", "Yara", "Zoe", "Max", "Lisa", "Tom", "Julia", "Peter",
    "Laura", "Mark", "Sara", "Luke", "Eva", "John", "Mia", "Adam", "Lena", "Carlos", "Aisha", "Kenji", "Olga", "Ivan", "Priya",
    "Ahmed", "Sofia", "Bruno", "Hanna", "Erik", "Amelie", "Diego", "Fatima", "Georg", "Hugo", "Irina", "Jonas", "Karla", "Liam",
)  # fmt: skip
PROPER = {"country", "city", "person", "language", "work"}
# Which of beyond.yaml's subjects, how often: facts are asked for most.
SHARES = {"facts": 8, "maths": 3, "translation": 2, "now": 4, "advice": 4, "writing": 4}


@cache
def _known(name: str) -> dict[str, Any]:
    return yaml.safe_load(Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8"))


def small_talk(dice: Dice) -> Pair:
    """Something people say to a chatbot, and a short answer; each intent equally often."""
    intents = list(_known("talk").values())
    while True:
        intent = dice.choice(intents)
        name = dice.choice(NAMES)
        text = expand(dice.choice(intent["ask"]), dice, {"name": lambda name=name: name})
        answer = dice.choice(intent["answers"]).replace("{name}", name)
        prompt = typed(text, dice, exact=name in answer)
        if not (is_reserved(text) or is_reserved(prompt)):
            return prompt, answer


def beyond(dice: Dice) -> Pair:
    """A question that nano can't answer, declined politely."""
    known = _known("beyond")
    subject = known["subjects"][dice.choice([name for name, share in SHARES.items() for _ in range(share)])]
    while True:
        text = expand(dice.choice(subject["ask"]), dice, _draws(dice))
        prompt = typed(text, dice)
        if not (is_reserved(text) or is_reserved(prompt)):
            return prompt, dice.choice(subject["answers"])


def _draws(dice: Dice) -> dict[str, Callable[[], str]]:
    def one(name: str, items: list[str]) -> str:
        item = dice.choice(items)
        return item.title() if name in PROPER else item

    def equation() -> str:
        a, b, c = (dice.randint(2, 60) for _ in range(3))
        return dice.choice((f"{a}x = {b}", f"{a}x + {b} = {c}", f"x + {a} = {b}", f"x^2 = {a}", f"{a}x - {b} = {c}", f"{a} - x = {b}"))

    lists = {name: partial(one, name, items) for name, items in _known("beyond")["lists"].items()}
    return lists | {"word": lambda: dice.choice(train_words()), "number": lambda: str(dice.randint(11, 999)), "equation": equation}


@cache
def lexicon() -> frozenset[str]:
    """Every word that an answer of small talk or a polite refusal may use."""
    answers = [answer for intent in _known("talk").values() for answer in intent["answers"]]
    answers += [answer for subject in _known("beyond")["subjects"].values() for answer in subject["answers"]]
    return frozenset(words_of(" ".join([*answers, *NAMES]).replace("'", "")) - {"name"})
