"""Programs written for the Tinker cloud, as its documentation has them, run on `thinker serve` with nothing changed but the address."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.running import command, environment

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parent / "examples"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What a user sets after `thinker serve`: two environment variables."""
    home = tmp_path_factory.mktemp("serve") / "home"
    serve = command("serve", "--base-model", "nano", "--port", "0")
    process = subprocess.Popen(serve, env=environment(home), stdout=subprocess.PIPE, text=True)
    try:
        url = json.loads(process.stdout.readline())["url"]
        key = (home / "servers" / "key").read_text(encoding="utf-8").strip()
        yield {"TINKER_BASE_URL": url, "TINKER_API_KEY": key}
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def run(example: str, address: dict[str, str], cwd: Path) -> dict[str, Any]:
    """The program's last line, from a folder where nothing of ours can be imported."""
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = [sys.executable, str(EXAMPLES / example), "nano"]
    done = subprocess.run(script, env={**plain, **address}, cwd=cwd, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_supervised_learning(address: dict[str, str], tmp_path: Path) -> None:
    told = run("sl_loop.py", address, tmp_path)
    assert told["losses"][0] > 1.0 and sum(told["losses"][-5:]) / 5 < 0.1, told["losses"]
    assert told["right"] >= 4, told["answers"]
    # A checkpoint is the weights themselves, whether a new client or the old one takes it up.
    assert told["resumed"] == pytest.approx(told["saved"], abs=1e-6) and told["loaded"] == pytest.approx(told["saved"], abs=1e-6)


def test_reinforcement_learning(address: dict[str, str], tmp_path: Path) -> None:
    told = run("rl_loop.py", address, tmp_path)
    first, last = sum(told["rewards"][:2]) / 2, sum(told["rewards"][-2:]) / 2
    assert first < 0.45 and last > 0.75, told["rewards"]
    assert told["new_topic"] > 0.7 and told["path"].startswith("tinker://"), told
