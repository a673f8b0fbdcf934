"""The checks of `thinker doctor`: each says whether something is in order and, if not, what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from typing import Any

from engine import endpoints, models, paths, places, platforms, system
from engine.errors import EngineError
from engine.store import Store

_PACKAGES = ("tinker", "torch", "transformers", "peft", "streamlit", "datasets")


def checks() -> list[dict[str, Any]]:
    """{name, ok: True | False | None (not needed), says, next_step} each."""
    found = [_machine(), _disk(), _packages(), _gpu(), _home(), _database(), _nano(), _browser(), *_elsewhere()]
    return [dict(zip(("name", "ok", "says", "next_step"), check, strict=True)) for check in found]


def _machine() -> tuple[str, bool | None, str, str]:
    machine = system.probe(paths.home())
    memory = f"{machine.memory_free / 2**30:.1f} of {machine.memory_total / 2**30:.1f} GB memory free"
    return "machine", True, f"{machine.system}, Python {machine.python}, {machine.cpus} CPU cores, {memory}", ""


def _disk() -> tuple[str, bool | None, str, str]:
    free = system.probe(paths.home()).disk_free / 2**30
    return "disk", free > 2, f"{free:.1f} GB free", "" if free > 2 else "Make room: checkpoints need it."


def _packages() -> tuple[str, bool | None, str, str]:
    versions, missing = [], []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return (
            "packages",
            False,
            f"missing: {', '.join(missing)}",
            "Run: python thinker.py doctor (it installs what requirements.txt names).",
        )
    return "packages", True, ", ".join(versions), ""


def _gpu() -> tuple[str, bool | None, str, str]:
    # Asked in a process of its own: torch would stay in this one's memory.
    script = (
        "import torch; cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available();"
        "print(torch.cuda.get_device_name(0) if cuda else 'Apple GPU' if mps else '')"
    )
    try:
        name = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True).stdout.strip()
    except (subprocess.SubprocessError, OSError):
        return "GPU", False, "PyTorch can't be loaded", "Delete the .venv folder and run thinker.py again."
    if name:
        return "GPU", True, name, ""
    if platforms.nvidia_present():
        return "GPU", False, "there is an NVIDIA GPU, but this PyTorch is built for the CPU", "Install a CUDA build of PyTorch into .venv."
    return "GPU", None, "none; the CPU trains", ""


def _home() -> tuple[str, bool | None, str, str]:
    home = paths.home()
    writable = os.access(home, os.W_OK)
    return "data directory", writable, str(home), "" if writable else "Make it writable, or set THINKER_HOME to another folder."


def _database() -> tuple[str, bool | None, str, str]:
    try:
        store = Store()
        count = len(store.jobs(None, limit=1000))
        store.close()
    except EngineError as error:
        return "database", False, error.message, error.next_step
    return "database", True, f"{count} jobs", ""


def _nano() -> tuple[str, bool | None, str, str]:
    try:
        folder = models.resolve("nano")
    except EngineError as error:
        return "nano", False, error.message, error.next_step
    return "nano", True, f"the built-in model, {sum(f.stat().st_size for f in folder.iterdir()) / 1e6:.1f} MB", ""


def _browser() -> tuple[str, bool | None, str, str]:
    found = platforms.find_chromium()
    return "Chromium (for browser tests)", True if found else None, found or "not found; the browser tests are skipped", ""


def _elsewhere() -> list[tuple[str, bool | None, str, str]]:
    """What trains elsewhere, asked now: the cloud if there is a key for it, and the servers that were named."""
    found: list[tuple[str, bool | None, str, str]] = []
    for place in places.look():
        if place.name == endpoints.LOCAL:
            continue
        missing = next((check for check in place.checks if not check.met and not check.optional), None)
        if missing is not None and missing.label == "Key":
            found.append((f"{place.title} key", None, "not set; not needed here", ""))
        elif missing is not None:
            found.append((place.title, False, f"{missing.label}: {missing.found}", missing.advice))
        else:
            lines = [f"{check.label}: {check.found}" if check.label != "Connection" else check.found for check in place.checks]
            told = [line for check, line in zip(place.checks, lines, strict=True) if check.label not in ("Tinker's SDK", "Key")]
            found.append((place.title, True, "; ".join(told), ""))
    return found
