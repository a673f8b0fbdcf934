"""Commands about what is elsewhere: servers by URL, and the checkpoints that lie at an endpoint."""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from engine.amounts import duration, size
from engine.cli.jobs import JsonFlag
from engine.cli.screen import console, plain, print_json
from engine.engine import Engine
from engine.errors import StateError
from engine.stored import KINDS

servers = typer.Typer(no_args_is_help=True, help="Servers that speak Tinker's API, named by URL.")
stored = typer.Typer(no_args_is_help=True, help="Checkpoints that lie at an endpoint elsewhere.")
Server = Annotated[str, typer.Argument(help="The server's name.")]
At = Annotated[str, typer.Option("--at", help="tinker, or the name of a server.")]
Path_ = Annotated[str, typer.Argument(metavar="PATH", help="tinker://RUN/KIND/NAME, as `stored list` shows it.")]
Yes = Annotated[bool, typer.Option("--yes", help="Don't ask.")]


@servers.command("list")
def list_servers(as_json: JsonFlag = False) -> None:
    """Those that were named, and what each can do."""
    out = console(as_json)
    with Engine() as engine:
        known = engine.remotes.all()
    for server in known:
        _show(out, server)
    if not known:
        out.print("none yet: python thinker.py servers add NAME URL")
    if as_json:
        print_json({"servers": [asdict(server) for server in known]})


@servers.command("add")
def add_server(
    name: Server,
    url: Annotated[str, typer.Argument(help="What comes before /api/v1.")],
    no_key: Annotated[bool, typer.Option("--no-key", help="It asks for none.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Name a server and look at what it can do. Its key is asked for, or read from THINKER_KEY_NAME of the environment."""
    out = console(as_json)
    with Engine() as engine:
        made = engine.remotes.add(name, url, needs_key=not no_key)
        if made.key is False:
            # Not as an argument: those are seen by all who list processes.
            given = getpass.getpass("Key (it isn't shown): ") if sys.stdin.isatty() else sys.stdin.readline()
            if given.strip():
                engine.keys.give(made.name, given, store=True)
        found = engine.remotes.probe(made.name)
    _show(out, found)
    if as_json:
        print_json(asdict(found))


@servers.command("try")
def try_server(name: Server, model: Annotated[str, typer.Option(help="The model to try it with.")] = "", as_json: JsonFlag = False) -> None:
    """Try out losses and full fine-tuning there, for a few dozen tokens."""
    out = console(as_json)
    with Engine() as engine:
        found = engine.remotes.try_out(name, model)
    _show(out, found)
    if as_json:
        print_json(asdict(found))


@servers.command("forget")
def forget_server(name: Server, as_json: JsonFlag = False) -> None:
    """Forget a server and its key."""
    with Engine() as engine:
        engine.remotes.forget(name)
    console(as_json).print(f"{name} is forgotten", markup=False)
    if as_json:
        print_json({"forgotten": name})


@stored.command("list")
def list_stored(at: At = "tinker", as_json: JsonFlag = False) -> None:
    """What lies there, newest first."""
    out = console(as_json)
    with Engine() as engine:
        kept = engine.stored.listed(at)
    table = Table(box=None, pad_edge=False)
    for title in ("label", "step", "kind", "size", "kept", "path"):
        table.add_column(title)
    for one in kept:
        left = "for good" if one.expires_at is None else f"{duration(max(0.0, one.expires_at - time.time()))} more"
        weight = "-" if one.bytes is None else size(one.bytes)
        public = " (public)" if one.public else ""
        table.add_row(plain(one.label), "-" if one.step is None else f"{one.step:,}", f"{KINDS[one.kind]}{public}", weight, left, one.path)
    out.print(table if kept else f"nothing is stored at {at}")
    if as_json:
        print_json({"stored": [asdict(one) for one in kept]})


@stored.command("label")
def label(
    path: Path_,
    text: Annotated[str, typer.Argument(help="What to call it here; empty forgets it.")] = "",
    at: At = "tinker",
    as_json: JsonFlag = False,
) -> None:
    """Call it something of your own; the server isn't told."""
    told = f"{path} is called {text}" if text else f"{path} has no label"
    _done(lambda engine: engine.stored.label(at, path, text), told, as_json, {"path": path, "label": text})


@stored.command("publish")
def publish(path: Path_, at: At = "tinker", yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Let anybody who knows its path use it."""
    _sure(f"Anybody who knows {path} can use it then. Publish it?", yes)
    _done(lambda engine: engine.stored.publish(at, path), f"{path} is public", as_json, {"path": path, "public": True})


@stored.command("unpublish")
def unpublish(path: Path_, at: At = "tinker", as_json: JsonFlag = False) -> None:
    """Take that back."""
    told = f"{path} is yours alone again"
    _done(lambda engine: engine.stored.publish(at, path, False), told, as_json, {"path": path, "public": False})


@stored.command("expire")
def expire(
    path: Path_,
    hours: Annotated[float, typer.Option(help="Have it deleted after so many hours; 0 keeps it for good.")],
    at: At = "tinker",
    as_json: JsonFlag = False,
) -> None:
    """Say how long it is kept there."""
    seconds = round(hours * 3600) or None
    told = f"{path} is kept {'for good' if seconds is None else f'for {hours:g} hours'}"
    _done(lambda engine: engine.stored.expire(at, path, seconds), told, as_json, {"path": path, "seconds": seconds})


@stored.command("delete")
def delete(path: Path_, at: At = "tinker", yes: Yes = False, as_json: JsonFlag = False) -> None:
    """Delete it there, for good."""
    _sure(f"Delete {path} at {at} for good?", yes)
    _done(lambda engine: engine.stored.delete(at, path), f"{path} is deleted", as_json, {"deleted": path})


@stored.command("download")
def download(
    path: Path_,
    to: Annotated[Path | None, typer.Option(help="A folder, new or empty.")] = None,
    at: At = "tinker",
    as_json: JsonFlag = False,
) -> None:
    """Fetch the adapter as a folder that PEFT loads."""
    out = console(as_json)
    with Engine() as engine:
        folder = engine.stored.download(at, path, to, lambda text: out.print(text, markup=False, style="dim"))
    out.print(f"it is in {folder}", markup=False)
    if as_json:
        print_json({"folder": str(folder)})


def _show(out: Any, server: Any) -> None:
    key = "" if server.key is None else ", key is there" if server.key else ", no key yet"
    out.print(f"{server.name}: {server.url}{key}", markup=False)
    if server.in_the_clear:
        out.print("  what is sent there, the key too, can be read on the way", style="yellow")
    if server.seen_at:
        out.print(f"  models to train: {', '.join(server.models) or 'none'}", markup=False)
    for ability in server.abilities:
        mark = "?" if ability.has is None else "yes" if ability.has else "no"
        out.print(f"  {ability.title}: {mark}; {ability.told}", markup=False)


def _sure(question: str, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise StateError("this can't be asked without a terminal", "Say --yes.")
    typer.confirm(question, abort=True)


def _done(action: Callable[[Engine], Any], told: str, as_json: bool, values: dict[str, Any]) -> None:
    with Engine() as engine:
        action(engine)
    console(as_json).print(told, markup=False)
    if as_json:
        print_json(values)
