"""The wizard's frame: where one is, back and on, the way to the expert form. Knows the draft, not what its steps are about."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import services, session
from app.components import trouble, words
from engine import Engine

STEPS = ("Goal", "Data", "Where", "Settings", "Launch")


def head(draft: Any) -> None:
    """The title and the steps; those that were reached can be gone back to."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.title("New training", anchor=False, width="content")
        with st.container(horizontal=True, width="content"):
            if draft.goal:
                st.button("Start over", key="discard", icon=":material/delete:", type="tertiary", on_click=_discard)
            label = "Back to the steps" if draft.expert else "Expert form"
            st.button(label, key="expert", icon=":material/tune:", on_click=update, kwargs={"expert": not draft.expert})
    if draft.expert:
        return
    with st.container(horizontal=True, gap="small"):
        for number, name in enumerate(STEPS):
            here, open_ = number == draft.step, number <= draft.reached
            mark = ":material/radio_button_checked:" if here else ":material/check_circle:" if open_ else ":material/circle:"
            label = f"**{name}**" if here else name
            st.button(
                label,
                key=f"step-{number}",
                icon=mark,
                type="tertiary",
                disabled=not open_,
                help=f"Step {number + 1} of {len(STEPS)}",
                on_click=update,
                kwargs={"step": number},
            )
    st.progress((draft.step + 1) / len(STEPS))
    if ref := (draft.changes.get("start") or {}).get("checkpoint"):
        st.caption(f"Goes on from {words.literal(engine().planner.starts().get(ref, ref))} (its start checkpoint, under Settings)")


def moves(draft: Any, ready: bool, missing: str = "") -> None:
    """Back and on; `missing` says what is still to do."""
    st.space("small")
    with st.container(horizontal=True, vertical_alignment="center"):
        if draft.step:
            st.button("Back", key="back", icon=":material/arrow_back:", on_click=update, kwargs={"step": draft.step - 1})
        if draft.step < len(STEPS) - 1:
            st.button("Continue", key="continue", type="primary", disabled=not ready, on_click=update, kwargs={"step": draft.step + 1})
        if not ready and missing:
            st.caption(missing, width="content")


def update(**values: Any) -> None:
    """Keeps some of the draft."""
    session.renew_forms()
    trouble.attempt(lambda: engine().drafts.update(**values))


def change(field: str, value: Any) -> None:
    """Keeps one field; what no recipe can have is told, and the field shows again what is kept."""

    def keep() -> None:
        try:
            engine().drafts.change(field, value)
        except Exception:
            session.renew_forms()
            raise

    trouble.attempt(keep)


def engine() -> Engine:
    """The one Engine."""
    return services.engine()


def _discard() -> None:
    session.renew_forms()
    trouble.attempt(engine().drafts.discard, "The draft is thrown away")
