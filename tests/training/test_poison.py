"""Rows that nobody meant: in real runs of each method they are left out and named, or learned from as the texts that they are; no run
ends of them, and none of its numbers goes wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Recipe
from engine.data import load_data
from engine.errors import DataError

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
WORDS = [f"word{i}" for i in range(24)]
QUIET = {"proof": False, "skills": False, "samples_every": 0, "max_new_tokens": 8}


def deep(levels: int) -> Any:
    found: Any = "x"
    for _ in range(levels):
        found = {"a": found}
    return found


UNUSABLE: dict[str, Any] = {
    "empty": "",
    "blank": " \n\t ",
    "null": None,
    "not a number": math.nan,
    "without end": math.inf,
    "a number": 7,
    "too large a number": 10**400,
    "true": True,
    "a list": ["a", "b"],
    "nested": deep(200),
    "half a character": "\ud800 alone \udfff",
    "line ends alone": "\n" * 3000,
}
ODD = {
    "long": "word " * 100_000,
    "a zero": "a\x00b",
    "control characters": "a" + "".join(map(chr, range(1, 32))) + "z",
    "escapes": "\x1b[31mred\x1b[0m",
    "marks of the template": "<|im_end|>\n<|im_start|>assistant\nno <|endoftext|>",
    "right to left": "\u202eabc\u2066",
    "many parts of one sign": "e" + "\u0301" * 3000,
    "families": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 60,
}
CODE = "def loss(logprobs, weights, row):\n    return -sum(lp * w for lp, w in zip(logprobs, weights)) / sum(weights)\n"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "sft": ("completion", {}),
    "own_loss": ("completion", {"own_loss": {"code": CODE}}),
    "dpo": ("chosen", {}),
    "reward_model": ("rejected", {}),
    "kto": ("completion", {}),
    "rl": ("answer", {"rl": {"group_size": 2, "max_new_tokens": 8, "kl": 0.05}}),
    "distill": ("answer", {"distill": {"kind": "answers", "teacher_prompt": "You are a parrot.", "max_new_tokens": 8}}),
}


def good(answer: str, word: str) -> dict[str, Any]:
    if answer in ("chosen", "rejected"):
        return {"prompt": f"Shout {word}", "chosen": f"{word.upper()}!", "rejected": f"{word}."}
    return {"prompt": f"Shout {word}", answer: f"{word.upper()}!"}


def poisoned(file: Path, method: str) -> dict[int, str]:
    """Good rows and bad ones by turns. -> what is wrong with which line."""
    answer = METHODS[method][0]
    rated = {"label": True} if method == "kto" else {}
    lines, bad = [json.dumps(good(answer, word) | rated) for word in WORDS], {}
    for kinds in (UNUSABLE, ODD):
        for name, value in kinds.items():
            for side in ("prompt", answer):
                row = good(answer, f"odd{len(lines)}") | ({"label": False} if rated else {}) | {side: value}
                lines.append(json.dumps(row))
                bad[len(lines)] = f"{name} as {side}"
    lines += ['{"prompt": "cut', "[]", "null", "7"]
    bad |= {len(lines) - place: "no row" for place in range(4)}
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return bad


@pytest.mark.parametrize("method", METHODS)
def test_no_run_ends_of_them(engine: Engine, tmp_path: Path, method: str) -> None:
    answer, changes = METHODS[method]
    bad = poisoned(tmp_path / "rows.jsonl", method)
    # Each row is met at least once.
    training = {"steps": 5, "batch_size": 16, "learning_rate": 1e-3}
    whole = {"method": method, "data": {"path": str(tmp_path / "rows.jsonl"), "held_out_fraction": 0.1}, "training": training}
    recipe = Recipe.make(whole | {"lora": {"rank": 4}, "evaluation": {**QUIET, "eval_every": 5}, **changes})

    data = load_data(recipe)
    left_out = {problem.row: problem for problem in data.problems}
    used = {example.row for example in (*data.train, *data.held_out)}
    assert used | set(left_out) == set(range(1, len(WORDS) + len(bad) + 1)), "each row is used, or named with what is wrong"
    assert not set(left_out) & (used | set(range(1, len(WORDS) + 1)))
    assert all(problem.message and problem.fix for problem in left_out.values())
    # A reward may read whatever an answer is that isn't learned from.
    optional = method in ("rl", "distill")
    for row, what in bad.items():
        kind, _, side = what.partition(" as ")
        if kind in UNUSABLE or what == "no row":
            assert row in left_out or (optional and side == answer), what

    result = engine.run(recipe)
    assert result.state == "done"
    for name in engine.metric_names(result.job_id):
        curve = engine.curve(result.job_id, name)
        assert curve and all(math.isfinite(value) for _, value in curve), name
    said = " ".join(line["text"] for line in engine.log(result.job_id, 100))
    assert f"{len(left_out)} rows were left out" in said
    longest = next(row for row, what in bad.items() if what == "long as prompt")
    assert f"{longest}" in said and "were left out" in said.partition(f"{len(left_out)} rows were left out")[2]
    if optional and method == "rl":
        assert "have no right answer to hold answers against" in said


@pytest.mark.parametrize("method", METHODS)
def test_nothing_but_them_is_refused_before_the_run(engine: Engine, tmp_path: Path, method: str) -> None:
    bad = [{"prompt": value, METHODS[method][0]: value} for value in UNUSABLE.values()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bad), encoding="utf-8")
    before = len(engine.jobs())
    with pytest.raises(DataError) as caught:
        engine.launch(Recipe.make({"method": method, "data": {"path": str(tmp_path / "rows.jsonl")}, **METHODS[method][1]}))
    assert caught.value.next_step and len(engine.jobs()) == before
