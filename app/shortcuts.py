"""The keys for the common moves, in one table: those that work on every page, and those of one page. Knows no page's content.

A key works through a button that is on the screen, so the moves of every page stand in the sidebar. Streamlit keeps C and R to itself
and leaves keys alone while somebody types.
"""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from app import navigation

HOLD = "K"
"""Pauses the run that is shown, or lets it go on."""


@dataclass(frozen=True)
class Move:
    """A key, what it does, and where it leads."""

    key: str
    label: str
    icon: str
    to: navigation.Entry


EVERYWHERE = (
    Move("N", "New training", ":material/add:", navigation.WIZARD),
    Move("P", "Chat", ":material/chat:", navigation.PLAYGROUND),
)


def show() -> None:
    """The moves of every page, in the sidebar."""
    with st.sidebar:
        for move in EVERYWHERE:
            key = f"move-{move.key}"
            if st.button(move.label, key=key, icon=move.icon, type="tertiary", shortcut=move.key):
                navigation.go(move.to)


def listed() -> list[tuple[str, str, str]]:
    """(key, what it does, where it works), for people."""
    return [(move.key, move.label, "everywhere") for move in EVERYWHERE] + [(HOLD, "Pause the run, or let it go on", "on a run's page")]
