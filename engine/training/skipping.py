"""What a run does between updates can be left out: a person who asks for it is heard in the middle of an evaluation.

Offered only for what takes a while, so that nothing is written for what is over in a moment. Knows not what is being done.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.training.attempt import Attempt

OFFERED_AFTER_S = 1.0


class Asked(Exception):
    """Somebody asked to pause or stop while something was being measured."""

    def __init__(self, what: str):
        super().__init__(what)
        self.what = what


class Skipped(Exception):
    """Somebody asked to leave this out."""


@contextmanager
def skippable(at: Attempt, what: str, *, rests: bool = False) -> Iterator[None]:
    """Waits in here end with Skipped once somebody asks for that; with `rests` also with Asked, for a pause or a stop."""
    run, began, offered = at.run, time.monotonic(), False

    def poll() -> None:
        nonlocal offered
        asked = run.control()
        if asked and rests:
            raise Asked(asked)
        if run.wants_to_skip():
            raise Skipped(what)
        if not offered and time.monotonic() - began > OFFERED_AFTER_S:
            offered = True
            run.offer_skip(what)

    usual, at.client.poll = at.client.poll, poll
    try:
        yield
    except Skipped:
        run.log("info", f"skipped: {what}")
        raise
    finally:
        at.client.poll = usual
        if offered:
            run.offer_skip("")
