"""A rehearsal from beginning to end, and the process that does it: `python -m engine.rehearsing.host ID`, with keys on its standard input.

Looks first at what can be told without training; the small run comes only where nothing is wrong so far.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from importlib.util import find_spec
from typing import Any

from engine import keys, paths, platforms
from engine.errors import EngineError, NotFound
from engine.jobs import logs
from engine.planning import Planner
from engine.recipe import OF_STAGE, Recipe
from engine.rehearsing import asks, looks, scores
from engine.rehearsing.report import Found, Report, Stopped
from engine.store import Rehearsal, Store


def carry_out(store: Store, rehearsal: Rehearsal, told: Callable[[dict[str, Any]], None] = lambda values: None) -> str:
    """Does it in this process, telling how it stands after each look. -> the state it ended in."""
    process = {"pid": os.getpid(), "started_at": platforms.process_started_at(os.getpid())}
    gone = not store.tell_rehearsal(rehearsal.id, process=process)

    def tell(values: dict[str, Any]) -> None:
        nonlocal gone
        gone = gone or not store.tell_rehearsal(rehearsal.id, report=logs.masked(values, names=False))
        if gone:
            raise Stopped
        told(values)

    report = Report(tell)
    try:
        state = _whole(store, rehearsal.owner, rehearsal.recipe, report, rehearsal.id)
    except Stopped:
        state = "stopped"
    except Exception as error:
        logs.log("error", f"a rehearsal ended: {error}", rehearsal=rehearsal.id, kind=type(error).__name__)
        message = error.message if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
        with suppress(Stopped):
            report.note("end", "The rehearsal itself", Found(message, "failed", getattr(error, "next_step", "")))
        state = "failed"
    store.tell_rehearsal(rehearsal.id, state=state)
    return store.rehearsal(rehearsal.id, owner=None).state


def _whole(store: Store, owner: str, recipe: Recipe, report: Report, name: str) -> str:
    data = looks.Rows()
    looks.place(report, owner, recipe)
    speech = looks.model(report, store, owner, recipe)
    looks.previews(report, owner, recipe)
    answering = asks.ask(report, store, owner, recipe)
    for number, stage in enumerate(recipe.stages(), 1):
        found = looks.rows(report, stage.recipe, number, data)
        if found is not None and speech is not None:
            looks.rendering(report, stage, number, found, speech)
        if found is not None and stage.recipe.method == "rl" and answering:
            scores.own_answers(report, store, owner, stage.recipe, number, found)
    planner = Planner(store, owner)

    def plan() -> Any:
        made = planner.plan(recipe)
        return made.warnings, made.estimates

    if not any(check.name in ("data", "model") for check in report.failures):
        looks.known_trouble(report, plan)
    if find_spec("torch") is None:
        report.note("learning", "Learning, small", Found("this machine can't train: PyTorch isn't installed", "skipped"))
        return "failed" if report.failures else "checked"
    # A place that isn't ready, or data too large for the memory, keeps no small run on this machine from showing what else is wrong.
    if any(check.name not in ("place", "advice") for check in report.failures):
        report.note("learning", "Learning, small", Found("not tried: first correct what is above", "skipped"))
        return "failed"
    _try(store, owner, recipe, report, data, name)
    return "failed" if report.failures else "passed"


def _try(store: Store, owner: str, recipe: Recipe, report: Report, data: looks.Rows, name: str) -> None:
    """The small run, and what it left cleared away."""
    from engine import starts
    from engine.rehearsing import shrink, trial

    report.model = shrink.stand_in(recipe)
    start = False
    if recipe.start.checkpoint:
        found = starts.find(store, owner, recipe.start.checkpoint)
        start = found.endpoint == "local" and found.base_model == report.model
    teachers = {stage.recipe.distill.teacher for stage in recipe.stages() if stage.recipe.method == "distill"}
    here = all(not teacher or teacher.startswith(OF_STAGE) or asks.base_of(store, owner, teacher) == report.model for teacher in teachers)
    small = shrink.shrunk(recipe, report.model, start=start, teacher=here)
    folder = paths.folder("rehearsals", name)
    try:
        read = shrink.reader(data.load, report.model)
        trial.run(report, store, owner, small, read, folder, lambda: store.tell_rehearsal(name), report.model == recipe.base_model)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()


def main(arguments: list[str] | None = None) -> int:
    """The process's entry."""
    parser = argparse.ArgumentParser(prog="rehearsal")
    parser.add_argument("id")
    asked = parser.parse_args(arguments)
    for owner, name, value in json.loads(sys.stdin.read() or "[]"):
        keys.hold(owner, name, value)
    with closing(Store()) as store:
        try:
            rehearsal = store.rehearsal(asked.id, owner=None)
        except NotFound as error:
            print(error, file=sys.stderr)
            return 1
        return 0 if carry_out(store, rehearsal) in ("passed", "checked") else 1


if __name__ == "__main__":
    sys.exit(main())
