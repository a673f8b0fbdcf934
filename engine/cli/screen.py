"""How things look in a terminal: progress, tables, errors. Knows no Engine calls but those that watch a job."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from engine.amounts import duration, measure
from engine.engine import Engine, Result
from engine.errors import EngineError
from engine.evaluation import outcome
from engine.jobs import states
from engine.store import Job

POLL_SECONDS = 0.25
_SAID = {
    "exact_match": "right answers on {count} new prompts (exact match)",
    "token_f1": "words in common (token F1)",
    "perplexity": "surprise at the right answers (perplexity)",
    "reward": "mean score of its answers (reward)",
}


def console(to_stderr: bool) -> Console:
    """For people: stdout, or stderr when stdout is for a program."""
    return Console(stderr=to_stderr, highlight=False, soft_wrap=True)


def print_json(value: dict[str, Any]) -> None:
    """One line."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def print_error(error: EngineError) -> None:
    """What happened, where, what to do."""
    print(f"thinker: {error}", file=sys.stderr, flush=True)


def percent(share: float | None) -> str:
    """97.5 %, or a dash."""
    return "-" if share is None else f"{100 * share:.1f} %"


class Watch:
    """Shows a job's progress until told to stop: a live bar on a terminal, a line now and then elsewhere."""

    def __init__(self, engine: Engine, job_id: str, out: Console):
        self._engine, self._job_id, self._out = engine, job_id, out
        self._stage, self._seen_step, self._said_at = "", 0, 0.0
        self._samples_step = -1

    def follow(self, until: threading.Event | None = None) -> Job:
        """Returns when the job has come to rest, or `until` is set."""
        with self._bar() as show:
            while True:
                over = until is not None and until.is_set()
                job = self._engine.job(self._job_id)
                show(job)
                if over or (until is None and job.state not in states.ACTIVE and job.state != states.QUEUED):
                    return job
                time.sleep(POLL_SECONDS)

    @contextmanager
    def _bar(self) -> Iterator[Any]:
        if not self._out.is_terminal:
            yield self._lines
            return
        # The stages go by above the bar; in 80 columns there is room beside it for the numbers only.
        columns = [BarColumn(bar_width=12), TextColumn("{task.fields[words]}", markup=False)]
        with Progress(*columns, console=self._out, transient=True) as progress:
            task = progress.add_task("", total=None, words="")

            def show(job: Job) -> None:
                self._news(job)
                words = self._words(job) if job.state == states.TRAINING else states.LIGHTS[job.state].label
                progress.update(task, total=job.total_steps or None, completed=job.step, words=words)

            yield show

    def _lines(self, job: Job) -> None:
        self._news(job)
        now = time.monotonic()
        if job.step > self._seen_step and (now - self._said_at > 2 or job.step >= job.total_steps):
            self._said_at, self._seen_step = now, job.step
            self._out.print(self._words(job))

    def _news(self, job: Job) -> None:
        """New stages, and what the model says now."""
        if job.stage and job.stage != self._stage:
            self._stage = job.stage
            self._out.print(job.stage, style="dim", markup=False)
        fresh = [sample for sample in self._engine.samples(job.id) if sample.step > self._samples_step]
        if fresh:
            self._samples_step = max(sample.step for sample in fresh)
            sample = next(s for s in fresh if s.step == self._samples_step)
            mark = (
                "[green]right[/green]"
                if sample.correct
                else f"[yellow]expected {plain(sample.expected)}[/yellow]"
                if sample.expected
                else ""
            )
            self._out.print(f"  step {sample.step}: {plain(sample.prompt)} -> {plain(sample.answer)}  {mark}")

    def _words(self, job: Job) -> str:
        parts = [f"step {job.step}/{job.total_steps}"] if job.total_steps else []
        parts += main_figures(self._engine, job)
        pace = self._engine.pace(job)
        if pace.tokens_per_second is not None:
            parts.append(f"{pace.tokens_per_second:,.0f} tokens/s")
        if pace.seconds_left:
            parts.append(f"{duration(pace.seconds_left)} left")
        return "  ".join(parts)


def main_figures(engine: Engine, job: Job) -> list[str]:
    """The numbers that stand for a run of its method: ["loss 0.213", "pairs ranked rightly 98 %"]."""
    return [f"{one.short} {one.text}" for one in engine.runs.figures(job)]


def short_proof(result: dict[str, Any] | None) -> str:
    """What was proven in a cell of a table: "96.3 %" right answers, "score 0.88"."""
    found = outcome.headline(result)
    return "-" if found is None else found.now if found.name == "exact_match" else f"{found.called} {found.now}"


def _value(one: outcome.Measured, value: float) -> str:
    # Two columns of percentages are read down: each has its decimal.
    return percent(value) if one.name == "exact_match" else measure(value, one.unit)


def result_table(result: Result) -> Table:
    """The proof in a few lines."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    for title in ("", "before", "after"):
        table.add_column(title, justify="left" if not title else "right")
    held_out, skills = result.held_out, result.skills
    proof = {"held_out": held_out}
    for one in outcome.numbers(proof):
        title = _SAID.get(one.name, one.title.lower()).format(count=(held_out.get("after") or {}).get("count", ""))
        table.add_row(title, "-" if one.before is None else _value(one, one.before), _value(one, one.after))
    if skills.get("after") is not None:
        table.add_row("general skills it had before", percent(skills["before"]), percent(skills["after"]))
    return table


def plain(text: str) -> str:
    """Text of models and people, on one line and without markup."""
    flat = " ".join(text.split())
    return escape(flat if len(flat) <= 80 else flat[:77] + "...")
