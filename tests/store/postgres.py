"""A real PostgreSQL for the tests: a cluster of its own in a temporary folder, reached through a socket in it."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("initdb", "pg_ctl", "postgres")


def missing() -> str:
    """Why it can't be had here; empty if it can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"PostgreSQL's programs aren't installed: {', '.join(absent)}"
    if _is_root() and shutil.which("setpriv") is None:
        return "PostgreSQL refuses to run as root, and setpriv isn't installed"
    return ""


@contextmanager
def cluster() -> Iterator[str]:
    """The URL of an empty server, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="thinker-pg-"))
    data = folder / "data"
    if _is_root():
        shutil.chown(folder, "nobody")
    try:
        _run("initdb", "-D", str(data), "-U", "thinker", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")
        settings = f"-k {folder} -h '' -c fsync=off -c max_connections=60"
        _run("pg_ctl", "-D", str(data), "-w", "-t", "30", "-l", str(folder / "log"), "-o", settings, "start")
        try:
            yield f"postgresql://thinker@/postgres?host={folder}"
        finally:
            _run("pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(*command: str) -> None:
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups") if _is_root() else ()
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C", "USER": "nobody" if _is_root() else getpass.getuser()}
    # Output to files: the server would hold a pipe open for as long as it lives.
    with tempfile.TemporaryFile() as output:
        done = subprocess.run([*nobody, *command], stdout=output, stderr=output, cwd="/", env=env, timeout=60, check=False)
        if done.returncode:
            output.seek(0)
            raise RuntimeError(f"{command[0]} failed: {output.read().decode(errors='replace')}")


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
