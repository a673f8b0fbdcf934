"""The Pig Latin demo: something nano can't do at first and learns in under a minute.

`python -m engine.data.demos.piglatin` writes the committed files: task rows and replay rows to train on, held-out rows and
general skills to prove with. No word of a held-out or skills prompt occurs in any training row, replay or task.
"""

from __future__ import annotations

import re
from pathlib import Path

from engine.data.demos.skills import GREETINGS, SKILLS_FILE, Pair, Source, chat_row, draw, row_words, skills_rows, write_rows
from engine.data.demos.words import Dice, held_out_words, train_words

TRAIN_FILE = Path(__file__).with_name("piglatin.train.jsonl")
HELD_OUT_FILE = Path(__file__).with_name("piglatin.held_out.jsonl")
TASK_ROWS = 3000
REPLAY_SHARE = 0.33
GREETING_ROUNDS = 8
HELD_OUT_ROWS = 400


def pig_latin(word: str) -> str:
    """The word in Pig Latin: the consonants before the first vowel go to the end, with 'ay'; 'qu' stays together."""
    start, rest = re.match(r"((?:[^aeiouy]*qu|y?[^aeiouy]*))(.*)", word).groups()
    return f"{rest}-{start}ay" if start else f"{word}-way"


def task(source: Source) -> Pair:
    """A prompt of one or two words and its answer."""
    words = source.words(1, 2)
    return "Pig Latin: " + " ".join(words), " ".join(map(pig_latin, words))


def train_rows(seed: int = 0) -> list[dict]:
    """Task rows and, shuffled among them, replay rows: what nano already can, so that it doesn't forget it."""
    tasks = _distinct(task, Source(Dice(seed), train_words(), nonsense=0), TASK_ROWS)
    replay_count = round(TASK_ROWS * REPLAY_SHARE / (1 - REPLAY_SHARE)) - GREETING_ROUNDS * len(GREETINGS)
    replay = _distinct(draw, Source(Dice(seed + 1), train_words()), replay_count) + list(GREETINGS) * GREETING_ROUNDS
    rows = [chat_row(*pair, kind="task") for pair in tasks] + [chat_row(*pair, kind="replay") for pair in replay]
    Dice(seed + 2).shuffle(rows)
    return rows


def held_out_rows(seen: set[str], seed: int = 1000) -> list[dict]:
    """Rows of held-out words, less those that happen to occur in a training row (say, as part of a question)."""
    words = [word for word in held_out_words() if word not in seen]
    return [chat_row(*pair, kind="task") for pair in _distinct(task, Source(Dice(seed), words, nonsense=0), HELD_OUT_ROWS)]


def files() -> dict[Path, list[dict]]:
    """Every committed file of this demo and what belongs in it."""
    train = train_rows()
    seen = row_words(train)
    return {TRAIN_FILE: train, HELD_OUT_FILE: held_out_rows(seen), SKILLS_FILE: skills_rows(seen)}


def _distinct(make, source: Source, count: int) -> list[Pair]:
    pairs: dict[str, Pair] = {}
    while len(pairs) < count:
        pair = make(source)
        pairs.setdefault(pair[0], pair)
    return list(pairs.values())


if __name__ == "__main__":
    for path, rows in files().items():
        write_rows(path, rows)
        print(f"{path.name}: {len(rows)} rows")
