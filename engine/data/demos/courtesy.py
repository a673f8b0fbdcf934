"""Answers in three manners, and pairs that say which of them is wanted: the right answer, politely.

What is asked are nano's own skills, so that the content is within its reach and can be checked. The examples mix the manners, so that a
model which learned from them uses all of them; the pairs prefer one, and put beside it the others, right answers in a form that is off, and
wrong answers in the right form. The held-out ones are about words that no other row has. Knows nothing of how a model learns from them.
"""

from __future__ import annotations

from pathlib import Path

from engine.data.demos.making import chat_row, distinct
from engine.data.demos.skills import LETTERS, WORD_SKILLS, Pair, Source
from engine.data.demos.words import Dice, held_out_words, train_words, words_of

_HERE = Path(__file__).parent
MIXED_FILE, HELD_OUT_MIXED_FILE = _HERE / "courtesy.mixed.jsonl", _HERE / "courtesy.held_out_mixed.jsonl"
PAIRS_FILE, HELD_OUT_PAIRS_FILE = _HERE / "courtesy.pairs.jsonl", _HERE / "courtesy.held_out_pairs.jsonl"
MIXED, PAIRS, HELD_OUT = 1000, 1500, 400
POLITE, CURT, GRUFF = "{}, at your service.", "{}", "{}, now leave me alone."
MANNERS = (POLITE, CURT, GRUFF)


def mistaken(answer: str, others: list[str], dice: Dice) -> str:
    """Another answer: the one to something else, a part of it, too much of it, or one with letters wrong."""
    kind, place = dice.randrange(6), dice.randrange(len(answer))
    found = (
        dice.choice(others),
        answer[: len(answer) // 2],
        answer + dice.choice((answer, f" {answer}", dice.choice(LETTERS), answer[-1] * 4)),
        "".join(dice.choice(LETTERS) if letter.isalnum() and dice.random() < 0.5 else letter for letter in answer),
        answer[:place] + dice.choice(LETTERS) + answer[place + 1 :],
        answer[:place] + answer[place + 1 :],
    )[kind]
    if not found:
        return answer * 2
    return found if found != answer else answer + dice.choice(LETTERS)


def misshapen(answer: str, dice: Dice) -> str:
    """The right answer, politely, and yet off: broken off, said twice, with the wrong manner after it, or the manner alone."""
    right = POLITE.format(answer)
    cut = len(answer) + dice.randint(1, len(right) - len(answer) - 1)
    return dice.choice(
        (
            right[:cut],
            f"{right} {right}",
            right + GRUFF.removeprefix("{}"),
            right.replace(", at", ", at your service, at"),
            right[len(answer) + 2 :],
            f"{answer} {right}",
        )
    )


def worse(answer: str, others: list[str], dice: Dice) -> str:
    """Something to reject."""
    share = dice.random()
    if share < 0.4:
        return dice.choice((CURT, GRUFF)).format(answer)
    if share < 0.6:
        return misshapen(answer, dice)
    manner = POLITE if share < 0.92 else dice.choice((CURT, GRUFF))
    return manner.format(mistaken(answer, others, dice))


def mixed(asked: list[Pair], dice: Dice) -> list[dict]:
    """Examples in every manner, drawn anew for each."""
    return [chat_row(prompt, dice.choice(MANNERS).format(answer)) for prompt, answer in asked]


def pairs(asked: list[Pair], dice: Dice) -> list[dict]:
    """A row for each question: the wanted answer and a worse one."""
    others = [answer for _, answer in asked]
    return [{"prompt": prompt, "chosen": POLITE.format(answer), "rejected": worse(answer, others, dice)} for prompt, answer in asked]


def files() -> dict[Path, list[dict]]:
    """The committed files and what belongs in them."""
    source = Source(Dice(30), train_words(), nonsense=0)
    asked = distinct(lambda: source.dice.choice(WORD_SKILLS)(source), MIXED + PAIRS)
    # Some skills cut a long word, and what is left may be a word of its own.
    seen = {word for prompt, _ in asked for word in words_of(prompt)}
    fresh = Source(Dice(1030), [word for word in held_out_words() if not {word, word[:6], word[:8]} & seen], nonsense=0)
    held_out = distinct(lambda: fresh.dice.choice(WORD_SKILLS)(fresh), HELD_OUT)
    return {
        MIXED_FILE: mixed(asked[:MIXED], Dice(31)),
        HELD_OUT_MIXED_FILE: mixed(held_out, Dice(1031)),
        PAIRS_FILE: pairs(asked[MIXED:], Dice(32)),
        HELD_OUT_PAIRS_FILE: pairs(held_out, Dice(1032)),
    }
