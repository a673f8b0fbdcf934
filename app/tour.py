"""The tour: which stop is on which page, what comes next, and that it's remembered. Knows the settings that keep it, and no screen.

Where a person is stands in the store, so that F5, another tab and another day go on from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.settings import Settings


@dataclass(frozen=True)
class Stop:
    """`page` is the path in the address of the page that it is about."""

    page: str
    title: str
    text: str


STOPS = (
    Stop(
        "settings",
        "Settings",
        "What you make is kept in one folder on this machine; here you see where it is and how big it has got. What new trainings "
        "start from is set here as well.",
    ),
    Stop(
        "datasets",
        "Datasets",
        "The examples that models learn from: drop a file, and see what is in it and what is wrong with it, row by row. A few sets ship "
        "with Thinker.",
    ),
    Stop(
        "wizard",
        "Wizard",
        "From a goal to a run in five steps. Everything is filled in with what suits your data, and says why. The demo needs no data.",
    ),
    Stop(
        "training",
        "Training",
        "Every run, live: its mistakes (the loss) get fewer, its answers change, and at the end stands the proof. Pause and resume it "
        "as you like.",
    ),
    Stop(
        "playground",
        "Playground",
        "Chat with any model that you have trained, or put one prompt to two of them side by side.",
    ),
    Stop(
        "home",
        "Done",
        "That was all of it. Home shows what runs, what finished, and what to do next. The demo takes a minute: begin there.",
    ),
)


def is_new(settings: Settings) -> bool:
    """Whether the person was never asked."""
    return settings.get("tour") == "new"


def is_on(settings: Settings) -> bool:
    """Whether they are on it."""
    return settings.get("tour") == "on"


def number(settings: Settings) -> int:
    """Which stop they are at, from 0; what was kept of a longer tour ends with this one's last."""
    return min(max(0, settings.get("tour_step")), len(STOPS) - 1)


def here(settings: Settings) -> Stop:
    """The stop that they are at."""
    return STOPS[number(settings)]


def begin(settings: Settings) -> None:
    """From the first stop, whatever was before."""
    settings.set("tour_step", 0)
    settings.set("tour", "on")


def move(settings: Settings, by: int) -> None:
    """On or back; past the last stop it is done, and not before the first."""
    to = number(settings) + by
    if to >= len(STOPS):
        settings.set("tour", "done")
    else:
        settings.set("tour_step", max(0, to))


def skip(settings: Settings) -> None:
    """No more of it, until it is asked for again."""
    settings.set("tour", "skipped")
