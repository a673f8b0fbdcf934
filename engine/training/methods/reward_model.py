"""A reward model: a language model that is asked after each answer whether it was a good one; its score is the log-odds of "yes".

    r = log p(yes) - log(1 - p(yes))
    pairs:  L = -log sigmoid(r_chosen - r_rejected)      (Bradley and Terry 1952)
    thumbs: L = -log p(yes) of what was found good, -log(1 - p(yes)) of what was found bad

So it needs no head of its own, trains over any endpoint and is asked like any model. How well it ranks held-out answers, and whether it
is as sure as it may be (calibration), is measured as it learns. Below the least accuracy it raises a doubt.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from engine.data.examples import DataSet, Example, Message
from engine.errors import DataError, ModelError
from engine.recipe import Recipe
from engine.rendering import Rendered, Renderer
from engine.training.desk import logprobs_of
from engine.training.methods import Asking, Ticket
from engine.training.methods.dpo import weighed
from engine.training.methods.preference import log_sigmoid, sigmoid
from engine.training.rows import named
from engine.training.schedule import order

YES, NO = "yes", "no"
SUREST = 1e-4  # p is kept this far from 1, where log(1 - p) can't be told from rounding
BINS = 5


def make(recipe: Recipe, data: DataSet, renderer: Renderer, context: int) -> RewardModel:
    """The reward model that learns from rows such as these."""
    return (FromThumbs if data.shape == "labels" else FromPairs)(recipe, data, renderer, context)


class RewardModel(Asking):
    """One recipe's rows: of each one or two answers, each followed by the question."""

    watched = "held_out_preference_loss"
    speaks = False
    what = "answers"

    def __init__(self, recipe: Recipe, data: DataSet, renderer: Renderer, context: int):
        self._least, self._go_on = recipe.reward_model.least_accuracy, recipe.reward_model.go_on
        self.notes: list[str] = list(data.notes)
        limit = min(recipe.training.max_length or context, context)
        train, origins = self._asked(data.train, renderer, recipe.reward_model.question, limit, "training")
        held_out, proving = self._asked(data.held_out, renderer, recipe.reward_model.question, limit, "held-out")
        self._rows, self._origins, self._trained = train + held_out, origins + proving, len(train)
        if not train:
            raise DataError(f"no {self.what} fit within the length limit", "Raise max_length, or shorten the examples.", where=data.name)
        self.order = order(recipe, origins, [sum(len(side.tokens) for side in row) for row in train])
        self.rows = self.order.rows
        self._accuracy: float | None = None

    def submit(self, step: int, rate: float) -> Ticket:
        rows = self.order.of_step(step)
        likely = self._likely(self._of_step(step, rows), rows)
        datums = []
        for row, found in zip(rows, likely, strict=True):
            slopes = self._slopes(self._origins[row], found)
            datums += [weighed(side, slope / len(rows)) for side, slope in zip(self._rows[row], slopes, strict=True)]
        gradients, update = self._desk.forward_backward(datums, "cross_entropy"), self._desk.optim_step(rate)
        self._ask_ahead(step)
        tokens = sum(len(side.tokens) for row in rows for side in self._rows[row])
        return Ticket([gradients], [update], {"tokens": float(tokens), "targets": float(len(datums))}, self._numbers(rows, likely, ""))

    def measure(self) -> dict[str, float]:
        rows = range(self._trained, len(self._rows))
        if not rows:
            return {}
        likely = self._likely(self._forward(rows), rows)
        found = self._numbers(rows, likely, "held_out_")
        self._accuracy = found.get("held_out_preference_accuracy")
        return found | {"calibration_error": self._calibration(rows, likely)}

    def doubt(self) -> str:
        if self._go_on or self._accuracy is None or self._accuracy >= self._least:
            return ""
        return (
            f"the reward model ranks only {self._accuracy:.0%} of held-out pairs rightly, and {self._least:.0%} were wanted: "
            "what it scores may not be what you mean. Resume to go on all the same, or bring more and clearer examples"
        )

    def state(self) -> dict[str, Any]:
        return {"accuracy": self._accuracy}

    def restore(self, state: dict[str, Any]) -> None:
        self._accuracy = state.get("accuracy")

    def _conversations(self, example: Example) -> list[list[Message]]:
        """What is asked about of the example; nothing where it says nothing of how good an answer is."""
        raise NotImplementedError

    def _slopes(self, example: Example, likely: Sequence[float]) -> list[float]:
        """The derivative of -L by each log p(yes)."""
        raise NotImplementedError

    def _numbers(self, rows: Sequence[int], likely: Sequence[Sequence[float]], prefix: str) -> dict[str, float]:
        raise NotImplementedError

    def _calibration(self, rows: Sequence[int], likely: Sequence[Sequence[float]]) -> float:
        raise NotImplementedError

    def _forward(self, rows: Sequence[int]) -> Any:
        return self._desk.forward([weighed(side, 1.0) for row in rows for side in self._rows[row]])

    def _likely(self, sent: Any, rows: Sequence[int]) -> list[list[float]]:
        """log p(yes) after each answer of each row."""
        last = iter([values[-1] for values in logprobs_of(self._desk.wait(sent, "asking how good the answers are"))])
        return [[next(last) for _ in self._rows[row]] for row in rows]

    def _asked(
        self, examples: Sequence[Example], renderer: Renderer, question: str, limit: int, what: str
    ) -> tuple[list[list[Rendered]], list[Example]]:
        found, origins, lost = [], [], []
        for example in examples:
            sides = [asked(renderer, messages, question) for messages in self._conversations(example)]
            if not sides:
                continue
            if max(len(tokens) for tokens in sides) > limit + 1:
                lost.append(example)
                continue
            found.append([Rendered(tokens, [0.0] * (len(tokens) - 1) + [1.0]) for tokens in sides])
            origins.append(example)
        if lost:
            about = f"with the question they are longer than {limit:,} tokens: {named(lost)}"
            self.notes.append(f"{len(lost):,} {what} {self.what} were left out: {about}")
        return found, origins


class FromPairs(RewardModel):
    """Better answers shall score higher than worse ones to the same prompt."""

    what = "pairs"

    def _conversations(self, example: Example) -> list[list[Message]]:
        return [] if example.rejected is None else list(example.conversations())

    def _slopes(self, example: Example, likely: Sequence[float]) -> list[float]:
        c, r = likely
        slope = sigmoid(odds(r) - odds(c))
        # The odds' derivative by log p is 1 / (1 - p).
        return [slope / _rest(c), -slope / _rest(r)]

    def _numbers(self, rows: Sequence[int], likely: Sequence[Sequence[float]], prefix: str) -> dict[str, float]:
        scores = [(odds(c), odds(r)) for c, r in likely]
        values = {
            "preference_loss": fmean(-log_sigmoid(c - r) for c, r in scores),
            "preference_accuracy": fmean(c > r for c, r in scores),
            "reward_margin": fmean(c - r for c, r in scores),
            "chosen_score": fmean(c for c, _ in scores),
            "rejected_score": fmean(r for _, r in scores),
        }
        return {prefix + name: value for name, value in values.items()}

    def _calibration(self, rows: Sequence[int], likely: Sequence[Sequence[float]]) -> float:
        return calibration_error([odds(c) - odds(r) for c, r in likely])


class FromThumbs(RewardModel):
    """What was found good shall get a yes, what was found bad none."""

    def _conversations(self, example: Example) -> list[list[Message]]:
        return [] if example.good is None else [example.messages]

    def _slopes(self, example: Example, likely: Sequence[float]) -> list[float]:
        (p,) = likely
        return [1.0] if example.good else [-math.exp(p) / _rest(p)]

    def _numbers(self, rows: Sequence[int], likely: Sequence[Sequence[float]], prefix: str) -> dict[str, float]:
        """What has a side of each in it is compared over all pairs of a good and a bad answer, whatever they answer."""
        scores: dict[bool, list[float]] = {True: [], False: []}
        losses = []
        for row, (p,) in zip(rows, likely, strict=True):
            good = bool(self._origins[row].good)
            scores[good].append(odds(p))
            losses.append(-p if good else -math.log(_rest(p)))
        values = {"preference_loss": fmean(losses)}
        if scores[True] and scores[False]:
            good, bad = fmean(scores[True]), fmean(scores[False])
            values |= {"preference_accuracy": ranked(scores[True], scores[False]), "reward_margin": good - bad}
            values |= {"chosen_score": good, "rejected_score": bad}
        return {prefix + name: value for name, value in values.items()}

    def _calibration(self, rows: Sequence[int], likely: Sequence[Sequence[float]]) -> float:
        # As sure of a verdict as its distance from an even chance; right where the verdict is the person's.
        return calibration_error([odds(p) * (1 if self._origins[row].good else -1) for row, (p,) in zip(rows, likely, strict=True)])


def ranked(good: Sequence[float], bad: Sequence[float]) -> float:
    """In which share of pairs of a good and a bad answer the good one scores higher; a tie counts half (the area under the ROC curve)."""
    below, found = sorted(bad), 0.0
    for score in good:
        found += (bisect_left(below, score) + bisect_right(below, score)) / 2
    return found / (len(good) * len(bad))


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


def _rest(logprob: float) -> float:
    """1 - p, kept away from 0."""
    return max(1 - math.exp(logprob), SUREST)
