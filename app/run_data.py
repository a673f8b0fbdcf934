"""What a page has fetched of one run, so that each look reads only what is new. Knows the Engine, not the screen."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.evaluation.curves import Curve

if TYPE_CHECKING:
    from engine import Engine
    from engine.store import Job, Sample


@dataclass
class RunData:
    """The curves and samples up to the last step seen."""

    curves: dict[str, Curve] = field(default_factory=dict)
    samples: dict[tuple[int, int], Sample] = field(default_factory=dict)
    stretch: tuple[int, bool] | None = None

    def update(self, engine: Engine, job: Job) -> None:
        """Reads what lies after the last step seen.

        A new attempt may undo steps, and says where it goes on from only once it has left the queue and loaded its checkpoint:
        at each of these turns everything is read again.
        """
        stretch = job.attempt, job.state in ("queued", "preparing")
        if stretch != self.stretch:
            self.curves, self.samples, self.stretch = {}, {}, stretch
        seen = {name: curve[-1][0] for name, curve in self.curves.items() if curve}
        for name, points in engine.runs.news(job.id, seen).items():
            self.curves.setdefault(name, Curve()).extend(points)
        # The answers of one step may arrive in two batches, so its step is asked for once more.
        last = max((step for step, _ in self.samples), default=0)
        for sample in engine.samples(job.id, last - 1):
            self.samples[sample.step, sample.position] = sample

    def curve(self, name: str) -> Curve:
        """Empty for what wasn't measured."""
        return self.curves.get(name) or Curve()

    def last(self, name: str) -> float | None:
        """The newest value."""
        curve = self.curve(name)
        return curve[-1][1] if curve else None

    def sampled_steps(self) -> list[int]:
        """The steps at which it answered the fixed prompts."""
        return sorted({step for step, _ in self.samples})

    def said_at(self, step: int) -> list[Sample]:
        """Its answers to the fixed prompts after that step."""
        return [sample for (at, _), sample in sorted(self.samples.items()) if at == step]


def metrics_csv(engine: Engine, job_id: str) -> str:
    """One row a step, one column a metric; empty where a metric wasn't measured at that step."""
    names = engine.metric_names(job_id)
    rows: dict[int, dict[str, float]] = {}
    for name in names:
        for step, value in engine.curve(job_id, name):
            rows.setdefault(step, {})[name] = value
    text = io.StringIO()
    writer = csv.DictWriter(text, ["step", *names], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"step": step, **rows[step]} for step in sorted(rows))
    return text.getvalue()
