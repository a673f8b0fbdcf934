"""Answers that were tried out: drawn in groups, scored, and shown. Knows samplers and rewards; nothing of what is learned from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.examples import Example
from engine.training.answers import cut, stops
from engine.training.desk import Desk

FILE = "rollouts.jsonl"
SHOWN_CHARACTERS = 4000
WATCHED_PROMPTS = 64  # held-out prompts that are answered at each measurement; the proof takes all


@dataclass(frozen=True)
class Try:
    """One answer: its tokens, each token's log-probability when it was drawn (nats), its text, and whether it hit the length limit."""

    tokens: list[int]
    logprobs: list[float]
    text: str
    cut_off: bool


@dataclass(frozen=True)
class Group:
    """A prompt and the answers that were tried for it."""

    example: Example
    prompt: list[int]
    tries: list[Try]


@dataclass(frozen=True)
class Drawing:
    """Groups on their way."""

    examples: list[Example]
    prompts: list[list[int]]
    futures: list[Any]


def draw(
    desk: Desk,
    sampler: Any,
    examples: Sequence[Example],
    prompts: Sequence[list[int]],
    count: int,
    *,
    step: int,
    temperature: float,
    most: int,
) -> Drawing:
    """Asks for `count` answers to each prompt, all prompts at once. The same step of the same recipe draws the same."""
    from tinker import types

    stop = stops(desk.renderer, desk.recipe.stop)
    futures = []
    for place, prompt in enumerate(prompts):
        seed = seed_of(desk.recipe.seed, desk.number, step, place)
        params = types.SamplingParams(max_tokens=most, temperature=temperature, seed=seed, stop=stop)
        futures.append(desk.sample(sampler, prompt, count, params))
    return Drawing(list(examples), list(prompts), futures)


def collect(desk: Desk, drawing: Drawing) -> list[Group]:
    """Waits for the answers."""
    groups = []
    for example, prompt, future in zip(drawing.examples, drawing.prompts, drawing.futures, strict=True):
        reply = desk.wrote(desk.wait(future, "trying out answers"))
        tries = [
            Try(list(one.tokens), list(one.logprobs), cut(desk.renderer.text(one.tokens), desk.recipe.stop), one.stop_reason == "length")
            for one in reply.sequences
        ]
        groups.append(Group(example, prompt, tries))
    return groups


def seed_of(*parts: int) -> int:
    """A seed for these numbers, the same everywhere."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:4], "big") >> 1


def show(folder: Path, step: int, groups: Sequence[Group], scores: Sequence[Sequence[Any]]) -> None:
    """Appends the step's best and worst answer, with what they scored, for people to look at."""
    flat = [
        (score.value, group, one, score)
        for group, row in zip(groups, scores, strict=True)
        for one, score in zip(group.tries, row, strict=True)
    ]
    if not flat:
        return
    picked = {"best": max(flat, key=lambda item: item[0]), "worst": min(flat, key=lambda item: item[0])}
    lines = []
    for which, (value, group, one, score) in picked.items():
        told = {
            "step": step,
            "which": which,
            "prompt": group.example.prompt[-1]["content"][:SHOWN_CHARACTERS],
            "expected": group.example.answer[:SHOWN_CHARACTERS],
            "answer": one.text[:SHOWN_CHARACTERS],
            "score": value,
            "parts": score.parts,
            "note": score.note[:SHOWN_CHARACTERS],
            "tokens": len(one.tokens),
            "cut_off": one.cut_off,
        }
        lines.append(json.dumps(told, ensure_ascii=False) + "\n")
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write("".join(lines))


def shown(folder: Path, last: int = 20) -> list[dict[str, Any]]:
    """The last steps' best and worst answers, the newest step first. What a later attempt did again counts once."""
    file = folder / FILE
    if not file.exists():
        return []
    found: dict[tuple[int, str], dict[str, Any]] = {}
    newest = 0
    with file.open("rb") as read:
        read.seek(max(0, file.stat().st_size - 400_000))
        for line in read.read().decode("utf-8", "replace").splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if row["step"] < newest:
                found = {key: kept for key, kept in found.items() if key[0] <= row["step"]}
            newest = row["step"]
            found[newest, row["which"]] = row
    steps = sorted({step for step, _ in found}, reverse=True)[:last]
    return [found[step, which] for step in steps for which in ("best", "worst") if (step, which) in found]
