"""Faults in real servers and runners, without a hook in the product: Python imports this file at start from the front of PYTHONPATH.

What is to go wrong stands in the JSON file that FAULT_PLAN names: {"moment": ..., "at": n} happens at the n-th such moment,
once for a death, and for a full disk until the file is gone. {"shift": seconds} beside it sets the clock of each of these processes, as
if the machine's had been set, for as long as it stands there.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

PLAN = Path(os.environ["FAULT_PLAN"])


def planned(moment: str) -> dict | None:
    """The plan, if it is about this moment and its turn has come."""
    try:
        plan = json.loads(PLAN.read_text())
    except (OSError, ValueError):
        return None
    if plan["moment"] != moment:
        return None
    if plan.get("at", 1) > 1:
        PLAN.write_text(json.dumps({**plan, "at": plan["at"] - 1}))
        return None
    return plan


def die_if(moment: str, after: float = 0) -> None:
    if planned(moment):
        time.sleep(after)
        PLAN.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def arm_clock() -> None:
    """What tells the time of day, and the time of boot, which Linux reckons back from it."""
    real, read_text, seen = time.time, Path.read_text, [0.0, 0.0]

    def shift() -> float:
        if time.monotonic() - seen[0] > 0.05:
            seen[0] = time.monotonic()
            try:
                seen[1] = float(json.loads(read_text(PLAN)).get("shift", 0.0))
            except (OSError, ValueError):
                seen[1] = 0.0
        return seen[1]

    def shifted_text(self, *arguments, **more):
        text = read_text(self, *arguments, **more)
        if str(self) != "/proc/stat":
            return text
        lines = text.splitlines()
        return "\n".join(f"btime {int(line.split()[1]) + int(shift())}" if line.startswith("btime ") else line for line in lines)

    time.time = lambda: real() + shift()
    Path.read_text = shifted_text


def arm_disk() -> None:
    """While the plan says so, no file of the process can grow past some bytes: to who writes it is a full disk."""
    import resource
    import threading

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def watch() -> None:
        while True:
            full = planned("runner's disk full")
            resource.setrlimit(resource.RLIMIT_FSIZE, (full["bytes"] if full else soft, hard))
            time.sleep(0.02)

    threading.Thread(target=watch, daemon=True).start()


def arm() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    import resource

    from engine.server import checkpoints, sessions, weights
    from engine.server.trainer import Trainer

    if impatient := planned("impatient"):
        sessions.QUIET_SECONDS = impatient["quiet_seconds"]

    train, update, write, put = Trainer.forward_backward, Trainer.optim_step, weights.save_file, checkpoints.CheckpointStore._put

    def forward_backward(self, data, loss_fn, loss_config, *, forward_only):
        if slow := planned("slow"):
            time.sleep(slow["seconds"])
        result = train(self, data, loss_fn, loss_config, forward_only=forward_only)
        if not forward_only:
            die_if("inside forward_backward")
        return result

    def optim_step(self, params):
        # The client hears of the gradients first, and will never hear of the update.
        die_if("before optim_step", after=0.3)
        return update(self, params)

    def save_file(tensors, filename, metadata=None):
        is_resumable_adapter = "/weights/" in str(filename) and "adapter" in Path(filename).name
        full = is_resumable_adapter and planned("disk full")
        if not full:
            write(tensors, filename, metadata)
        else:
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
            try:
                write(tensors, filename, metadata)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        if is_resumable_adapter:
            die_if("adapter written")

    def _put(self, draft, place):
        if place.parent.name == "weights":
            die_if("before the rename")
        put(self, draft, place)

    Trainer.forward_backward, Trainer.optim_step = forward_backward, optim_step
    weights.save_file, checkpoints.CheckpointStore._put = save_file, _put


if any(part.startswith("engine.") for part in sys.orig_argv):
    arm_clock()
if "engine.jobs.host" in sys.orig_argv:
    arm_disk()
if "engine.server" in sys.orig_argv:
    arm()
