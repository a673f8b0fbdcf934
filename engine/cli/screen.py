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

from engine.amounts import duration
from engine.engine import Engine, Result
from engine.errors import EngineError
from engine.jobs import states
from engine.store import Job

POLL_SECONDS = 0.25


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
            mark = "[green]right[/green]" if sample.correct else f"[yellow]expected {plain(sample.expected or '')}[/yellow]"
            self._out.print(f"  step {sample.step}: {plain(sample.prompt)} -> {plain(sample.answer)}  {mark}")

    def _words(self, job: Job) -> str:
        values = self._engine.latest(job.id)
        parts = [f"step {job.step}/{job.total_steps}"] if job.total_steps else []
        if "train_loss" in values:
            parts.append(f"loss {values['train_loss']:.3f}")
        if "held_out_loss" in values:
            parts.append(f"held-out {values['held_out_loss']:.3f}")
        pace = self._engine.pace(job)
        if pace.tokens_per_second is not None:
            parts.append(f"{pace.tokens_per_second:,.0f} tokens/s")
        if pace.seconds_left:
            parts.append(f"{duration(pace.seconds_left)} left")
        return "  ".join(parts)


def result_table(result: Result) -> Table:
    """The proof in a few lines."""
    table = Table(box=None, pad_edge=False, show_edge=False)
    for title in ("", "before", "after"):
        table.add_column(title, justify="left" if not title else "right")
    held_out, skills = result.held_out, result.skills
    if held_out.get("after"):
        before, after = held_out["before"], held_out["after"]
        table.add_row(
            f"right answers on {after['count']} new prompts (exact match)", percent(before["exact_match"]), percent(after["exact_match"])
        )
        table.add_row("words in common (token F1)", f"{before['token_f1']:.3f}", f"{after['token_f1']:.3f}")
        if "perplexity" in after and "perplexity" in before:
            table.add_row("surprise at the right answers (perplexity)", f"{before['perplexity']:.2f}", f"{after['perplexity']:.3f}")
    if skills.get("after") is not None:
        table.add_row("general skills it had before", percent(skills["before"]), percent(skills["after"]))
    return table


def plain(text: str) -> str:
    """Text of models and people, on one line and without markup."""
    flat = " ".join(text.split())
    return escape(flat if len(flat) <= 80 else flat[:77] + "...")
