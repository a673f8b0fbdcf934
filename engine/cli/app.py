"""The one table of commands, and what happens to errors."""

from __future__ import annotations

import sys

import typer

from engine.cli import elsewhere, jobs, keeping, rehearse, talk, tools
from engine.cli.screen import print_error, print_json
from engine.errors import EngineError

app = typer.Typer(
    name="thinker",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune language models on your own machine. Begin with: thinker train --demo piglatin",
)
app.command("train")(jobs.train)
app.command("rehearse")(rehearse.rehearse)
app.command("profiles")(rehearse.list_profiles)
app.command("jobs")(jobs.list_jobs)
app.command("show")(jobs.show)
app.command("watch")(jobs.watch)
app.command("pause")(jobs.pause)
app.command("stop")(jobs.stop)
app.command("skip")(keeping.skip)
app.command("resume")(jobs.resume)
app.command("diagnose")(keeping.diagnose)
app.command("pin")(keeping.pin)
app.command("tidy")(keeping.tidy)
app.command("delete")(jobs.delete)
app.command("models")(talk.list_models)
app.command("chat")(talk.chat)
app.command("generate")(talk.generate)
app.command("ask")(talk.ask)
app.command("serve", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})(tools.serve)
app.command("doctor")(tools.doctor)
data = typer.Typer(no_args_is_help=True, help="Look at data files.")
data.command("check")(tools.data_check)
app.add_typer(data, name="data")
app.add_typer(elsewhere.servers, name="servers")
app.add_typer(elsewhere.stored, name="stored")


def run(arguments: list[str]) -> int:
    """-> the exit code."""
    try:
        result = app(args=arguments, prog_name="thinker", standalone_mode=False)
    except EngineError as error:
        print_error(error)
        if "--json" in arguments:
            print_json({"error": error.to_dict()})
        return 1
    except typer.Exit as exit_:
        return exit_.exit_code
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C", file=sys.stderr)
        return 130
    except (typer.Abort, EOFError):
        return 130
    except Exception as error:
        # Typer's own usage errors say what is wrong with the command line; anything else is a bug and shows itself.
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        error.show()
        if "--json" in arguments:
            print_json({"error": {"kind": "UsageError", "message": error.format_message(), "next_step": "See --help.", "where": ""}})
        return error.exit_code
    return result if isinstance(result, int) else 0
