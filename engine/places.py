"""Where a run can take place: each endpoint with a checklist, looked at now. Starts nothing and loads no torch."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec

from engine import endpoints, paths, system

_DISK_WANTED = 2e9
_MEMORY_WANTED = 1.5e9


@dataclass(frozen=True)
class Check:
    """One line of a checklist. An optional one that isn't met keeps nobody from training."""

    label: str
    met: bool
    found: str
    advice: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Place:
    """One endpoint. `why` says for whom it is the right one."""

    name: str
    title: str
    meaning: str
    why: str
    checks: tuple[Check, ...]

    @property
    def ready(self) -> bool:
        """Whether all that it needs is there."""
        return all(check.met or check.optional for check in self.checks)


def look() -> list[Place]:
    """Every endpoint that exists, the recommended one first."""
    return [_LOOKS[name]() for name in endpoints.names() if name in _LOOKS]


def _local() -> Place:
    machine = system.probe(paths.home())
    gpu = gpu_names()
    checks = (
        Check(
            "PyTorch", find_spec("torch") is not None, "installed" if find_spec("torch") else "not installed", "Run python thinker.py once."
        ),
        Check(
            "Memory",
            machine.memory_free > _MEMORY_WANTED,
            f"{machine.memory_free / 1e9:.1f} GB free of {machine.memory_total / 1e9:.1f} GB",
            "Close other programs, then check again.",
        ),
        Check("Disk", machine.disk_free > _DISK_WANTED, f"{machine.disk_free / 1e9:.0f} GB free", "Make room, then check again."),
        Check("Processor", True, f"{machine.cpus} CPU cores"),
        Check(
            "GPU", bool(gpu), gpu or "none found; the CPU does the work, which suits models up to about 1 billion parameters", optional=True
        ),
    )
    why = "No key, no network and no bill; nothing leaves this machine."
    return Place("local", "This machine", "Thinker's own training server runs here, in the background.", why, checks)


def gpu_names() -> str:
    """The names of NVIDIA's GPUs, as their driver tells them; empty without any."""
    tool = shutil.which("nvidia-smi")
    if not tool:
        return ""
    try:
        asked = subprocess.run([tool, "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True, timeout=3, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ", ".join(asked.stdout.split("\n")).strip(", ")


_LOOKS = {"local": _local}
