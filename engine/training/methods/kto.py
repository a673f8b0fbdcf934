"""Learning from answers that were each found good or bad (KTO): the good ones likelier, the bad ones less likely, than they were.

What counts is how far an answer's gain over the reference lies above or below a baseline: the model's general drift, estimated on
mismatched pairs (each prompt with the answer to the next other prompt), never below 0. No gradient flows through the baseline.
Everything else is as in dpo.py: log-probabilities first, then the gradient by hand as token weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.data.examples import DataSet, Example
from engine.errors import DataError
from engine.recipe import Recipe
from engine.rendering import Rendered, Renderer
from engine.training.desk import Desk, logprobs_of
from engine.training.methods import Asking, Ticket
from engine.training.methods.dpo import answer_sums, weighed
from engine.training.methods.preference import Side, single
from engine.training.methods.reference import Reference
from engine.training.rows import last_answer, named
from engine.training.schedule import order

_Rated = tuple[Rendered, Rendered, bool]
"""An answer, the same prompt with the answer to another, and whether the answer was found good."""


class KTO(Asking):
    """One recipe's answers, each found good or bad."""

    watched = "held_out_preference_loss"

    def __init__(self, recipe: Recipe, data: DataSet, renderer: Renderer, context: int):
        limit = min(recipe.training.max_length or context, context)
        self._spec = recipe.kto
        self.notes: list[str] = list(data.notes)
        train, origins = self._rated(data.train, renderer, limit, "training")
        # One list, held-out answers last: an answer is known by its place in it.
        self._rows = train + self._rated(data.held_out, renderer, limit, "held-out")[0]
        self._trained = len(train)
        self.order = order(recipe, origins, [len(own.tokens) for own, _, _ in train])
        self.rows = self.order.rows
        if not self.rows:
            raise DataError("no answer that was found good or bad fits", "Raise max_length, or shorten the examples.", where=data.name)
        if len({good for _, _, good in train}) == 1:
            kind = "good" if train[0][2] else "bad"
            self.notes.append(f"all answers were found {kind}: with both kinds it learns more surely what is meant")

    def attach(self, desk: Desk, step: int) -> None:
        super().attach(desk, step)
        used = {row for at in range(desk.total) for row in self.order.of_step(at)} | set(self._held_out)
        sides = {f"{row}/{which}": self._rows[row][which] for row in sorted(used) for which in (0, 1)}
        self._reference = Reference(desk, sides, fresh=step == 0)

    def submit(self, step: int, rate: float) -> Ticket:
        rows = self.order.of_step(step)
        answers, baseline = self._compared(self._of_step(step, rows), rows)
        found = [self._loss(row, side, baseline) for row, side in zip(rows, answers, strict=True)]
        datums = [weighed(self._rows[row][0], -slope / len(rows)) for row, (_, slope) in zip(rows, found, strict=True)]
        gradients, update = self._desk.forward_backward(datums, "cross_entropy"), self._desk.optim_step(rate)
        self._ask_ahead(step)
        sides = [self._rows[row][0] for row in rows]
        counts = {"tokens": sum(len(side.tokens) for side in sides), "targets": sum(side.completion_tokens for side in sides)}
        return Ticket([gradients], [update], counts, self._numbers(rows, answers, found, baseline, ""))

    def measure(self) -> dict[str, float]:
        rows = list(self._held_out)
        if not rows:
            return {}
        answers, baseline = self._compared(self._forward(rows), rows)
        found = [self._loss(row, side, baseline) for row, side in zip(rows, answers, strict=True)]
        return self._numbers(rows, answers, found, baseline, "held_out_")

    @property
    def _held_out(self) -> range:
        return range(self._trained, len(self._rows))

    def _forward(self, rows: Sequence[int]) -> Any:
        return self._desk.forward([weighed(self._rows[row][which], 1.0) for row in rows for which in (0, 1)])

    def _compared(self, asked: Any, rows: Sequence[int]) -> tuple[list[Side], float]:
        """-> each answer now and before, and the baseline (nats)."""
        sides = [self._rows[row][which] for row in rows for which in (0, 1)]
        now = answer_sums(logprobs_of(self._desk.wait(asked, "asking for log-probabilities")), sides)
        before = [self._reference.value(f"{row}/{which}") for row in rows for which in (0, 1)]
        known = [Side(*values, max(1, side.completion_tokens)) for *values, side in zip(now, before, sides, strict=True)]
        drift = sum(side.gain for side in known[1::2]) / len(rows)
        return known[::2], max(0.0, drift)

    def _loss(self, row: int, side: Side, baseline: float) -> tuple[float, float]:
        good = self._rows[row][2]
        weight = self._spec.good_weight if good else self._spec.bad_weight
        return single(side, good, self._spec.beta, baseline, weight)

    def _numbers(
        self, rows: Sequence[int], answers: Sequence[Side], found: Sequence[tuple[float, float]], baseline: float, prefix: str
    ) -> dict[str, float]:
        beta, verdicts = self._spec.beta, [self._rows[row][2] for row in rows]
        good = [beta * side.gain for side, verdict in zip(answers, verdicts, strict=True) if verdict]
        bad = [beta * side.gain for side, verdict in zip(answers, verdicts, strict=True) if not verdict]
        right = sum(gain > beta * baseline for gain in good) + sum(gain < beta * baseline for gain in bad)
        values = {
            "preference_loss": sum(loss for loss, _ in found) / len(rows),
            "preference_accuracy": right / len(rows),
            "kl_baseline": baseline,
        }
        if good:
            values["chosen_reward"] = sum(good) / len(good)
            likely = [side.now / side.tokens for side, verdict in zip(answers, verdicts, strict=True) if verdict]
            values["chosen_logprob"] = sum(likely) / len(likely)
        if bad:
            values["rejected_reward"] = sum(bad) / len(bad)
        if good and bad:
            values["reward_margin"] = values["chosen_reward"] - values["rejected_reward"]
        return {prefix + name: value for name, value in values.items()}

    def _rated(self, examples: Sequence[Example], renderer: Renderer, limit: int, what: str) -> tuple[list[_Rated], list[Example]]:
        """The rated answers as tokens, and each one's example. Notes what was lost."""
        known = [example for example in examples if example.good is not None]
        found, origins, cut, lost = [], [], [], []
        for place, example in enumerate(known):
            other = {"role": "assistant", "content": _elsewhere(known, place)}
            own = last_answer(example.messages, renderer, limit)
            if not own.completion_tokens:
                lost.append(example)
                continue
            if own.truncated:
                cut.append(example)
            found.append((own, last_answer([*example.prompt, other], renderer, limit), bool(example.good)))
            origins.append(example)
        if cut:
            self.notes.append(f"{len(cut):,} {what} answers were cut to {limit:,} tokens: {named(cut)}")
        if lost:
            about = f"their prompts alone are longer than {limit:,} tokens: {named(lost)}"
            self.notes.append(f"{len(lost):,} {what} answers were left out: {about}")
        return found, origins


def _elsewhere(known: Sequence[Example], place: int) -> str:
    """The answer of the next row that asks something else: what was said to the same prompt is no mismatch."""
    following = (known[(place + ahead) % len(known)] for ahead in range(1, len(known)))
    return next((row.answer for row in following if row.prompt != known[place].prompt), known[(place + 1) % len(known)].answer)
