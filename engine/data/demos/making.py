"""How a demo's files are put together: task rows, replay rows among them, held-out rows that share no word with either.

`python -m engine.data.demos.making` writes every committed file. Knows nothing of what a demo teaches but what its module says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.data.demos import birth
from engine.data.demos.skills import Pair, Source
from engine.data.demos.words import Dice, held_out_words, train_words, words_of

HERE = Path(__file__).parent
REPLAY_SHARE = 0.33


def distinct(make: Callable[[], Pair], count: int) -> list[Pair]:
    """So many pairs, no prompt twice."""
    pairs: dict[str, Pair] = {}
    while len(pairs) < count:
        pair = make()
        pairs.setdefault(pair[0], pair)
    return list(pairs.values())


def with_replay(tasks: Sequence[Pair], seed: int = 0) -> list[dict]:
    """Task rows and, shuffled among them, replay rows: what nano already can, so that it doesn't forget it."""
    source = Source(Dice(seed + 1), train_words())
    replay = distinct(lambda: birth.draw(source), round(len(tasks) * REPLAY_SHARE / (1 - REPLAY_SHARE)))
    rows = [chat_row(*pair, kind="task") for pair in tasks] + [chat_row(*pair, kind="replay") for pair in replay]
    Dice(seed + 2).shuffle(rows)
    return rows


def word_tasks(task: Callable[[Source], Pair], count: int, seed: int = 0) -> list[Pair]:
    """Distinct tasks about training words."""
    source = Source(Dice(seed), train_words(), nonsense=0)
    return distinct(lambda: task(source), count)


def word_held_out(task: Callable[[Source], Pair], count: int, seen: set[str], seed: int = 1000) -> list[dict]:
    """Rows about held-out words, less those that happen to occur in a training row (say, in a question that is replayed)."""
    source = Source(Dice(seed), [word for word in held_out_words() if word not in seen], nonsense=0)
    return held_out(distinct(lambda: task(source), count))


def held_out(tasks: Sequence[Pair]) -> list[dict]:
    """Rows to prove with."""
    return [chat_row(*pair, kind="task") for pair in tasks]


def chat_row(prompt: str, answer: str, **more: str) -> dict:
    """A row in the messages format."""
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], **more}


def write_rows(path: Path, rows: Sequence[dict]) -> None:
    """JSONL with the same bytes on every system."""
    path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def row_words(rows: Sequence[dict]) -> set[str]:
    """Every word in any message of the rows."""
    return {word for row in rows for message in row["messages"] for word in words_of(message["content"])}


def files() -> dict[Path, list[dict]]:
    """Every committed file and what belongs in it. The general skills avoid the words of all training rows."""
    from engine.data.demos import addition, bugs, caesar, camelcase, courtesy, pairs, piglatin
    from engine.data.demos.skills import SKILLS_FILE, skills_rows

    made: dict[Path, list[dict]] = {}
    seen = birth.written_words()
    for demo in (addition, bugs, caesar, camelcase, piglatin):
        name = demo.__name__.rpartition(".")[2]
        train = demo.train_rows()
        own = row_words(train) | birth.written_words()
        seen |= own
        made[HERE / f"{name}.train.jsonl"], made[HERE / f"{name}.held_out.jsonl"] = train, demo.held_out_rows(own)
    return made | pairs.files() | courtesy.files() | {SKILLS_FILE: [chat_row(*pair, skill=skill) for skill, pair in skills_rows(seen)]}


if __name__ == "__main__":
    for path, rows in files().items():
        write_rows(path, rows)
        print(f"{path.name}: {len(rows)} rows, {path.stat().st_size // 1000} kB")
