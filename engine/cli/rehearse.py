"""Commands before a run: rehearse a recipe, list the profiles that it may name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from engine import knowledge
from engine.cli.jobs import METHOD_DEMOS, JsonFlag, changes_of, recipe_of
from engine.cli.screen import console, plain, print_json
from engine.engine import Engine
from engine.rehearsing.report import Check, checks

_MARKS = {"ok": ("✓", "green"), "care": ("!", "yellow"), "failed": ("✗", "red"), "skipped": ("-", "dim")}
_ENDS = {
    "passed": "rehearsed: nothing was found that stands in the way of this run",
    "checked": "in order as far as it could be looked at here; nothing was learned",
    "failed": "this run would fail, or not do what it should: correct what is marked ✗ first",
    "stopped": "stopped",
    "lost": "the rehearsal was cut off",
}


def rehearse(
    data: Annotated[Path | None, typer.Argument(help="A recipe (.yaml or .json), or your data (JSONL, JSON, CSV, Parquet).")] = None,
    demo: Annotated[str, typer.Option(help=f"A demo that ships with Thinker: {', '.join((*knowledge.demos(), *METHOD_DEMOS))}.")] = "",
    dataset: Annotated[str, typer.Option(help="A data set of your library, by its id.")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any recipe field: method=dpo. May be given more than once.")] = None,
    as_json: JsonFlag = False,
) -> int:
    """Try a run small before it costs hours or money: all its stages for a few updates, here, on a small model."""
    out = console(as_json)
    with Engine() as engine:
        recipe = recipe_of(engine, data, demo, dataset, None, changes_of({}, set_ or []))

        def told(check: Check) -> None:
            mark, color = _MARKS.get(check.state, ("·", "dim"))
            stage = f" (stage {check.stage})" if check.stage and len(recipe.stages()) > 1 else ""
            out.print(f"[{color}]{mark}[/{color}] [bold]{plain(check.title)}{stage}[/bold]  {escape(check.text)}")
            if check.state in ("failed", "care") and (check.advice or check.where):
                out.print(f"  {': '.join(filter(None, (check.where, check.advice)))}", style=color, markup=False)

        found = engine.rehearsals.run(recipe, told)
        out.print()
        for steps in found.report.get("steps", []):
            took = f", {steps['seconds']:g} s each on {steps['on']}" if "seconds" in steps else ""
            out.print(f"stage {steps['stage']}: {steps['steps']:,} updates of about {steps['tokens']:,} tokens{took}", markup=False)
        out.print(_ENDS[found.state], style="green" if found.state == "passed" else "yellow")
        if as_json:
            print_json({"state": found.state, "rehearsal": found.id, **found.report, "checks": [vars(one) for one in checks(found.report)]})
        return 0 if found.state in ("passed", "checked") else 1


def list_profiles(as_json: JsonFlag = False) -> None:
    """The profiles that a recipe may name: bundles of changes to the data, a system prompt and stop strings."""
    out = console(as_json)
    with Engine() as engine:
        table = Table(box=None, pad_edge=False)
        for title in ("profile", "what it does", "changes to the data"):
            table.add_column(title)
        profiles = engine.profiles.list()
        for profile in profiles:
            does = profile.meaning or (f"says: {profile.system_prompt}" if profile.system_prompt else "")
            table.add_row(plain(profile.name), plain(does), ", ".join(change.kind for change in profile.transforms))
        out.print(table)
        out.print('use one with: python thinker.py train my_data.jsonl --set profile="NAME"', style="dim", markup=False)
        if as_json:
            values = [
                {
                    "name": one.name,
                    "meaning": one.meaning,
                    "system_prompt": one.system_prompt,
                    "stop": list(one.stop),
                    "transforms": [change.model_dump(mode="json") for change in one.transforms],
                    "own": one.own,
                }
                for one in profiles
            ]
            print_json({"profiles": values})
