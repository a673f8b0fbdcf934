"""What a run takes of its machine, now and then: processor, memory, GPUs. Measures all programs together; changes nothing.

The runner asks it at each heartbeat; it answers every few seconds. Where `nvidia-smi` isn't there, nothing is said of GPUs.
"""

from __future__ import annotations

import shutil
import subprocess
import time

EVERY_S = 2.0
_GPU_EVERY_S = 10.0
_GB = 1e9


class Usage:
    """One run's measurements."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._gpu_last = 0.0
        self._cpu: tuple[float, float] | None = None
        self._driver = shutil.which("nvidia-smi")

    def due(self) -> dict[str, float] | None:
        """{metric: number} if enough time has gone by since the last; else None."""
        now = time.monotonic()
        if now - self._last < EVERY_S:
            return None
        self._last = now
        found = self._machine()
        if self._driver and now - self._gpu_last >= _GPU_EVERY_S:
            self._gpu_last = now
            found |= _gpus(self._driver)
        return found

    def _machine(self) -> dict[str, float]:
        import psutil

        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # Linux counts guests' time in user's as well.
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        before, self._cpu = self._cpu, (idle, total)
        memory = psutil.virtual_memory()
        found = {"memory_gb": (memory.total - memory.available) / _GB}
        if before and total > before[1]:
            found["cpu_percent"] = 100 * (1 - min(1.0, max(0.0, (idle - before[0]) / (total - before[1]))))
        return found


def _gpus(driver: str) -> dict[str, float]:
    query = [driver, "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True, stdin=subprocess.DEVNULL)
        rows = [[float(cell) for cell in line.split(",")] for line in done.stdout.splitlines() if line.strip()]
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    if not rows:
        return {}
    return {"gpu_percent": sum(row[0] for row in rows) / len(rows), "gpu_memory_gb": sum(row[1] for row in rows) * 2**20 / _GB}
