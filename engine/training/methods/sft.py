"""Supervised fine-tuning: make the example answers likely.

    L = -(1 / N) sum over the batch's N answer tokens of log p(token | everything before it)

Prompt tokens weigh 0, answer tokens 1 / N, so `loss:sum` of the reply is the mean loss per answer token (nats).
"""

from __future__ import annotations

from typing import Any

from engine.data.examples import DataSet, Example
from engine.errors import DataError
from engine.recipe import Recipe
from engine.rendering import Rendered, Renderer
from engine.training.schedule import order


class SFT:
    """One recipe's batches."""

    loss_fn = "cross_entropy"

    def __init__(self, recipe: Recipe, data: DataSet, renderer: Renderer, context: int):
        limit = min(recipe.training.max_length or context, context)
        self.notes: list[str] = list(data.notes)
        self._train, origins = self._render(data.train, renderer, limit, "training")
        self._held_out, _ = self._render(data.held_out, renderer, limit, "held-out")
        self._order = order(recipe, origins, [len(row.tokens) for row in self._train])
        self.rows = self._order.rows
        if not self.rows:
            raise DataError(
                f"no training example has an answer within {limit:,} tokens", "Raise max_length, or shorten the examples.", where=data.name
            )

    def batch(self, step: int) -> tuple[list[Any], dict[str, float]]:
        rows = [self._train[i] for i in self._order.of_step(step)]
        return _datums(rows), _counts(rows)

    def metrics(self, reply: Any, counts: dict[str, float]) -> dict[str, float]:
        return {"train_loss": reply.metrics["loss:sum"]}

    def held_out(self) -> list[Any]:
        return _datums(self._held_out) if self._held_out else []

    def held_out_metrics(self, reply: Any) -> dict[str, float]:
        return {"held_out_loss": reply.metrics["loss:sum"]}

    def held_out_tokens(self) -> int:
        """Answer tokens in the held-out rows."""
        return int(_counts(self._held_out)["targets"])

    def _render(self, examples: list[Example], renderer: Renderer, limit: int, what: str) -> tuple[list[Rendered], list[Example]]:
        """Token sequences, at most limit + 1 tokens (inputs and targets are shifted by one), and the example that each is of. Notes what
        was cut or lost."""
        rendered = [(row, example) for example in examples for row in renderer.examples(example.messages, limit + 1)]
        kept = [(row, example) for row, example in rendered if row.completion_tokens]
        cut = [row for row, _ in kept if row.truncated]
        if cut:
            tokens = sum(row.truncated for row in cut)
            self.notes.append(f"{len(cut):,} {what} examples were cut to {limit:,} tokens ({tokens:,} tokens lost)")
        if len(kept) < len(rendered):
            lost = len(rendered) - len(kept)
            self.notes.append(f"{lost:,} {what} examples were left out: their prompts alone are longer than {limit:,} tokens")
        return [row for row, _ in kept], [example for _, example in kept]


def _datums(rows: list[Rendered]) -> list[Any]:
    """Inputs are the tokens but the last, targets the tokens but the first."""
    from tinker import types

    share = 1.0 / _counts(rows)["targets"]
    datums = []
    for row in rows:
        n = len(row.tokens) - 1
        inputs = {
            "target_tokens": types.TensorData(data=row.tokens[1:], dtype="int64", shape=[n]),
            "weights": types.TensorData(data=[weight * share for weight in row.weights[1:]], dtype="float32", shape=[n]),
        }
        datums.append(types.Datum(model_input=types.ModelInput.from_ints(row.tokens[:-1]), loss_fn_inputs=inputs))
    return datums


def _counts(rows: list[Rendered]) -> dict[str, float]:
    targets = sum(weight > 0 for row in rows for weight in row.weights[1:])
    return {"tokens": float(sum(len(row.tokens) for row in rows)), "targets": float(targets)}
