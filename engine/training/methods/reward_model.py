"""A reward model: a language model that is asked after each answer whether it was a good one; its score is the log-odds of "yes".

    r = log p(yes) - log(1 - p(yes)),   L = -log sigmoid(r_chosen - r_rejected)      (Bradley and Terry 1952)

So it needs no head of its own, trains over any endpoint and is asked like any model. It learns from pairs; how well it ranks held-out
pairs, and whether it is as sure as it may be (calibration), is measured as it learns. Below the least accuracy it raises a doubt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from engine.data.examples import DataSet, Example, Message
from engine.errors import DataError, ModelError
from engine.recipe import Recipe
from engine.rendering import Rendered, Renderer
from engine.training.desk import Desk, datum, logprobs_of
from engine.training.methods import Base, Ticket
from engine.training.methods.preference import log_sigmoid, sigmoid
from engine.training.rows import named
from engine.training.schedule import order

YES, NO = "yes", "no"
SUREST = 1e-4  # p is kept this far from 1, where log(1 - p) can't be told from rounding
BINS = 5


class RewardModel(Base):
    """One recipe's pairs, each answer followed by the question."""

    watched = "held_out_preference_loss"
    speaks = False

    def __init__(self, recipe: Recipe, data: DataSet, renderer: Renderer, context: int):
        self._least, self._go_on = recipe.reward_model.least_accuracy, recipe.reward_model.go_on
        self.notes: list[str] = list(data.notes)
        limit = min(recipe.training.max_length or context, context)
        train, origins = self._asked(data.train, renderer, recipe.reward_model.question, limit, "training")
        self._pairs = train + self._asked(data.held_out, renderer, recipe.reward_model.question, limit, "held-out")[0]
        self._trained = len(train)
        if not train:
            raise DataError("no pair fits within the length limit", "Raise max_length, or shorten the examples.", where=data.name)
        self._order = order(recipe, origins, [len(one.tokens) + len(other.tokens) for one, other in train])
        self.rows = self._order.rows
        self._ahead: dict[int, Any] = {}
        self._accuracy: float | None = None

    def attach(self, desk: Desk, step: int) -> None:
        super().attach(desk, step)
        self._ahead = {}

    def submit(self, step: int, rate: float) -> Ticket:
        rows = self._order.of_step(step)
        likely = self._likely(self._ahead.pop(step, None) or self._forward(rows))
        slopes = [sigmoid(odds(r) - odds(c)) / len(rows) for c, r in likely]
        datums = []
        for row, slope, (c, r) in zip(rows, slopes, likely, strict=True):
            chosen, rejected = self._pairs[row]
            # The odds' derivative by log p is 1 / (1 - p).
            datums += [_weighed(chosen, slope / _rest(c)), _weighed(rejected, -slope / _rest(r))]
        gradients, update = self._desk.forward_backward(datums, "cross_entropy"), self._desk.optim_step(rate)
        if step + 1 < self._desk.total:
            self._ahead = {step + 1: self._forward(self._order.of_step(step + 1))}
        tokens = sum(len(side.tokens) for row in rows for side in self._pairs[row])
        return Ticket([gradients], [update], {"tokens": float(tokens), "targets": 2.0 * len(rows)}, _numbers(likely, ""))

    def measure(self) -> dict[str, float]:
        rows = range(self._trained, len(self._pairs))
        if not rows:
            return {}
        likely = self._likely(self._forward(rows))
        found = _numbers(likely, "held_out_")
        self._accuracy = found["held_out_preference_accuracy"]
        return found | {"calibration_error": calibration_error([odds(c) - odds(r) for c, r in likely])}

    def doubt(self) -> str:
        if self._go_on or self._accuracy is None or self._accuracy >= self._least:
            return ""
        return (
            f"the reward model ranks only {self._accuracy:.0%} of held-out pairs rightly, and {self._least:.0%} were wanted: "
            "what it scores may not be what you mean. Resume to go on all the same, or bring more and clearer pairs"
        )

    def state(self) -> dict[str, Any]:
        return {"accuracy": self._accuracy}

    def restore(self, state: dict[str, Any]) -> None:
        self._accuracy = state.get("accuracy")

    def _forward(self, rows: Sequence[int]) -> Any:
        return self._desk.forward([_weighed(side, 1.0) for row in rows for side in self._pairs[row]])

    def _likely(self, asked: Any) -> list[tuple[float, float]]:
        """log p(yes) after the better and after the worse answer of each pair."""
        last = [values[-1] for values in logprobs_of(self._desk.wait(asked, "asking how good the answers are"))]
        return list(zip(last[::2], last[1::2], strict=True))

    def _asked(
        self, examples: Sequence[Example], renderer: Renderer, question: str, limit: int, what: str
    ) -> tuple[list[tuple[Rendered, Rendered]], list[Example]]:
        found, origins, lost = [], [], []
        for example in examples:
            if example.rejected is None:
                continue
            sides = [asked(renderer, messages, question) for messages in example.conversations()]
            if max(len(tokens) for tokens in sides) > limit + 1:
                lost.append(example)
                continue
            chosen, rejected = (Rendered(tokens, [0.0] * (len(tokens) - 1) + [1.0]) for tokens in sides)
            found.append((chosen, rejected))
            origins.append(example)
        if lost:
            about = f"with the question they are longer than {limit:,} tokens: {named(lost)}"
            self.notes.append(f"{len(lost):,} {what} pairs were left out: {about}")
        return found, origins


def asked(renderer: Renderer, messages: Sequence[Message], question: str) -> list[int]:
    """The conversation, the question about its last answer, and "yes" as its last token: what that token's odds are asked of.
    Raises ModelError where yes and no begin alike."""
    said = [*messages, {"role": "user", "content": question}]
    yes, no = (renderer.examples([*said, {"role": "assistant", "content": word}])[-1].tokens for word in (YES, NO))
    place = next((place for place, (one, other) in enumerate(zip(yes, no, strict=False)) if one != other), None)
    if not place:
        raise ModelError("this model's tokenizer can't tell yes from no", "Choose another base model for the reward model.")
    return yes[: place + 1]


def odds(logprob: float) -> float:
    """From log p to the log-odds of it: log p - log(1 - p). A model that never says yes still finds it likelier after some answers."""
    return logprob - math.log(_rest(logprob))


def calibration_error(leads: Sequence[float]) -> float:
    """By how much the model is surer, or less sure, of its ranking than it is right: the expected calibration error over equal bins
    of its confidence, sigmoid(|lead|), from a half to 1."""
    sure = [sigmoid(abs(lead)) for lead in leads]
    right = [float(lead > 0) for lead in leads]
    total = 0.0
    for place in range(BINS):
        low, high = 0.5 + place * 0.5 / BINS, 0.5 + (place + 1) * 0.5 / BINS
        inside = [i for i, p in enumerate(sure) if low <= p < high or (place == BINS - 1 and p >= high)]
        if inside:
            total += len(inside) * abs(fmean(sure[i] for i in inside) - fmean(right[i] for i in inside))
    return total / len(leads) if leads else 0.0


def _numbers(likely: Sequence[tuple[float, float]], prefix: str) -> dict[str, float]:
    scores = [(odds(c), odds(r)) for c, r in likely]
    values = {
        "preference_loss": fmean(-log_sigmoid(c - r) for c, r in scores),
        "preference_accuracy": fmean(c > r for c, r in scores),
        "reward_margin": fmean(c - r for c, r in scores),
        "chosen_reward": fmean(c for c, _ in scores),
        "rejected_reward": fmean(r for _, r in scores),
    }
    return {prefix + name: value for name, value in values.items()}


def _rest(logprob: float) -> float:
    """1 - p, kept away from 0."""
    return max(1 - math.exp(logprob), SUREST)


def _weighed(row: Rendered, weight: float) -> Any:
    return datum(row.tokens, weights=[weight * own for own in row.weights])
