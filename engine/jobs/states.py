"""The states a job can be in, which may follow which, and how each is called and coloured.

Pure tables and functions: knows of no database, no thread and no screen.
"""

from __future__ import annotations

from dataclasses import dataclass

QUEUED, PREPARING, TRAINING, EVALUATING, DONE = "queued", "preparing", "training", "evaluating", "done"
PAUSING, PAUSED, STOPPING, STOPPED = "pausing", "paused", "stopping", "stopped"
FAILED, INTERRUPTED, NEEDS_KEY = "failed", "interrupted", "needs_key"

_LEAVING = (PAUSING, STOPPING, FAILED, INTERRUPTED, NEEDS_KEY)

TRANSITIONS: dict[str, frozenset[str]] = {
    QUEUED: frozenset({PREPARING, PAUSED, STOPPED}),
    # A run that was cut off while evaluating has nothing left to train when it comes back.
    PREPARING: frozenset({TRAINING, EVALUATING, *_LEAVING}),
    TRAINING: frozenset({EVALUATING, DONE, *_LEAVING}),
    EVALUATING: frozenset({DONE, *_LEAVING}),
    # A run may reach its end before it notices that it was asked to pause or stop.
    PAUSING: frozenset({PAUSED, STOPPING, DONE, FAILED, INTERRUPTED}),
    STOPPING: frozenset({STOPPED, DONE, FAILED, INTERRUPTED}),
    PAUSED: frozenset({QUEUED, STOPPED}),
    # Its key was in a memory that is gone, or was refused.
    NEEDS_KEY: frozenset({QUEUED, STOPPED}),
    STOPPED: frozenset({QUEUED}),
    FAILED: frozenset({QUEUED}),
    INTERRUPTED: frozenset({QUEUED, PREPARING, PAUSED, STOPPED, FAILED}),
    DONE: frozenset(),
}

STATES = tuple(TRANSITIONS)
WORKING = frozenset({PREPARING, TRAINING, EVALUATING})
ACTIVE = WORKING | {PAUSING, STOPPING}
FINAL = frozenset({DONE, STOPPED, FAILED})
RESUMABLE = frozenset({PAUSED, STOPPED, FAILED, INTERRUPTED, NEEDS_KEY})
# What takes one of the turns that an owner has where these are few; a run that waits for its key goes on as soon as that is there.
TAKES_A_TURN = ACTIVE | {QUEUED, INTERRUPTED, NEEDS_KEY}

SKIP = "skip"
"""Asks a run to leave out what it does just now, an evaluation say. It changes no state."""

CONTROLS: dict[str, dict[str, str]] = {
    "pause": {QUEUED: PAUSED, INTERRUPTED: PAUSED, PAUSING: PAUSING} | dict.fromkeys(WORKING, PAUSING),
    "stop": {QUEUED: STOPPED, PAUSED: STOPPED, INTERRUPTED: STOPPED, NEEDS_KEY: STOPPED, PAUSING: STOPPING, STOPPING: STOPPING}
    | dict.fromkeys(WORKING, STOPPING),
}
"""What each request turns each state into; a state that is absent refuses the request."""


@dataclass(frozen=True)
class Light:
    """How a state is shown: a plain word or two, and gray, blue, green, orange or red."""

    label: str
    color: str


LIGHTS: dict[str, Light] = {
    QUEUED: Light("waiting its turn", "gray"),
    PREPARING: Light("getting ready", "blue"),
    TRAINING: Light("learning", "blue"),
    EVALUATING: Light("being tested", "blue"),
    DONE: Light("finished", "green"),
    PAUSING: Light("pausing", "orange"),
    PAUSED: Light("paused", "orange"),
    STOPPING: Light("stopping", "orange"),
    STOPPED: Light("stopped early", "gray"),
    FAILED: Light("failed", "red"),
    NEEDS_KEY: Light("waiting for a key", "orange"),
    INTERRUPTED: Light("cut off, will go on", "orange"),
}


def allowed(state: str, to: str) -> bool:
    """Whether a job in `state` may become `to`."""
    return to in TRANSITIONS.get(state, frozenset())


def requests(state: str, skips: str = "") -> frozenset[str]:
    """What can be asked of a job in `state`: pause, stop, skip, resume, delete. `skips` is what it does that can be skipped."""
    asked = {name for name, moves in CONTROLS.items() if moves.get(state, state) != state}
    if state in RESUMABLE:
        asked.add("resume")
    if state not in ACTIVE:
        asked.add("delete")
    if skips and state in WORKING:
        asked.add(SKIP)
    return frozenset(asked)


def moving(state: str) -> bool:
    """Whether a job in `state` goes on without anybody's doing: it waits its turn, runs, or was cut off."""
    return state in ACTIVE or state in (QUEUED, INTERRUPTED)
