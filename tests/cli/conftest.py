"""The command line on a data directory with one small run in it, and in this process where that is enough."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import cli as command_line
from tests.running import Done, cli, end_processes, shouting

# Small, but with everything that there is to show.
QUICK = ["--steps", "4", "--batch-size", "8", "--rank", "8", "--lr", "0.008"]
QUICK += ["--set", "evaluation.skills_max=6", "--set", "evaluation.samples_every=2", "--set", "evaluation.max_new_tokens=12"]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of all these tests."""
    folder = tmp_path_factory.mktemp("cli")
    shouting(folder / "loud.jsonl")
    yield folder / "home"
    end_processes(folder / "home")


@pytest.fixture(scope="session")
def trained(place: Path) -> Done:
    """One run, made by the command in a process of its own."""
    done = cli(place, "train", "loud.jsonl", *QUICK, "--json")
    assert done.code == 0, done.err
    return done


@pytest.fixture
def call(place: Path, thinker_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """A command in this process, on the shared data directory; `fresh=True` on the test's own."""

    def run(*arguments: str | Path, stdin: str = "", fresh: bool = False) -> Done:
        monkeypatch.setenv("THINKER_HOME", str(thinker_home if fresh else place))
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capfd.readouterr()
        code = command_line.main([str(argument) for argument in arguments])
        return Done(code, *capfd.readouterr())

    return run
