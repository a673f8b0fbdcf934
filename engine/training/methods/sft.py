"""Supervised fine-tuning: make the example answers likely.

    L = -(1 / N) sum over the batch's N answer tokens of log p(token | everything before it)

Prompt tokens weigh 0, answer tokens 1 / N, so `loss:sum` of the reply is the mean loss per answer token (nats).
"""

from __future__ import annotations

from typing import Any

from engine.data.examples import DataSet
from engine.errors import DataError
from engine.recipe import Recipe
from engine.rendering import Renderer
from engine.training.methods import Base, Ticket
from engine.training.rows import counts, datums, rendered
from engine.training.schedule import order


class SFT(Base):
    """One recipe's batches."""

    loss_fn = "cross_entropy"
    watched = "held_out_loss"

    def __init__(self, recipe: Recipe, data: DataSet, renderer: Renderer, context: int):
        limit = min(recipe.training.max_length or context, context)
        self.notes: list[str] = list(data.notes)
        self._train, origins = rendered(data.train, renderer, limit, "training", self.notes)
        self._held_out, _ = rendered(data.held_out, renderer, limit, "held-out", self.notes)
        self.order = order(recipe, origins, [len(row.tokens) for row in self._train])
        self.rows = self.order.rows
        if not self.rows:
            raise DataError(
                f"no training example has an answer within {limit:,} tokens", "Raise max_length, or shorten the examples.", where=data.name
            )

    def batch(self, step: int) -> tuple[list[Any], dict[str, float]]:
        """-> the step's datums, and {"tokens": real tokens, "targets": tokens learned from}."""
        rows = [self._train[i] for i in self.order.of_step(step)]
        return datums(rows), counts(rows)

    def submit(self, step: int, rate: float) -> Ticket:
        batch, counted = self.batch(step)
        return Ticket([self._desk.forward_backward(batch, self.loss_fn)], [self._desk.optim_step(rate)], counted)

    def metrics(self, replies: list[Any], ticket: Ticket) -> dict[str, float]:
        return {"train_loss": replies[0].metrics["loss:sum"]}

    def measure(self) -> dict[str, float]:
        rows = self.held_out()
        if not rows:
            return {}
        reply = self._desk.wait(self._desk.forward(rows, self.loss_fn), "measuring the held-out loss")
        return {"held_out_loss": reply.metrics["loss:sum"]}

    def held_out(self) -> list[Any]:
        """Datums to measure the held-out loss on; empty if there are none."""
        return datums(self._held_out) if self._held_out else []

    def held_out_tokens(self) -> int:
        """Answer tokens in the held-out rows."""
        return int(counts(self._held_out)["targets"])
