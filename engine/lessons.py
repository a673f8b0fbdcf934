"""What a lesson consists of: corrections, the model's own other answers as an anchor, and the recipe of the micro-run.

The anchor is self-distillation (Li and Hoiem 2016, Learning without Forgetting, https://arxiv.org/abs/1606.09282): the model learns its
own answers to other prompts along with the corrections, so that these stay. Knows endpoints over HTTP; loads no weights.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import httpx

from engine import knowledge, models, starts
from engine.data import chats_file, demos, load_data, shelf
from engine.endpoints import Endpoint
from engine.errors import EndpointError, EngineError
from engine.evaluation.metrics import exact_match, score, token_f1
from engine.playground.asking import TIMEOUT, refusal
from engine.playground.speakers import Speaker
from engine.recipe import Recipe
from engine.rendering import Message
from engine.store import Correction, Job, Store, Turn
from engine.store.artefacts import write_bytes_atomic

AT_ONCE = 64
SKILLS = 100  # tasks: enough to see a loss, few enough not to hold up who chats on
_NEAR = 0.9  # words in common (F1) from which a longer answer counts as learned
_LARGE = 5 * 2**20
_VERSION = re.compile(r"(.*\S) v(\d+)", re.DOTALL)


def size_for(base_model: str, corrections: int) -> dict[str, Any]:
    """How much a lesson of so many corrections takes: anchors, batch_size, steps, rate_share, anchor_tokens."""
    known = knowledge.lessons()
    steps = min(known["most_steps"], known["least_steps"] + known["steps_each"] * corrections)
    shared = {name: known[name] for name in ("rate_share", "anchor_tokens")}
    return {**known["measured"].get(base_model, known["others"]), **shared, "steps": steps}


def anchor_prompts(
    store: Store, owner: str, speaker: Speaker, turns: Sequence[Turn], corrected: Collection[str], most: int
) -> list[list[Message]]:
    """What the model is asked so that it keeps its answers: this conversation's other prompts, what it learned from, what all know.

    The same lesson asks the same. Prompts in `corrected` are left out.
    """
    talk: list[list[Message]] = [[{"role": "user", "content": turn.prompt}] for turn in turns]
    kept, other = _learned_from(store, owner, speaker)
    found: dict[str, list[Message]] = {}
    for messages in [*talk, *kept, *other, *([{"role": "user", "content": prompt}] for prompt in knowledge.lessons()["prompts"])]:
        key = messages[-1]["content"]
        if key not in corrected and len(key) <= 2000:
            found.setdefault(key, messages)
    return list(found.values())[:most]


def own_answers(endpoint: Endpoint, speaker: Speaker, conversations: Sequence[list[Message]], max_tokens: int) -> list[str]:
    """What the speaker says to each, greedily; empty where it found no end. Raises EngineError."""
    return asyncio.run(_all_answers(endpoint, speaker, conversations, max_tokens))


def write_rows(file: Path, corrections: Sequence[Correction], anchors: Sequence[tuple[list[Message], str]], size: dict[str, Any]) -> None:
    """The rows of the micro-run: each correction so often that it is gone through `looks` times, each anchor once."""
    known, count = knowledge.lessons(), len(corrections)
    seen = size["steps"] * size["batch_size"]
    # looks = seen * repeats / (anchors + count * repeats), solved for repeats.
    wanted = known["looks"] * len(anchors) / max(1, seen - known["looks"] * count)
    most = len(anchors) * known["share"] / (1 - known["share"]) / count
    repeats = max(1, round(min(wanted, most)))
    rows: list[dict[str, Any]] = [{"messages": [*c.messages, _said(c.correction)]} for c in corrections] * repeats
    rows += [{"messages": [*messages, _said(answer)], "kind": "replay"} for messages, answer in anchors]
    write_bytes_atomic(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "replace"))


def recipe(store: Store, owner: str, speaker: Speaker, file: Path, name: str, corrections: int) -> Recipe:
    """The micro-run: on from the speaker's own weights, or a new adapter on a base model. Raises EngineError."""
    size = size_for(speaker.base_model, corrections)
    changes: dict[str, Any] = {
        "name": name,
        "base_model": speaker.base_model,
        "endpoint": speaker.endpoint,
        "data": {"path": str(file), "format": "messages", "held_out_fraction": 0},
        "training": {"steps": size["steps"], "batch_size": size["batch_size"], "warmup": 0.1},
        "evaluation": {"proof": False, "skills": False, "eval_every": 0, "samples_every": 0},
        "checkpoints": {"every_steps": 0, "every_seconds": 0},
    }
    if speaker.kind != "base":
        changes = starts.complete(store, owner, {**changes, "start": {"checkpoint": speaker.ref}})
    config = json.loads((models.resolve(speaker.base_model, weights=False) / "config.json").read_text(encoding="utf-8"))
    advised = knowledge.recommend(config, speaker.base_model, lora=not changes.get("full"))["training.learning_rate"]["value"]
    changes["training"]["learning_rate"] = advised * size["rate_share"]
    return starts.settle(store, owner, Recipe.make(changes))


def judged(messages: list[Message], said: str, after: str, correction: str) -> dict[str, Any]:
    """One corrected prompt as it is kept with a model: {prompt, correction, before, after, was_right, right}."""
    prompt = messages[-1]["content"]
    told = {"prompt": prompt, "correction": correction, "before": said, "after": after}
    return told | {"was_right": as_corrected(said, correction), "right": as_corrected(after, correction)}


def as_corrected(said: str, wanted: str) -> bool:
    """Whether it says what it should; of a longer answer most words in common will do."""
    return exact_match(said, wanted) or (len(wanted.split()) > 8 and token_f1(said, wanted) >= _NEAR)


def skills(base_model: str) -> list[Any]:
    """Tasks from before any training by which to see what a lesson cost, as examples; none where we know of none."""
    from engine.data.formats import read_examples

    return read_examples(demos.SKILLS_FILE, "messages").examples[:SKILLS] if base_model == "nano" else []


def proof(lesson: dict[str, Any], before: Sequence[str] | None, after: Sequence[str], tasks: Sequence[Any]) -> dict[str, Any]:
    """What is kept with the model that a lesson made, in the form of a run's proof; it has no held-out examples.

    `lesson`: {id, cases, earlier}; `before` and `after` are the answers to `tasks`, before None where nobody is left to ask.
    """
    wanted = [task.answer for task in tasks]
    sides = {"before": before, "after": after}
    detail = {side: score(list(said), wanted).to_dict() if said and wanted else None for side, said in sides.items()}
    rates = {side: found["exact_match"] if found else None for side, found in detail.items()}
    return {"held_out": {"before": None, "after": None}, "skills": rates, "skills_detail": detail, "lesson": lesson}


def next_version(name: str, taken: Collection[str]) -> str:
    """nano -> nano v2 -> nano v3: the next that nobody has."""
    known = _VERSION.fullmatch(name)
    stem, number = (known[1], int(known[2])) if known else (name[:110], 1)
    while True:
        number += 1
        if f"{stem} v{number}" not in taken:
            return f"{stem} v{number}"


def _learned_from(store: Store, owner: str, speaker: Speaker) -> tuple[list[list[Message]], list[list[Message]]]:
    """(what it was taught before, in lessons of this kind; the rest, mixed), as prompts."""
    rows = []
    try:
        job = store.find_job(speaker.job_id, owner) if speaker.job_id else None
        rows = list(_rows(store, owner, job)) if job else []
    except (EngineError, OSError):
        # The run or its file is gone: what is left will do.
        job = None
    told = bool(job and job.recipe.start.checkpoint and not job.recipe.evaluation.proof)
    if not rows and speaker.base_model == "nano":
        rows = [(list(example.prompt), example.kind) for example in _birth()]
    lesson = [messages for messages, kind in rows if told and kind == "task"]
    task, replay = ([messages for messages, kind in rows if kind == wanted] for wanted in ("task", "replay"))
    dice = random.Random(speaker.ref)
    for prompts in (task, replay):
        dice.shuffle(prompts)
    # As much of what it learned as of what it was to keep then.
    mixed = [messages for pair in zip_longest([] if told else task, replay) for messages in pair if messages]
    return lesson, mixed


def _rows(store: Store, owner: str, job: Job) -> Iterator[tuple[list[Message], str]]:
    spec = job.recipe.data
    if spec.dataset:
        for row in shelf.spread(chats_file(spec.dataset), 1000):
            yield row.messages[:-1], row.kind
    elif spec.path and Path(spec.path).stat().st_size > _LARGE:
        for sample in store.samples(job.id, owner=owner):
            yield [{"role": "user", "content": sample.prompt}], "task"
    else:
        for example in load_data(job.recipe, skills=False).train:
            yield list(example.prompt), example.kind


def _birth() -> list[Any]:
    """What nano is born with, as far as the demos replay it."""
    from engine.data.formats import read_examples

    return [row for row in read_examples(demos.find("piglatin").train, "messages").examples if row.kind == "replay"]


async def _all_answers(endpoint: Endpoint, speaker: Speaker, conversations: Sequence[list[Message]], max_tokens: int) -> list[str]:
    body = {"model": speaker.path or speaker.base_model, "temperature": 0.0, "max_tokens": max_tokens, "seed": 0}
    if speaker.stop:
        body["stop"] = list(speaker.stop)
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(http: httpx.AsyncClient, messages: list[Message]) -> str:
        async with gate:
            reply = await http.post(f"{endpoint.chat_url}/chat/completions", json={**body, "messages": messages})
        if reply.status_code != 200:
            raise refusal(speaker, reply.status_code, reply.content)
        choice = reply.json()["choices"][0]
        return (choice["message"]["content"] or "") if choice["finish_reason"] == "stop" else ""

    headers, limits = {"Authorization": f"Bearer {endpoint.key()}"}, httpx.Limits(max_connections=AT_ONCE)
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT, headers=headers, limits=limits) as http:
            return list(await asyncio.gather(*(one(http, messages) for messages in conversations)))
    except httpx.HTTPError as error:
        raise EndpointError(f"{speaker.name} didn't answer: {type(error).__name__}", "Press Learn again.", where=speaker.name) from error


def _said(text: str) -> Message:
    return {"role": "assistant", "content": text}
