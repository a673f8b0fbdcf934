"""Runs as cards with their key figures, for screens on which a table of them has to be pushed sideways. What is picked stands in the
address, as it does for the table."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import address, navigation, session
from app.components import choices, words
from engine import Engine
from engine.amounts import duration
from engine.runs import figures_of

MOST = 30
_VIEWS = {"table": "Table", "cards": "Cards"}


def view() -> str:
    """table or cards, as chosen; a phone begins with cards."""
    usual = "cards" if "Mobi" in st.context.headers.get("User-Agent", "") else "table"
    return choices.segments(
        "As",
        list(_VIEWS),
        key="view.as",
        default=address.chosen("as", list(_VIEWS), usual),
        format_func=_VIEWS.__getitem__,
        on_change=address.keep,
        args=("as", "view.as", usual),
    )


def show(engine: Engine, rows: list[dict[str, Any]], picked: list[str]) -> list[str]:
    """-> what is picked."""
    shown = session.cards_listed()
    for row in rows[:shown]:
        _card(engine, row, picked)
    if len(rows) > shown:
        st.button(f"Show more of {len(rows):,}", key="more-cards", on_click=session.list_more_cards)
    return picked


def keep(picked: list[str]) -> None:
    """Into the address."""
    if picked:
        st.query_params["runs"] = ",".join(picked[:MOST])
    else:
        st.query_params.pop("runs", None)


def _card(engine: Engine, row: dict[str, Any], picked: list[str]) -> None:
    light, job_id = engine.light(row["state"]), row["id"]
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            navigation.link_to_run(job_id, f"**{words.literal(row['name'])}**")
            st.badge(f"● {light.label}", color=light.color)
            key = f"pick-{job_id}-{job_id in picked}"
            st.checkbox(
                words.label(f"Compare {row['name']}"),
                value=job_id in picked,
                key=key,
                label_visibility="collapsed",
                width="content",
                on_change=_turn,
                args=(job_id, picked),
            )
        st.markdown("  \n".join(_lines(row)))


def _lines(row: dict[str, Any]) -> list[str]:
    lines = []
    if row["after"] is not None:
        lines.append(f"Right answers {words.percent(row['before'])} → **{words.percent(row['after'])}**")
    elif row["proof"]:
        lines.append(f"**{words.literal(words.sentence(row['proof']))}**")
    figures = [f"{one.short} `{one.text}`" for one in figures_of(row)]
    if figures:
        lines.append(words.sentence(", ".join(figures)))
    took = f"{row['steps']:,} steps · {row['tokens']:,} tokens · {duration(row['seconds'])}"
    known = [
        f"{told} {words.figure(row[name])}"
        for name, told in (("rate", "rate"), ("rank", "rank"), ("batch", "batch"))
        if row[name] is not None
    ]
    lines.append(f":gray[{' · '.join([took, words.literal(row['method']), words.literal(row['model']), *known])}]")
    return lines


def _turn(job_id: str, picked: list[str]) -> None:
    keep([other for other in picked if other != job_id] if job_id in picked else [*picked, job_id])
