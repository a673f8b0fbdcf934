"""Step 3: where it trains. A card for each place that there is, with a checklist looked at now."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import navigation
from app.components import words
from app.components.wizard import frame

_ICONS = {"local": "computer"}


def show(draft: Any) -> None:
    """The places."""
    st.markdown("## Where should it train?", anchors=False)
    places = frame.engine().planner.places()
    chosen = draft.changes.get("endpoint") or "local"
    if "endpoint" not in draft.changes and places[0].name != chosen:
        # Nothing can be trained on this machine: what can be is taken until the person says otherwise.
        chosen = places[0].name
        frame.engine().drafts.change("endpoint", chosen)
    for number, place in enumerate(places):
        with st.container(border=True):
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"### :material/{_ICONS.get(place.name, 'cloud')}: {place.title}", anchors=False, width="content")
                if not number:
                    st.badge("Recommended", color="blue")
                if place.name == chosen:
                    st.badge("Chosen", icon=":material/check:", color="green")
                else:
                    st.button("Choose", key=f"place-{place.name}", on_click=frame.change, args=("endpoint", place.name))
            st.markdown(f"{place.meaning} {place.why}")
            for check in place.checks:
                _check(check)
            if not place.ready and place.name != "local":
                navigation.link(navigation.SETTINGS, "Settings: keys")
            st.button("Check again", key=f"check-{place.name}", icon=":material/refresh:", type="tertiary")
    ready = any(place.ready for place in places if place.name == chosen)
    frame.moves(draft, ready, "Something that it needs is missing.")


def _check(check: Any) -> None:
    word, color, icon = (
        ("ready", "green", "check") if check.met else ("optional", "gray", "remove") if check.optional else ("missing", "red", "close")
    )
    advice = "" if check.met or not check.advice else f" {check.advice}"
    st.markdown(f":{color}-badge[:material/{icon}: {word}] **{check.label}** {words.literal(check.found + '.' + advice)}")
