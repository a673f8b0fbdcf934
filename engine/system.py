"""What this machine can do: devices, memory, threads. Asks only; changes nothing. Imports torch only where a caller needs it."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Machine:
    """The machine in figures; memory and disk in bytes."""

    system: str
    python: str
    cpus: int
    memory_total: int
    memory_free: int
    disk_free: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def folder_id(folder: Path) -> str:
    """A name that this folder alone has, made at its first use: who sees the same name sees the same files. Empty where none can be."""
    file = folder / "folder.id"
    with contextlib.suppress(OSError):
        if not file.exists():
            draft = file.with_name(f".folder.id.{os.getpid()}.{secrets.token_hex(4)}.tmp")
            draft.write_text(secrets.token_hex(16), encoding="ascii")
            os.replace(draft, file)
        return file.read_text(encoding="ascii").strip()
    return ""


def usable_cpus() -> int:
    """Cores that this process may use, containers' limits counted."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def probe(folder: Path) -> Machine:
    """The machine now; `folder` is where the disk is measured."""
    import psutil

    memory = psutil.virtual_memory()
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        cpus=usable_cpus(),
        memory_total=memory.total,
        memory_free=memory.available,
        disk_free=shutil.disk_usage(folder).free,
    )


def free_memory(device: str) -> int:
    """Bytes that this process can still get where the device's tensors lie, limits set to it counted. Imports torch for CUDA."""
    if device.startswith("cuda"):
        import torch

        place = device if ":" in device else None
        # What torch holds for later is there for the asking.
        held = torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
        return torch.cuda.mem_get_info(place)[0] + held
    import psutil

    return max(0, min(psutil.virtual_memory().available, *_rooms()))


def _rooms(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[float]:
    """What is left of each limit on this process's memory: those of containers (control groups) and `ulimit -v`."""
    rooms = [float("inf")]
    with contextlib.suppress(ImportError, OSError):
        import resource

        import psutil

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            rooms.append(limit - psutil.Process().memory_info().vms)
    with contextlib.suppress(OSError):
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, inside = line.split(":", 2)
            if controllers in ("", "memory"):
                # A parent's limit binds as well; in a container the path may lead outside of what is mounted.
                path = Path(inside.lstrip("/"))
                for folder in (path, *path.parents):
                    rooms.append(_room(cgroups / controllers / folder))
    return rooms


def _room(folder: Path) -> float:
    """Of one control group of version 2 or 1; pages of files that can be dropped count as free."""
    for most, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with contextlib.suppress(OSError, ValueError):
            limit = int((folder / most).read_text(encoding="utf-8"))
            lines = (line.split() for line in (folder / "memory.stat").read_text(encoding="utf-8").splitlines())
            return limit - int((folder / used).read_text(encoding="utf-8")) + int(dict(lines)[cache])
    return float("inf")


def pick_device(wanted: str = "auto") -> str:
    """cuda, mps or cpu: the wanted one, or the best that torch finds. Imports torch."""
    import torch

    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for products of bfloat16 (AVX-512 BF16 or AMX). Imports torch."""
    import torch

    # torch names these with an underscore and has no other way to ask; a version without them counts as a no.
    questions = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, question, bool)() for question in questions)
