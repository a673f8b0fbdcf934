"""Direct preference optimisation: of two answers, make the better one likelier than the worse one was, measured against a reference.

Each step asks for the log-probabilities of its pairs, works out the loss's gradient by hand (preference.py) and sends it back as
token weights of a cross-entropy. The next step's log-probabilities are asked for before this one's result is awaited. The reference
is the model that the stage starts from; its log-probabilities are asked for once, in bulk, and kept in the run's folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.data.examples import DataSet, Example
from engine.errors import DataError
from engine.recipe import Recipe
from engine.rendering import Rendered, Renderer
from engine.training.desk import Desk, datum, logprobs_of
from engine.training.methods import Asking, Ticket
from engine.training.methods.preference import Pull, Side, pair
from engine.training.methods.reference import Reference
from engine.training.rows import last_answer, named
from engine.training.schedule import order


@dataclass(frozen=True)
class Pair:
    """The two answers to one prompt, each as a whole conversation with weight on the answer."""

    chosen: Rendered
    rejected: Rendered


class DPO(Asking):
    """One recipe's pairs."""

    watched = "held_out_preference_loss"

    def __init__(self, recipe: Recipe, data: DataSet, renderer: Renderer, context: int):
        limit = min(recipe.training.max_length or context, context)
        self._spec = recipe.dpo
        self.notes: list[str] = list(data.notes)
        train, origins = pairs(data.train, renderer, limit, "training", self.notes)
        # One list, held-out pairs last: a pair is known by its place in it.
        self._pairs = train + pairs(data.held_out, renderer, limit, "held-out", self.notes)[0]
        self._trained = len(train)
        self.order = order(recipe, origins, [len(one.chosen.tokens) + len(one.rejected.tokens) for one in train])
        self.rows = self.order.rows
        if not self.rows:
            raise DataError(
                "no pair has two answers within the length limit", "Raise max_length, or shorten the examples.", where=data.name
            )

    def attach(self, desk: Desk, step: int) -> None:
        super().attach(desk, step)
        if self._spec.variant == "simpo":
            self._reference = None
            return
        used = {row for at in range(desk.total) for row in self.order.of_step(at)} | set(self._held_out)
        sides = {f"{row}/{which}": side for row in sorted(used) for which, side in enumerate(_both(self._pairs[row]))}
        self._reference = Reference(desk, sides, fresh=step == 0)

    def submit(self, step: int, rate: float) -> Ticket:
        rows = self.order.of_step(step)
        both = self._compared(self._of_step(step, rows), rows)
        found = [self._pull(*one) for one in both]
        datums = []
        for row, pull in zip(rows, found, strict=True):
            one = self._pairs[row]
            datums += [weighed(one.chosen, -pull.by_chosen / len(rows)), weighed(one.rejected, -pull.by_rejected / len(rows))]
        gradients, update = self._desk.forward_backward(datums, "cross_entropy"), self._desk.optim_step(rate)
        self._ask_ahead(step)
        sides = self._sides(rows)
        counts = {"tokens": sum(len(side.tokens) for side in sides), "targets": sum(side.completion_tokens for side in sides)}
        return Ticket([gradients], [update], counts, self._numbers(both, found, ""))

    def measure(self) -> dict[str, float]:
        rows = list(self._held_out)
        if not rows:
            return {}
        both = self._compared(self._forward(rows), rows)
        return self._numbers(both, [self._pull(*one) for one in both], "held_out_")

    @property
    def _held_out(self) -> range:
        return range(self._trained, len(self._pairs))

    def _forward(self, rows: Sequence[int]) -> Any:
        return self._desk.forward([weighed(side, 1.0) for side in self._sides(rows)])

    def _sides(self, rows: Sequence[int]) -> list[Rendered]:
        return [side for row in rows for side in _both(self._pairs[row])]

    def _compared(self, asked: Any, rows: Sequence[int]) -> list[tuple[Side, Side]]:
        """Both answers of each pair: how likely they are now, and how likely they were."""
        sides = self._sides(rows)
        now = answer_sums(logprobs_of(self._desk.wait(asked, "asking for log-probabilities")), sides)
        before = [self._reference.value(f"{row}/{which}") if self._reference else 0.0 for row in rows for which in (0, 1)]
        known = [Side(*values, side.completion_tokens) for *values, side in zip(now, before, sides, strict=True)]
        return list(zip(known[::2], known[1::2], strict=True))

    def _pull(self, chosen: Side, rejected: Side) -> Pull:
        spec = self._spec
        return pair(spec.variant, chosen, rejected, spec.beta, spec.margin, spec.nll)

    def _numbers(self, both: Sequence[tuple[Side, Side]], found: Sequence[Pull], prefix: str) -> dict[str, float]:
        """What people watch. Rewards are beta times the gain over the reference, as is usual."""
        beta, n = self._spec.beta, len(both)
        length = self._spec.variant == "simpo"
        good = [beta * (c.now / c.tokens if length else c.gain) for c, _ in both]
        bad = [beta * (r.now / r.tokens if length else r.gain) for _, r in both]
        values = {
            "preference_loss": sum(pull.loss for pull in found) / n,
            "preference_accuracy": sum(g > b for g, b in zip(good, bad, strict=True)) / n,
            "reward_margin": sum(g - b for g, b in zip(good, bad, strict=True)) / n,
            "chosen_reward": sum(good) / n,
            "rejected_reward": sum(bad) / n,
            "chosen_logprob": sum(c.now / c.tokens for c, _ in both) / n,
        }
        if not length:
            # These answers weren't drawn from the model, so this isn't a divergence in the strict sense.
            gains = [side.gain / side.tokens for one in both for side in one]
            values["reference_shift"] = sum(abs(gain) for gain in gains) / len(gains)
        return {prefix + name: value for name, value in values.items()}


def pairs(examples: Sequence[Example], renderer: Renderer, limit: int, what: str, notes: list[str]) -> tuple[list[Pair], list[Example]]:
    """The examples that have two answers, as tokens, and each one's example. Notes what was cut or lost."""
    found, origins, cut, lost = [], [], [], []
    for example in examples:
        if example.rejected is None:
            continue
        worse = [*example.prompt, {"role": "assistant", "content": example.rejected}]
        one = Pair(last_answer(example.messages, renderer, limit), last_answer(worse, renderer, limit))
        if not one.chosen.completion_tokens or not one.rejected.completion_tokens:
            lost.append(example)
            continue
        if one.chosen.truncated or one.rejected.truncated:
            cut.append(example)
        found.append(one)
        origins.append(example)
    if cut:
        notes.append(f"{len(cut):,} {what} pairs were cut to {limit:,} tokens: {named(cut)}")
    if lost:
        notes.append(f"{len(lost):,} {what} pairs were left out: their prompts alone are longer than {limit:,} tokens: {named(lost)}")
    return found, origins


def weighed(row: Rendered, weight: float) -> Any:
    """The sequence with this weight on each token of its answer."""
    return datum(row.tokens, weights=[weight if own > 0 else 0.0 for own in row.weights])


def answer_sums(logprobs: Sequence[Sequence[float]], sides: Sequence[Rendered]) -> list[float]:
    """Each answer's log-probability: the sum over its tokens (nats)."""
    return [
        sum(value for value, weight in zip(values, side.weights[1:], strict=True) if weight > 0)
        for values, side in zip(logprobs, sides, strict=True)
    ]


def _both(one: Pair) -> tuple[Rendered, Rendered]:
    return one.chosen, one.rejected
