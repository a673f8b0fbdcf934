"""What can be told of a recipe without training: its place, its model, its rows as that very model will be shown them, what is known to go
wrong. Loads tokenizers and data, no weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine import guard, models, places, starts
from engine.advice import Concern
from engine.amounts import size
from engine.data import load_data
from engine.data.examples import DataSet, Example
from engine.endpoints import kind
from engine.errors import DataError, ModelError
from engine.estimates import Estimate
from engine.recipe import Recipe, Stage
from engine.rehearsing.report import Found, Report
from engine.rendering import Rendered, Renderer, get_renderer, load_tokenizer
from engine.seen import Seen, seen_of
from engine.store import Store
from engine.training.methods import Method, make_method
from engine.training.schedule import total_steps

_LOOKED_AT = 50  # rows whose masks are looked at closely
_SHOWN = 3
_TAIL = 8  # tokens before an answer that have to be those it is asked with


class Rows:
    """The data of a recipe's stages, each read once."""

    def __init__(self) -> None:
        self._known: dict[str, DataSet] = {}

    def load(self, recipe: Recipe) -> DataSet:
        """As the run reads it, the recipe's own system prompt before it. Raises DataError."""
        told = [recipe.data.model_dump(mode="json"), recipe.method, recipe.system_prompt, recipe.seed]
        key = json.dumps(told, sort_keys=True)
        if key not in self._known:
            self._known[key] = load_data(recipe)
        return self._known[key]


def place(report: Report, owner: str, recipe: Recipe) -> bool:
    """The endpoint has all that it needs."""

    def work() -> Found:
        guard.key(owner, recipe.endpoint)
        guard.able(owner, recipe)
        found = places.at(recipe.endpoint, owner)
        missing = [check for check in found.checks if not (check.met or check.optional)]
        if missing:
            first = missing[0]
            return Found(f"{found.title}: {first.label.lower()}: {first.found}", "failed", first.advice, "recipe endpoint")
        told = [f"{check.label.lower()}: {check.found}" for check in found.checks if check.met and not check.optional]
        return Found(f"{found.title} is ready ({'; '.join(told)})")

    return report.look("place", "Where it runs", work)


@dataclass(frozen=True)
class Speech:
    """How the recipe's own model is spoken to. `context`: the most tokens it looks at."""

    renderer: Renderer
    tokenizer: Any
    context: int


def model(report: Report, store: Store, owner: str, recipe: Recipe) -> Speech | None:
    """The recipe's own base model: there, readable, with a renderer that fits."""
    made: list[Speech] = []

    def work() -> Found:
        guard.model(owner, recipe.base_model, recipe.endpoint)
        here = kind(recipe.endpoint, owner).weights
        if not here:
            guard.offered(owner, recipe)
        folder = models.resolve(recipe.base_model, weights=False)
        tokenizer = load_tokenizer(folder)
        renderer = get_renderer(recipe.renderer, tokenizer)
        made.append(Speech(renderer, tokenizer, models.context_length(folder)))
        about = f"it looks at {made[0].context:,} tokens and is spoken to by {renderer.name}"
        if not here:
            return Found(f"{about}; {kind(recipe.endpoint, owner).title} trains it")
        there = models.at_hand(recipe.base_model)
        if there is None:
            advice = "It is downloaded when the run starts; see that there is a network and room for it."
            return Found(f"{about}; its weights aren't on this machine yet", "care", advice, "recipe base_model")
        return Found(f"{about}; its weights are here ({size(sum(file.stat().st_size for file in there.glob('*.safetensors')))})")

    report.look("model", f"The model {recipe.base_model}", work)
    if recipe.start.checkpoint:
        report.look("start", "What it goes on from", lambda: _start(store, owner, recipe))
    return made[0] if made else None


def previews(report: Report, owner: str, recipe: Recipe) -> None:
    """Where the person's own prompts are answered can read what the run saves."""
    evaluation = recipe.evaluation
    if evaluation.previews and evaluation.preview_endpoint and evaluation.preview_endpoint != recipe.endpoint:

        def work() -> Found:
            guard.previews(owner, recipe)
            title = kind(evaluation.preview_endpoint, owner).title
            return Found(f"{title} can read what the run saves, and answers {len(evaluation.previews)} prompts")

        report.look("previews", "Where previews are answered", work)


def _start(store: Store, owner: str, recipe: Recipe) -> Found:
    found = starts.find(store, owner, recipe.start.checkpoint)
    if found.endpoint == "local" and starts.folder_of(found.path) is None:
        advice = "Train its run again, or start from another checkpoint."
        raise ModelError(f"the files of {found.name} are gone", advice, where="recipe start.checkpoint")
    return Found(f"{found.name}, on {found.base_model}, is there")


def rows(report: Report, recipe: Recipe, stage: int, data: Rows) -> DataSet | None:
    """The stage's data can be read, and there is something to learn and to prove."""
    made: list[DataSet] = []

    def work() -> Found:
        found = data.load(recipe)
        made.append(found)
        text = f"{len(found.train):,} to learn from and {len(found.held_out):,} held out, from {found.name}"
        if found.replay_count:
            text += f"; {found.replay_count:,} keep older skills"
        if not found.train:
            raise DataError("there is nothing to learn from", "Add rows.", where=found.name)
        if found.problems:
            first = found.problems[0]
            told = f"{text}; {len(found.problems):,} rows are left out, the first: {first.message}"
            return Found(told, "care", first.fix, first.place)
        if recipe.evaluation.proof and not found.held_out:
            return Found(f"{text}: nothing can be proven", "care", "Add rows, or raise data.held_out_fraction.", "recipe data")
        return Found("; ".join([text, *found.notes]))

    report.look("data", "The data", work, stage)
    return made[0] if made else None


def rendering(report: Report, stage: Stage, number: int, data: DataSet, speech: Speech) -> bool:
    """Every row as tokens of the recipe's own model, as the method makes them; some masks looked at closely."""
    recipe = stage.recipe

    def work() -> Found:
        method = make_method(recipe, data, speech.renderer, speech.context)
        try:
            return _masks(report, recipe, number, data, speech, method)
        finally:
            method.close()

    return report.look("rendering", f"As {recipe.base_model} sees it", work, number)


def _masks(report: Report, recipe: Recipe, number: int, data: DataSet, speech: Speech, method: Method) -> Found:
    renderer, limit = speech.renderer, min(recipe.training.max_length or speech.context, speech.context)
    tried = data.shape == "prompts"
    tasks = [example for example in data.train if example.kind == "task"] or data.train
    for example in tasks[:_SHOWN]:
        for one in seen_of(example, data.shape, speech.renderer, speech.tokenizer):
            report.rendered.append({"stage": number, "method": recipe.method, **_shown(one)})
    looked = tasks[:_LOOKED_AT]
    lengths = [len(renderer.prompt(example.prompt)) for example in looked] if tried else []
    oddities: list[str] = []
    for example in [] if tried else looked:
        for messages in example.conversations():
            found = renderer.examples(messages, limit + 1)
            lengths.append(sum(len(row.tokens) for row in found))
            oddities += _odd(example, renderer, found[-1])
    mean, longest = sum(lengths) / len(lengths), max(lengths)
    steps = total_steps(recipe.training, method.rows)
    per_step = mean * recipe.training.batch_size * (recipe.rl.group_size if recipe.method == "rl" else 1)
    report.steps.append({"stage": number, "steps": steps, "tokens": round(per_step)})
    text = f"{method.rows:,} rows an epoch, {mean:,.0f} tokens each, the longest of {len(looked):,} looked at {longest:,} of {limit:,}"
    text += f"; {steps:,} updates of about {per_step:,.0f} tokens"
    if oddities:
        advice = "Choose another renderer, or correct the rows."
        return Found(f"{text}. {len(oddities):,} of {len(looked):,} rows look odd: {oddities[0]}", "care", advice, "recipe renderer")
    told = [note for note in method.notes if note not in data.notes]
    if told:
        return Found(
            f"{text}. {'; '.join(told)}", "care", "Shorten those rows, or raise training.max_length.", "recipe training.max_length"
        )
    learned = "prompts alone are shown, answers are its own" if tried else "every answer is learned to its end mark, no prompt is"
    return Found(f"{text}; {learned}")


def _odd(example: Example, renderer: Renderer, row: Rendered) -> list[str]:
    """What is wrong with a training sequence: nothing to learn, no end mark, or asked in another way than it is trained."""
    where = f"row {example.row:,}"
    places = [place for place, weight in enumerate(row.weights) if weight > 0]
    if not places:
        return [f"nothing of its answer is learned ({where})"]
    if row.truncated:
        return []
    tail = renderer.stop_tokens
    if tail and row.tokens[places[-1]] not in tail:
        return [f"its answer doesn't end in an end mark, so the model won't learn to stop ({where})"]
    begin = places[-1]
    while begin > 0 and row.weights[begin - 1] > 0:
        begin -= 1
    asked = renderer.prompt(example.prompt)[-_TAIL:]
    if row.tokens[max(0, begin - len(asked)) : begin] != asked:
        return [f"it is asked in other tokens than it is trained on ({where})"]
    return []


def _shown(one: Seen) -> dict[str, Any]:
    """{row, side, tokens, pieces: [[text, whether it is learned]], expected}, long texts shortened."""
    pieces = [[text if len(text) <= 600 else f"{text[:400]} … {text[-150:]}", learned] for text, learned in one.pieces]
    return {"row": one.row, "side": one.side, "tokens": one.tokens, "pieces": pieces, "expected": one.expected[:500]}


def known_trouble(report: Report, plan: Callable[[], tuple[Sequence[Concern], Sequence[Estimate]]]) -> None:
    """What the planner warns of."""

    def work() -> Found:
        concerns, estimates = plan()
        takes = "; ".join(f"{one.name} {one.text}" for one in estimates) or "nothing that can be told before"
        if not concerns:
            return Found(f"nothing to warn of; it takes: {takes}")
        first = concerns[0]
        more = f" (and {len(concerns) - 1} more)" if len(concerns) > 1 else ""
        state = "failed" if first.level == "stop" else "care"
        return Found(f"{first.text}{more} It takes: {takes}", state, first.action, f"recipe {first.field}")

    report.look("advice", "What is known to go wrong", work)
