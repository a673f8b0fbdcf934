"""Commands that see to it that nothing gets lost: skip, pin, tidy, diagnose."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from engine.amounts import size
from engine.cli.jobs import JobId, JsonFlag
from engine.cli.screen import console, print_json
from engine.diagnosis import AREAS
from engine.engine import Engine


def skip(job_id: JobId, as_json: JsonFlag = False) -> None:
    """Leave out what a run does just now (an evaluation, samples, the proof); it goes on with what comes after."""
    with Engine() as engine:
        job = engine.skip(job_id)
        console(as_json).print(f"{job.name} ({job.id}): skipping {job.skips}", markup=False)
        if as_json:
            print_json(job.to_dict())


def pin(
    job_id: JobId,
    step: Annotated[int, typer.Argument(help="The step at which it was saved; `show` lists them.")],
    off: Annotated[bool, typer.Option("--off", help="Don't keep it any more.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Keep a run's checkpoint for good, whatever its recipe says."""
    with Engine() as engine:
        job = engine.job(job_id)
        engine.keeping.pin(job.id, step, not off)
        console(as_json).print(f"step {step} of {job.name} " + ("may be deleted again" if off else "is kept for good"), markup=False)
        if as_json:
            print_json({"job_id": job.id, "step": step, "pinned": not off})


def tidy(
    job_id: JobId,
    samplers: Annotated[bool, typer.Option("--all", help="Also of what is there to use, such as for time travel.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Delete what a run at rest doesn't need to go on from: the best, the last, ends of stages and what is pinned stay."""
    with Engine() as engine:
        job = engine.job(job_id)
        pruned = engine.keeping.tidy(job.id, samplers=samplers)
        out = console(as_json)
        out.print(f"{pruned.count} checkpoints deleted, {size(pruned.bytes)}", markup=False)
        if pruned.trouble:
            out.print(f"not all could be: {pruned.trouble}", style="yellow", markup=False)
        if as_json:
            print_json({"job_id": job.id, **asdict(pruned)})


def diagnose(job_id: JobId, as_json: JsonFlag = False) -> int:
    """Why a run doesn't go on: its end, key, place, disk, memory, data, checkpoints and curves, and what to change."""
    out = console(as_json)
    with Engine() as engine:
        job = engine.job(job_id)
        found = engine.diagnosis.of(job.id)
    marks = {True: "ok", False: "NO", None: "--"}
    out.print(f"[bold]{AREAS['why']}[/bold] and what is in order", markup=True)
    for sign in found.signs:
        out.print(f"{marks[sign.ok]}  {AREAS[sign.area]}: {sign.says}", markup=False, style="red" if sign.ok is False else None)
        if sign.next_step:
            out.print(f"    {sign.next_step}", markup=False)
        for name, value in _flat(sign.changes):
            out.print(f"    for another try: --set {name}={value}", markup=False)
    if found.can_resume:
        begins = "from the beginning" if found.resumes_at is None else f"from step {found.resumes_at}"
        out.print(f"\ngo on {begins}: python thinker.py resume {job.id}", markup=False)
    if as_json:
        print_json(found.to_dict())
    return 1 if found.wrong else 0


def _flat(changes: dict, prefix: str = "") -> list[tuple[str, object]]:
    return [
        pair
        for name, value in changes.items()
        for pair in (_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)])
    ]
