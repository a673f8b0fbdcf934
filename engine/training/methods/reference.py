"""The reference's log-probabilities of given answers: asked for once, in bulk, and kept in the run's folder for later attempts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.rendering import Rendered
from engine.store.artefacts import read_json, write_json_atomic
from engine.training.desk import Desk, datum, logprobs_of

ROWS_AT_ONCE = 64


class Reference:
    """Sums over each answer's tokens (nats), by the answer's key."""

    def __init__(self, desk: Desk, rows: Mapping[str, Rendered], *, fresh: bool, name: str = "reference", who: str = "the reference"):
        """`fresh`: the desk's own model is still the reference, so that it can be asked. `name` is what the file is called."""
        file = desk.folder / f"{name}.{desk.number + 1}.json"
        known: dict[str, float] = read_json(file) or {} if file.exists() else {}
        missing = {key: row for key, row in rows.items() if key not in known}
        if missing:
            desk.run.stage(f"asking {who} about {len(missing):,} answers")
            known |= _asked(desk, missing, fresh)
            write_json_atomic(file, known)
        self._known = known

    def value(self, key: str) -> float:
        """The reference's log-probability of the answer."""
        return self._known[key]


def _asked(desk: Desk, rows: Mapping[str, Rendered], fresh: bool) -> dict[str, float]:
    # Of like length together: the endpoint may pad what comes in one request.
    keys = sorted(rows, key=lambda key: (len(rows[key].tokens), key))
    batches = [keys[first : first + ROWS_AT_ONCE] for first in range(0, len(keys), ROWS_AT_ONCE)]
    asked: list[Any] = []
    training = desk.training if fresh else desk.at_start()
    for batch in batches:
        datums = [datum(rows[key].tokens, weights=rows[key].weights) for key in batch]
        asked.append(desk.forward(datums, training=training))
    found = {}
    for batch, future in zip(batches, asked, strict=True):
        replies = logprobs_of(desk.wait(future, "asking the reference"))
        for key, values in zip(batch, replies, strict=True):
            weights = rows[key].weights[1:]
            found[key] = sum(value for value, weight in zip(values, weights, strict=True) if weight > 0)
    return found
