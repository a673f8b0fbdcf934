"""Work that needs the SDK, done in a process of its own, so that whoever asks for it loads nothing for it.

The process reads a question as JSON from its input and writes what it found as the last line of its output. Knows nothing of the work.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from engine import paths
from engine.errors import EndpointError


def ask(module: str, asked: dict[str, str], seconds: float, doing: str, *, advice: str, where: str) -> dict[str, Any]:
    """What the module found; `asked` holds the `key`, which no error shows. `doing` begins what is said of a failure, `advice` is what to
    do where the work itself failed. Raises EndpointError."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=seconds,
            env=paths.child_environment() | {"TINKER_TELEMETRY": "0"},
            cwd=paths.ROOT,
        )
        found = json.loads(done.stdout.strip().splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        raise EndpointError(f"{doing} took too long", "Try again when the server is less busy.", where=where) from error
    except (ValueError, IndexError, OSError) as error:
        told = f"{doing} failed before anything was asked"
        raise EndpointError(told, "Run the command doctor, and see to what is missing.", where=where) from error
    if found.get("error"):
        raise EndpointError(f"{doing} failed: {found['error'].replace(asked['key'], '***')[:300]}", advice, where=where)
    return found


def answer(work: Callable[[dict[str, str]], dict[str, Any]]) -> None:
    """The process's own part. Never returns."""
    asked = json.loads(sys.stdin.read())
    try:
        found = work(asked)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found), flush=True)
    # Threads of the SDK that still wait for an answer don't hold this up.
    os._exit(0)
