"""Commands about the surroundings: data check, serve, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from engine import data, knowledge, models, paths
from engine.cli.jobs import JsonFlag
from engine.cli.screen import console, print_json
from engine.engine import Engine
from engine.recipe import FORMATS


def data_check(
    file: Annotated[Path, typer.Argument(help="JSONL, JSON, CSV or Parquet.")],
    model: Annotated[str, typer.Option(help="Count tokens as this model does.")] = "nano",
    format: Annotated[str, typer.Option(help=f"How rows are laid out: {', '.join(FORMATS)}.")] = "auto",
    method: Annotated[str, typer.Option(help="Whether this method can learn from it: sft, dpo, ...; without it, any.")] = "",
    renderer: Annotated[str, typer.Option(help="How a chat becomes tokens.")] = "auto",
    max_length: Annotated[int | None, typer.Option(help="Count what would be cut to this many tokens.")] = None,
    as_json: JsonFlag = False,
) -> int:
    """What a data file holds, and what is wrong with it, row by row."""
    out = console(as_json)
    with Engine() as engine:
        shape = knowledge.shape(method) if method else None
        report = engine.check_data(file, model, format=format, renderer=renderer, max_length=max_length, shape=shape)
    _print_report(out, report)
    if as_json:
        print_json(report)
    return 0 if not report["problems"] else 1


def serve(context: typer.Context) -> int:
    """Run the Tinker-compatible server for one base model: thinker serve --base-model nano --port 8765."""
    from engine.server.__main__ import main

    return main(server_arguments(list(context.args)))


def doctor(as_json: JsonFlag = False) -> int:
    """What this machine can do, and whether everything that is needed is in order."""
    from engine.health import checks

    out = console(as_json)
    found = checks()
    for check in found:
        mark = {True: "[green]ok[/green]  ", False: "[red]no[/red]  ", None: "[dim]--[/dim]  "}[check["ok"]]
        out.print(mark + f"{check['name']}: {check['says']}" + (f" {check['next_step']}" if check["next_step"] else ""))
    if as_json:
        print_json({"checks": found})
    return 0 if all(check["ok"] is not False for check in found) else 1


def server_arguments(given: list[str]) -> list[str]:
    """The server's own arguments: base model names resolved, and our usual places where none were given. Raises ModelError."""
    arguments = list(given)
    if "--help" in arguments or "-h" in arguments:
        return arguments
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag != "--base-model" or not (equals or place + 1 < len(arguments)):
            continue
        name = value if equals else arguments[place + 1]
        folder = str(models.resolve(name))
        arguments[place : place + (1 if equals else 2)] = ["--base-model", folder]
        if not any(other.startswith("--name") for other in given):
            arguments += ["--name", name]
        break
    defaults = {"--checkpoints": paths.folder("checkpoints"), "--key-file": paths.folder("servers") / "key"}
    for flag, default in defaults.items():
        if not any(other.partition("=")[0] == flag for other in given):
            arguments += [flag, str(default)]
    return arguments


def _shape(name: str) -> str:
    """What its rows are, and who learns from such."""
    able = [method for method in knowledge.methods() if name in data.SERVES[knowledge.shape(method)]]
    return f"{knowledge.shapes()[name]['title']}" + (f"; methods that learn from such: {', '.join(able)}" if able else "")


def _print_report(out: Any, report: dict[str, Any]) -> None:
    out.print(f"{report['file']}: {report['examples']:,} examples of {report['rows']:,} rows ({report['format']})", markup=False)
    out.print(f"  {_shape(report['shape'])}", markup=False)
    for note in report["notes"]:
        out.print(f"  {note}", markup=False)
    if tokens := report.get("tokens"):
        lengths = f"{tokens['total']:,} in all, {tokens['learned_from']:,} to learn from, {tokens['median']:,.0f} in the median example"
        out.print(f"  tokens ({tokens['renderer']}): {lengths}, {tokens['longest']:,} in the longest", markup=False)
        if tokens["truncated"]:
            rows = ", ".join(map(str, tokens["truncated_rows"]))
            more = ", ..." if tokens["truncated"] > len(tokens["truncated_rows"]) else ""
            out.print(f"  {tokens['truncated']:,} examples are cut to {tokens['max_length']:,} tokens: {rows}{more}", markup=False)
        if tokens["without_any_answer"]:
            out.print(f"  {tokens['without_any_answer']:,} of them keep nothing of some answer", markup=False)
    for problem in report["problems"][:20]:
        out.print(f"  {problem['place']}: {problem['message']}. {problem['fix']}", markup=False)
    if len(report["problems"]) > 20:
        out.print(f"  ... and {len(report['problems']) - 20:,} more")
