"""The training loop, held at one step until somebody asks the run for something or kills it: else a quick one is over before anybody can.

THINKER_EXECUTE names `execute` for all runs of these tests; a run is held by its name, and in its first attempt alone.
"""

from __future__ import annotations

import re
import time
from typing import Any

from engine.jobs.run import JobRun
from engine.recipe import Recipe
from engine.training import loop

EXECUTE = f"{__name__}:execute"


def held(recipe: Recipe, step: int) -> Recipe:
    """The same, to be held once this step is done."""
    return recipe.merged({"name": f"held at {step}"})


def execute(run: JobRun) -> str:
    known = re.fullmatch(r"held at (\d+)", run.recipe.name)
    if known and run.attempt == 1:
        tell = run.progress

        def progress(step: int, *more: Any) -> None:
            tell(step, *more)
            while step == int(known[1]) and run.control() is None:
                time.sleep(0.02)

        run.progress = progress
    return loop.execute(run)
