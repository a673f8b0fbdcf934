"""What this machine can do: devices, memory, threads. Asks only; changes nothing. Imports torch only where a caller needs it."""

from __future__ import annotations

import os
import platform
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
    """Bytes that are free where the device's tensors lie, containers' limits not counted. Imports torch for CUDA."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.mem_get_info(device if ":" in device else None)[0]
    import psutil

    return psutil.virtual_memory().available


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
