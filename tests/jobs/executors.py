"""Small things to execute: they count instead of training, but report, save and obey as training does."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

from engine.errors import DataError, EndpointLost
from engine.jobs.run import JobRun

START = 1


def following(value: int) -> int:
    """The next number of a sequence in which a step left out or done twice shows."""
    return (value * 1103515245 + 12345) % 2**31


def reference(steps: int) -> list[tuple[int, float]]:
    """The curve of a run that nothing interrupts."""
    value, points = START, []
    for step in range(1, steps + 1):
        value = following(value)
        points.append((step, float(value)))
    return points


def count(run: JobRun) -> str:
    """Counts to the recipe's steps; saves every fifth step."""
    delay = float(os.environ.get("COUNT_DELAY", "0"))
    total, done, value = run.recipe.training.steps or 20, 0, START
    run.stage("getting ready to count")
    if run.resume:
        done, value = run.resume.loop_state["step"], json.loads(Path(run.resume.path).read_text())
    run.state("training")

    def save(step: int, reason: str) -> None:
        path = run.folder / f"value-{run.attempt}-{step}.json"
        path.write_text(json.dumps(value))
        paths = {"weights_path": str(path), "sampler_path": str(path)}
        run.checkpoint(step, **paths, reason=reason, loop_state={"step": step}, renderer="chatml")

    for step in range(done + 1, total + 1):
        asked = run.control()
        if asked:
            save(step - 1, asked)
            return {"pause": "paused", "stop": "stopped"}[asked]
        time.sleep(delay)
        value = following(value)
        run.metrics(step, {"loss": value})
        run.sample(step, 0, "next?", None, str(value))
        run.progress(step, total, step * 10, step * delay)
        if step % 5 == 0:
            save(step, "steps")
    run.state("evaluating")
    run.result({"value": value})
    return "done"


def lose_endpoint_twice(run: JobRun) -> str:
    """Counts, but its endpoint dies at step 12 of the first attempt and 17 of the second."""
    real = run.metrics

    def metrics(step: int, values: dict[str, float]) -> None:
        if (run.attempt, step) in {(1, 12), (2, 17)}:
            raise EndpointLost("the server is gone")
        real(step, values)

    run.metrics = metrics
    return count(run)


def lose_endpoint(run: JobRun) -> str:
    """Its endpoint never lives long."""
    raise EndpointLost("the server is gone")


def bad_data(run: JobRun) -> str:
    """Ends with an error that was expected."""
    raise DataError("row 17 holds no answer.", "Fill it in.", where="data.jsonl row 17")


def no_room(run: JobRun) -> str:
    """Ends as where a file of its own doesn't fit on the disk any more."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(run.folder / "rollouts.jsonl"))


def surprise(run: JobRun) -> str:
    """Ends with an error that wasn't, and that holds a secret."""
    raise ZeroDivisionError("key sk-abcdefgh12345678 divided by zero")
