"""`thinker ...`: the command line. Interface only: every command makes one call on the Engine and shows what came back.

`jobs` holds train, watch and what else is about runs; `talk` chat and generate; `tools` data check, serve and doctor;
`screen` how things look in a terminal. Each command takes `--json`: its last line on stdout is then one JSON object, and
what is for people goes to stderr.
"""

from __future__ import annotations

import gc
import sys
from typing import Any


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. -> the exit code: 0, 1 for an EngineError, 2 for wrong usage, 130 for Ctrl-C."""
    # What is imported stays: nothing in it is garbage, and looking for some takes a fifth of the time.
    gc.disable()
    from engine.cli.app import run

    gc.freeze()
    gc.enable()
    return run(sys.argv[1:] if arguments is None else arguments)


def __getattr__(name: str) -> Any:
    if name == "app":
        from engine.cli.app import app

        return app
    raise AttributeError(f"module 'engine.cli' has no attribute {name!r}")
