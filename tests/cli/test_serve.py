"""`serve`: the server on its own, by the same command line."""

from __future__ import annotations

import json
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.running import cli, command, environment


def test_help(tmp_path: Path):
    shown = cli(tmp_path / "home", "serve", "--help")
    assert shown.code == 0 and "--base-model" in shown.out and "Traceback" not in shown.err


def test_a_port_in_use(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = cli(tmp_path / "home", "serve", "--base-model", "nano", "--port", port)
    assert refused.code != 0 and f"port {port}" in refused.err and "another --port" in refused.err and "Traceback" not in refused.err


def test_a_model_that_is_not_there(tmp_path: Path):
    refused = cli(tmp_path / "home", "serve", "--base-model", "./nosuch", "--port", "0")
    assert refused.code == 1 and "./nosuch: there is no such model folder" in refused.err


@pytest.mark.slow
@pytest.mark.parametrize("flag", [["--base-model", "nano"], ["--base-model=nano"]])
def test_names_are_resolved_and_the_key_is_private(tmp_path: Path, flag):
    home = tmp_path / "home"
    process = subprocess.Popen(command("serve", *flag, "--port", "0"), env=environment(home), stdout=subprocess.PIPE, text=True)
    try:
        ready = json.loads(process.stdout.readline())
        assert ready["base_model"] == "nano"
        key_file = home / "servers" / "key"
        key = key_file.read_text(encoding="utf-8").strip()
        assert key.startswith("tml-") and (sys.platform == "win32" or stat.S_IMODE(key_file.stat().st_mode) == 0o600)
        address = ready["url"] + "/api/v1/get_server_capabilities"
        told = httpx.get(address, headers={"X-API-Key": key}, trust_env=False, timeout=20)
        assert told.status_code == 200 and "nano" in told.text
        assert httpx.get(address, trust_env=False, timeout=20).status_code in (401, 403)
    finally:
        process.terminate()
        assert process.wait(20) in (0, -15)
        process.stdout.close()
