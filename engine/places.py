"""Where a run can take place: each endpoint with a checklist, looked at now. Starts nothing and loads no torch."""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec

from engine import endpoints, keys, paths, system
from engine.endpoints import LOCAL, TINKER, named, probe, remote
from engine.errors import EngineError

_DISK_WANTED = 2e9
_MEMORY_WANTED = 1.5e9
_REMEMBERED_S = 5.0


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


def look(owner: str = "local", ask: bool = True) -> list[Place]:
    """Every endpoint that exists, the recommended one first: what is ready, and of that what is nearest.

    `ask`: those that are elsewhere are asked whether they are there and take the owner's key, which may take seconds.
    """
    return sorted((at(name, owner, ask) for name in endpoints.names(owner)), key=lambda place: not place.ready)


def at(name: str, owner: str = "local", ask: bool = True) -> Place:
    """One of them. Raises RecipeError for an unknown name."""
    return _local() if name == LOCAL else _remote(name, owner, ask)


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


def _remote(name: str, owner: str, ask: bool) -> Place:
    where = remote.address(name, owner)
    key = keys.find(owner, where.need) if where.need else None
    there = key is not None or where.need is None
    sdk = find_spec("tinker") is not None
    checks = [Check("Tinker's SDK", sdk, "installed" if sdk else "not installed", "Install the package tinker, then start Thinker again.")]
    if where.need is not None:
        advice = f"Give it in the settings; you get one at {where.need.get_one}."
        checks.append(Check("Key", there, "there" if there else "there is none", advice))
    if there and ask:
        checks.append(_connection(name, owner, hash((where.url, key.value if key else "")), int(time.monotonic() / _REMEMBERED_S)))
    if name == TINKER:
        meaning = "Large models on rented machines that you never see; you pay by the token."
        why = "For models that this machine can't hold. Your examples are sent there."
        return Place(name, "Tinker", meaning, why, tuple(checks))
    known = named.get(owner, name)
    if known.in_the_clear:
        advice = "Use an https address, or a tunnel."
        checks.append(Check("Privacy", False, "what is sent there, the key too, can be read on the way", advice, optional=True))
    checks += [Check(found.title, bool(found.has), found.told, optional=True) for found in probe.told(known.found)]
    return Place(name, name, f"A server that speaks Tinker's API, at {known.host}.", "Your examples are sent there.", tuple(checks))


@lru_cache(maxsize=64)
def _connection(name: str, owner: str, _key: int, _now: int) -> Check:
    """Asked anew after some seconds: a key may have been revoked, a server may be away."""
    where = remote.address(name, owner)
    try:
        known = remote.offers(name, owner)
    except EngineError as error:
        return Check("Connection", False, error.message, error.next_step)
    trained = [model for model in known if model.trainable]
    count = f"{len(trained)} model{'s' * (len(trained) != 1)}"
    takes = "takes the key and offers" if where.need else "offers"
    longest = max((model.context for model in trained if model.context), default=None)
    more = f", up to {longest:,} tokens at once" if longest else ""
    return Check("Connection", bool(trained), f"{where.host} {takes} {count} to train{more}", "Ask whoever runs it." if not trained else "")
