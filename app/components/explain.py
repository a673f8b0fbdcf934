"""What a number means, where it stands: the guide's own words, in a help mark, a panel that opens on the spot, or the whole guide."""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

from engine import Engine
from engine.errors import NotFound
from engine.knowledge import guide


def meaning(engine: Engine, metric: str) -> str:
    """For a help mark."""
    try:
        known = engine.explain_metric(metric)
    except NotFound:
        return "Reported by this run's method; Thinker knows no more of it."
    return f"{known['meaning']}\n\nHealthy: {known['healthy']}"


def title(engine: Engine, metric: str) -> tuple[str, str]:
    """(what it is called, its unit); a metric that nobody described goes by its own name."""
    try:
        known = engine.explain_metric(metric)
    except NotFound:
        return metric.replace("_", " ").replace("/", " · "), ""
    return known["title"], known["unit"]


def axis(engine: Engine, metric: str) -> str:
    """What stands at an axis: held-out loss (nats/token)."""
    called, unit = title(engine, metric)
    return f"{called.lower()} ({unit})" if unit else called.lower()


def panel(*metrics: str) -> None:
    """A link that opens the guide's sections on the metrics; nothing for those that the guide doesn't know."""
    texts = []
    for metric in metrics:
        with suppress(NotFound):
            texts.append(f"**{guide.metric_title(metric)}**\n\n{guide.metric_text(metric)}")
    if texts:
        with st.popover("What does this mean?", type="tertiary", key=f"means.{metrics[0]}"):
            st.markdown("\n\n".join(texts))


@st.dialog("Training guide", width="large")
def whole_guide() -> None:
    """The guide, to read."""
    st.markdown(guide.text().partition("\n")[2], unsafe_allow_html=False)
