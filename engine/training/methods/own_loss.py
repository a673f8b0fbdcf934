"""Your own loss: a Python function of one example's log-probabilities, run shut off from everything.

    def loss(logprobs, weights, row):
        return -sum(w * lp for lp, w in zip(logprobs, weights))      # what supervised fine-tuning minimises

`logprobs` holds the log-probability of each token given those before it, `weights` 1 for a token of an answer and 0 for any other, `row`
what else is known: prompt, answer, rejected, good, columns, tokens. What it gives back is differentiated (slopes.py), and the batch's
mean is minimised, with the derivatives sent as token weights, as preference methods do. Before a run it is tried on two rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.data.examples import DataSet, Example
from engine.errors import DataError, RecipeError
from engine.recipe import Recipe
from engine.rendering import Rendered, Renderer
from engine.sandbox import Limits, Sandbox
from engine.training.desk import datum, logprobs_of
from engine.training.methods import Asking, Ticket
from engine.training.rows import counts, rendered
from engine.training.schedule import order

FUNCTION = "loss"
SECONDS = 20.0  # for one batch's rows each
_CALL = "_of_thinker"
_STEP, _CLOSE = 1e-4, 1e-2  # of the trial's differences
_WHERE = "recipe own_loss.code"


class OwnLoss(Asking):
    """One recipe's examples under the person's own function."""

    watched = "held_out_own_loss"

    def __init__(self, recipe: Recipe, data: DataSet, renderer: Renderer, context: int):
        code = recipe.own_loss.code
        if not code.strip():
            raise RecipeError("there is no function yet", "Write def loss(logprobs, weights, row) that gives back a number.", where=_WHERE)
        try:
            compile(code, "<your function>", "exec")
        except (SyntaxError, ValueError) as error:
            line = f"line {error.lineno}: " if isinstance(error, SyntaxError) and error.lineno else ""
            said = error.msg if isinstance(error, SyntaxError) else str(error)
            raise RecipeError(f"your function can't be read: {line}{said}", "Correct that line.", where=_WHERE) from error
        limit = min(recipe.training.max_length or context, context)
        self.notes: list[str] = list(data.notes)
        train, self._examples = rendered(data.train, renderer, limit, "training", self.notes)
        held_out, of_held_out = rendered(data.held_out, renderer, limit, "held-out", self.notes)
        self._rows, self._trained = train + held_out, len(train)
        self._examples = self._examples + of_held_out
        if not train:
            raise DataError(f"no example has an answer within {limit:,} tokens", "Raise max_length, or shorten them.", where=data.name)
        self.order = order(recipe, self._examples[: self._trained], [len(row.tokens) for row in train])
        self.rows = self.order.rows
        slopes = Path(__file__).with_name("slopes.py").read_text(encoding="utf-8")
        call = f"def {_CALL}(logprobs, weights, row):\n    return _with_slopes({FUNCTION}, logprobs, weights, row)\n"
        # What is ours comes last, so that an error names the person's own lines.
        self._code = f"{code}\n\n{slopes}\n\n{call}"
        self._sandbox = Sandbox(limits=Limits(seconds=SECONDS))
        try:
            self._try_out()
        finally:
            # It starts anew with the first step: until then nobody may come to close it.
            self._sandbox.close()

    def close(self) -> None:
        self._sandbox.close()

    def submit(self, step: int, rate: float) -> Ticket:
        rows = self.order.of_step(step)
        found = self._losses(rows, logprobs_of(self._desk.wait(self._of_step(step, rows), "asking for log-probabilities")))
        datums = []
        for row, (_, slopes) in zip(rows, found, strict=True):
            datums.append(datum(self._rows[row].tokens, weights=[0.0, *(-slope / len(rows) for slope in slopes)]))
        gradients, update = self._desk.forward_backward(datums, "cross_entropy"), self._desk.optim_step(rate)
        self._ask_ahead(step)
        known = {"own_loss": sum(loss for loss, _ in found) / len(rows)}
        return Ticket([gradients], [update], counts([self._rows[row] for row in rows]), known)

    def measure(self) -> dict[str, float]:
        rows = list(range(self._trained, len(self._rows)))
        if not rows:
            return {}
        reply = self._desk.wait(self._forward(rows), "measuring the held-out loss")
        found = self._losses(rows, logprobs_of(reply))
        return {"held_out_own_loss": sum(loss for loss, _ in found) / len(rows)}

    def _forward(self, rows: Sequence[int]) -> Any:
        return self._desk.forward([datum(self._rows[row].tokens, weights=self._rows[row].weights) for row in rows])

    def _losses(self, rows: Sequence[int], logprobs: Sequence[Sequence[float]]) -> list[tuple[float, list[float]]]:
        """The function's loss of each row and its derivative by each log-probability. Raises RecipeError that names line and row."""
        calls = [[list(values), self._rows[row].weights[1:], self._told(row)] for row, values in zip(rows, logprobs, strict=True)]
        found = []
        for row, outcome in zip(rows, self._sandbox.call(self._code, _CALL, calls), strict=True):
            number = self._examples[row].row
            if not outcome.fine:
                raise RecipeError(f"your function failed on row {number:,}: {outcome.problem}", "Correct it.", where=_WHERE)
            loss, slopes = outcome.value
            if loss is None:
                advice = "Give back one number, made of logprobs."
                raise RecipeError(f"your function gave back no number on row {number:,} (is there a return?)", advice, where=_WHERE)
            if not all(math.isfinite(value) for value in (loss, *slopes)):
                advice = "Keep logarithms and divisions away from 0."
                raise RecipeError(f"your function gave back a number that isn't finite on row {number:,}", advice, where=_WHERE)
            found.append((float(loss), list(slopes)))
        return found

    def _told(self, row: int) -> dict[str, Any]:
        example: Example = self._examples[row]
        known: Rendered = self._rows[row]
        told = {"prompt": example.prompt, "answer": example.answer, "rejected": example.rejected, "good": example.good}
        return json.loads(json.dumps({**told, "columns": example.columns, "tokens": known.tokens[1:]}, default=str))

    def _try_out(self) -> None:
        """On two rows, at made-up log-probabilities: a number, and one whose slopes are what small changes show."""
        for row in range(min(2, len(self._rows))):
            n = len(self._rows[row].tokens) - 1
            values = [-1.0 - 0.01 * (place % 7) for place in range(n)]
            ((loss, slopes),) = self._losses([row], [values])
            if not any(slopes):
                raise RecipeError(
                    "what your function gives back doesn't depend on the log-probabilities, so nothing could be learned",
                    "Make it of logprobs, such as -sum(lp * w for lp, w in zip(logprobs, weights)).",
                    where=_WHERE,
                )
            place = max(range(n), key=lambda place: abs(slopes[place]))
            more, less = (self._shifted(row, values, place, step) for step in (_STEP, -_STEP))
            seen = (more - less) / (2 * _STEP)
            if abs(seen - slopes[place]) > _CLOSE * max(1.0, abs(seen), abs(slopes[place])):
                raise RecipeError(
                    f"your function jumps: by its slope it should change by {slopes[place]:.3g}, and it changes by {seen:.3g}",
                    "Leave out rounding and steps, or place them where they don't matter.",
                    where=_WHERE,
                )

    def _shifted(self, row: int, values: list[float], place: int, step: float) -> float:
        return self._losses([row], [[value + step * (at == place) for at, value in enumerate(values)]])[0][0]
