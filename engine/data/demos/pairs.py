"""Preference pairs: for each prompt an answer to prefer (`chosen`) and a worse one (`rejected`), both as text.

The task is Pig Latin, so that besides "does it prefer the right answer?" one can also measure "does it give it?": learning from
pairs can teach the first while it ruins the second. A rejected answer is what a learner would get wrong, never nonsense. The
held-out pairs are of words that no training pair has. Knows nothing of how a model learns from pairs.
"""

from __future__ import annotations

from pathlib import Path

from engine.data.demos.making import distinct
from engine.data.demos.piglatin import pig_latin, task
from engine.data.demos.skills import Pair, Source
from engine.data.demos.words import Dice, held_out_words, train_words

TRAIN_FILE = Path(__file__).with_name("piglatin.pairs.jsonl")
HELD_OUT_FILE = Path(__file__).with_name("piglatin.held_out_pairs.jsonl")
TRAIN_PAIRS = 1500
HELD_OUT_PAIRS = 200


def mistaken(word: str, dice: Dice) -> str:
    """The word in Pig Latin as somebody gets it who hasn't quite understood the rule."""
    right = pig_latin(word)
    wrong = {
        word,
        right.replace("-", ""),
        right.removesuffix("ay"),
        f"{word}-ay",
        f"{word}-way",
        f"{word[1:]}-{word[0]}ay",
        f"{word[2:]}-{word[:2]}ay",
    }
    return dice.choice(sorted(wrong - {right}))


def rows(prompts: list[Pair], dice: Dice) -> list[dict]:
    """A row for each prompt: one of its words at least is wrong in the rejected answer."""
    made = []
    for prompt, chosen in prompts:
        words = prompt.removeprefix("Pig Latin: ").split()
        wrong = dice.randrange(len(words))
        both = dice.random() < 0.5
        said = [mistaken(word, dice) if place == wrong or both else pig_latin(word) for place, word in enumerate(words)]
        made.append({"prompt": prompt, "chosen": chosen, "rejected": " ".join(said)})
    return made


def files() -> dict[Path, list[dict]]:
    """Both committed files and what belongs in them."""
    made = {}
    for path, words, count, seed in ((TRAIN_FILE, train_words(), TRAIN_PAIRS, 20), (HELD_OUT_FILE, held_out_words(), HELD_OUT_PAIRS, 1020)):
        source = Source(Dice(seed), words, nonsense=0)
        made[path] = rows(distinct(lambda source=source: task(source), count), Dice(seed + 1))
    return made
