"""Commands that explain: which methods there are, and what a method, a metric or a setting means. Reads engine.knowledge alone."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.table import Table

from engine import knowledge
from engine.cli.jobs import JsonFlag
from engine.cli.screen import console, print_json
from engine.errors import NotFound
from engine.knowledge import guide
from engine.recipe import METHODS, fields


def methods(as_json: JsonFlag = False) -> None:
    """Every way of training: what it is for and what data it needs."""
    out = console(as_json)
    table = Table(box=None, pad_edge=False)
    for title in ("method", "what it does", "also called", "data"):
        table.add_column(title, overflow="fold")
    for name in METHODS:
        known = knowledge.method(name)
        table.add_row(name, known["title"], known["term"], knowledge.shapes()[knowledge.shape(name)]["title"])
    out.print(table)
    out.print("\nmore of one: thinker explain METHOD; to use one: thinker train FILE --method METHOD")
    if as_json:
        print_json({"methods": {name: knowledge.method(name) for name in METHODS}})


def explain(
    name: Annotated[str, typer.Argument(help="A method (dpo), a metric (held_out_loss), a setting (training.warmup) or a demo.")],
    as_json: JsonFlag = False,
) -> None:
    """What a method, a metric, a setting or a demo is."""
    out = console(as_json)
    text, told = _found(name.strip())
    out.print(text, markup=False)
    if as_json:
        print_json(told)


def _found(name: str) -> tuple[str, dict[str, Any]]:
    if name in METHODS:
        return _method(name), {"kind": "method", "name": name, **knowledge.method(name)}
    if name in knowledge.metrics():
        return f"{guide.metric_title(name)}\n\n{guide.metric_text(name)}", {"kind": "metric", "name": name, **knowledge.metric(name)}
    settings = {field["name"]: field for field in fields()}
    if name in settings:
        return _setting(settings[name]), {**settings[name], "kind": "setting", "type": settings[name]["kind"]}
    demos = {**knowledge.demos(), **knowledge.method_demos()}
    if name in demos:
        lines = [demos[name]["title"], "", demos[name]["task"], demos[name]["learns"], "", f"To expect: {demos[name]['expect']}"]
        return "\n".join(line.strip() for line in lines), {"kind": "demo", "name": name, **demos[name]}
    alike = [known for known in (*METHODS, *knowledge.metrics(), *settings, *demos) if name.lower() in known.lower()]
    raise NotFound(
        f"nothing is called {name!r}",
        f"Perhaps: {', '.join(alike[:8])}." if alike else "Methods: thinker methods. Terms of the trade: thinker ask 'what is LoRA?'",
    )


def _method(name: str) -> str:
    known = knowledge.method(name)
    shape = knowledge.shapes()[knowledge.shape(name)]
    lines = [f"{known['title']}: {known['term']}", known["meaning"], "", "Use it when:", *_listed(known["use_when"]), "Rather not when:"]
    row = json.dumps(shape["row"], ensure_ascii=False)
    lines += [*_listed(known["not_when"]), f"It needs: {known['needs']}", f"A row: {row}", f"Flow: {' -> '.join(known['flow'])}"]
    if own := [field for field in fields() if name in field["methods"]]:
        lines += [
            "",
            "Its settings:",
            *(f"  {field['name']} ({field['default']}): {field['help']}" for field in own if field["kind"] != "list"),
        ]
    lines += ["", "What goes wrong:", *_listed(known["goes_wrong"])]
    lines += ["", f"To watch: {', '.join(known['watch'])}", f"Source: {known['source']}"]
    return "\n".join(lines)


def _setting(field: dict[str, Any]) -> str:
    lines = [f"{field['name']}: {field['help']}", f"Default: {'empty' if field['default'] in (None, '') else field['default']}"]
    if field["choices"]:
        lines.append(f"One of: {', '.join(map(str, field['choices']))}")
    if field["healthy"]:
        low, high = field["healthy"]
        lines.append(f"Usually {low:g} to {high:g} {field['unit']}".rstrip())
    if known := knowledge.effects().get(field["name"]):
        lines.append(f"Too high: {known['high']}. Too low: {known['low']}.")
    if field["methods"]:
        lines.append(f"Read by: {', '.join(field['methods'])}")
    return "\n".join(lines)


def _listed(lines: list[str]) -> list[str]:
    return [f"  - {line}" for line in lines]
