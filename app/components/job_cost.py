"""What a run has taken so far and will: tokens by kind, money, its limits; and a higher limit for one that stands at its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app import services
from app.components import trouble, words
from engine import Engine

if TYPE_CHECKING:
    from engine.store import Job

_LIMITS = {
    "max_dollars": ("At most so many dollars", "dollars"),
    "max_tokens": ("At most so many tokens", "tokens"),
    "max_minutes": ("At most so many minutes", "minutes"),
}


def line(engine: Engine, job: Job) -> None:
    """One line; nothing where nothing is counted, as on a machine of one's own."""
    spent = engine.spending.of(job)
    limits = [
        f"at most {words.figure(value)} {unit}"
        for name, (_, unit) in _LIMITS.items()
        if (value := getattr(spent.budget, name)) is not None and name != "max_dollars"
    ]
    if (spent.free or not any(spent.counted.values())) and not limits:
        return
    words_of = {"prefill": "read", "sample": "written", "train": "learned from"}
    counted = ", ".join(f"`{spent.counted[kind]:,}` {word}" for kind, word in words_of.items())
    money = spent.text or ("" if spent.free else "price not known")
    parts = [f"**{words.literal(money)}**"] if money else []
    page = engine.remotes.run_page(job.endpoint, _path(engine, job))
    link = [f"[in Tinker's console]({page})"] if page else []
    st.markdown(" · ".join([*parts, f"tokens: {counted}", *map(words.literal, limits), *link]))


def at_limit(job: Job) -> bool:
    """Whether it stopped at its own limit, so that it can't go on without a higher one."""
    return (job.error or {}).get("kind") == "BudgetSpent"


def raise_limit(engine: Engine, job: Job) -> None:
    """For a run that stopped at its limit: another one, and on it goes."""
    if not at_limit(job):
        return
    budget = job.recipe.budget
    given = [name for name in _LIMITS if getattr(budget, name) is not None]
    with st.form("limit", border=True):
        st.markdown("**Go on with a higher limit**")
        for name in given:
            value = float(getattr(budget, name))
            st.number_input(_LIMITS[name][0], min_value=0.0, value=2 * value, step=value, format="%g", key=f"limit.{name}.{job.id}")
        st.caption("0 sets no limit. It goes on from where it stopped; nothing is done twice.")
        st.form_submit_button("Raise and resume", type="primary", icon=":material/play_arrow:", on_click=_resume, args=(job.id, given))


def _resume(job_id: str, given: list[str]) -> None:
    budget: dict[str, Any] = {}
    for name in given:
        value = st.session_state[f"limit.{name}.{job_id}"]
        budget[name] = (int(value) if name == "max_tokens" else value) if value else None
    trouble.attempt(lambda: services.engine().resume(job_id, budget))


def _path(engine: Engine, job: Job) -> str:
    points = engine.checkpoints(job.id) if job.endpoint == "tinker" else []
    return points[-1].path if points else ""
