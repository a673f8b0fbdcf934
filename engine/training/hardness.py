"""How hard each row is for the model that is about to learn it: its surprise at the right answer, asked for once before the first update.

Knows the order of rows and the reference's bulk questions; no method from another.
"""

from __future__ import annotations

from engine.data.examples import Example
from engine.rendering import Rendered
from engine.training.desk import Desk
from engine.training.methods.reference import Reference
from engine.training.rows import counts
from engine.training.schedule import Order


def rank(desk: Desk, order: Order, limit: int, step: int) -> None:
    """Has the first time through go from what surprises the model least, per token (nats), to what does most. `step` is the next update."""
    asked: dict[str, Rendered] = {}
    examples = {row: order.examples[row] for row in order.first_rows()}
    parts: dict[int, list[str]] = {}
    for row, example in examples.items():
        if not example.answer or id(example) in parts:
            continue
        parts[id(example)] = []
        for number, part in enumerate(desk.renderer.examples(example.messages, limit + 1)):
            if part.completion_tokens:
                asked[f"{row}/{number}"] = part
                parts[id(example)].append(f"{row}/{number}")
    surprise = Reference(desk, asked, fresh=step == 0, name="hardness", who="the model")

    def hardness(example: Example) -> float | None:
        keys = parts.get(id(example))
        if not keys:
            return None
        return -sum(map(surprise.value, keys)) / max(1.0, counts([asked[key] for key in keys])["targets"])

    order.rank({row: hardness(example) for row, example in examples.items()})
