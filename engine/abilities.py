"""What this machine can be expected to train, from its memory, its cores and the places that there are; with what that rests on.

Reads figures and a table of measured speeds; loads no model and no torch. A GPU's speed isn't in the table, so nothing is said of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from engine import estimates, knowledge, paths, places, system
from engine.places import Place
from engine.system import Machine

# What the hour is measured with.
EXAMPLES, EXAMPLE_TOKENS, PASSES = 500, 250, 3
_BYTES_EACH, _BESIDE, _SHARE = 4, 1.25, 0.9
_LEAST, _MOST = 1e5, 1e12


@dataclass(frozen=True)
class Abilities:
    """`fits`: parameters of the largest base model that an adapter can be trained on in the free memory. `within_an_hour`: of the
    largest that goes through EXAMPLES short examples PASSES times in an hour; None where a GPU does the work. `gpu`: names, or empty."""

    machine: Machine
    gpu: str
    fits: int
    within_an_hour: int | None
    places: tuple[Place, ...]


def look(owner: str = "local") -> Abilities:
    """The machine as it is now, and the places that this owner has."""
    machine, gpu = system.probe(paths.home()), places.gpu_names()
    hour = None if gpu else brisk(machine.cpus)
    return Abilities(machine, gpu, fitting(machine.memory_free), hour, tuple(places.look(owner, ask=False)))


def fitting(memory_free: float) -> int:
    """Parameters that the memory holds: 4 bytes each, a quarter more for the adapter and the examples, a tenth left over."""
    return max(0, int((_SHARE * memory_free - estimates.PROCESS_BYTES) / (_BYTES_EACH * _BESIDE)))


def brisk(cores: int) -> int:
    """Parameters of the largest model that the table of speeds lets through the hour's work on these cores."""
    wanted, speeds = EXAMPLES * EXAMPLE_TOKENS * PASSES / 3600, knowledge.speeds()
    low, high = math.log(_LEAST), math.log(_MOST)
    for _ in range(60):
        middle = (low + high) / 2
        fast = estimates.table_speed(int(math.exp(middle)), cores, speeds) >= wanted
        low, high = (middle, high) if fast else (low, middle)
    return int(math.exp(low))
