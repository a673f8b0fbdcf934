"""Charts of a run, as Vega-Lite specifications that stay the same from tick to tick: only the data changes, so nothing flickers."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import streamlit as st

from app.run_data import Curve

BLUE, TEAL, AMBER = "#0ea5e9", "#14b8a6", "#f59e0b"
MOST_POINTS = 800


def bucket(points: Curve, limit: int) -> Curve:
    """At most `limit` points that look like all of them: of each stretch its lowest and its highest. What isn't a number is left out."""
    points = [point for point in points if math.isfinite(point[1])]
    if len(points) <= limit:
        return points
    size = math.ceil(len(points) / (limit // 2))
    kept: Curve = []
    for start in range(0, len(points), size):
        stretch = points[start : start + size]
        low, high = min(stretch, key=lambda point: point[1]), max(stretch, key=lambda point: point[1])
        kept += sorted({low, high})
    return kept


def loss(train: Curve, held_out: Curve, total_steps: int, alt: str) -> None:
    """Training and held-out loss over the steps."""
    rows = [(step, value, "training") for step, value in bucket(train, MOST_POINTS * 3 // 4)]
    rows += [(step, value, "held-out") for step, value in bucket(held_out, MOST_POINTS // 4)]
    color = {
        "field": "of",
        "type": "nominal",
        "title": None,
        "scale": {"domain": ["training", "held-out"], "range": [BLUE, TEAL]},
        "legend": {"orient": "top-right", "symbolType": "stroke", "symbolStrokeWidth": 3},
    }
    shared = {"x": _steps(total_steps), "y": _values("loss (nats/token)", 5, ".2~g"), "color": color}
    held_out_only = [{"filter": "datum.of == 'held-out'"}]
    spec = {
        "height": 300,
        "encoding": shared,
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 2}},
            {"transform": held_out_only, "mark": {"type": "point", "filled": True, "size": 55, "opacity": 1}},
            _hover("loss (nats/token)", {"field": "of", "type": "nominal", "title": "on"}),
        ],
    }
    st.vega_lite_chart(_frame(rows), spec, width="stretch", key="chart.loss", alt=alt)


def small(curve: Curve, total_steps: int, axis: str, key: str, alt: str, *, thousands: bool = False) -> None:
    """One metric in a small chart; `axis` is its unit. `thousands` writes 8000 as 8k."""
    rows = [(step, value, "") for step, value in bucket(curve, MOST_POINTS // 4)]
    spec = {
        "height": 160,
        "encoding": {"x": _steps(total_steps), "y": _values(axis, 3, "~s" if thousands else ".2~g")},
        "layer": [{"mark": {"type": "line", "strokeWidth": 1.5, "color": BLUE}}, _hover(axis)],
    }
    st.vega_lite_chart(_frame(rows), spec, width="stretch", key=f"chart.{key}", alt=alt)


def _steps(total: int) -> dict[str, Any]:
    axis = {"title": "step (updates made)", "grid": False, "tickMinStep": 1, "format": ",d", "tickCount": 5}
    return {"field": "step", "type": "quantitative", "scale": {"domain": [0, max(1, total)], "nice": False}, "axis": axis}


def _values(title: str, ticks: int, form: str) -> dict[str, Any]:
    return {"field": "value", "type": "quantitative", "axis": {"title": title, "tickCount": ticks, "format": form}, "scale": {"zero": True}}


def _hover(title: str, *more: dict[str, Any]) -> dict[str, Any]:
    value = {"field": "value", "type": "quantitative", "title": title, "format": ".4~g"}
    tooltip = [{"field": "step", "type": "quantitative", "title": "step"}, value, *more]
    return {"mark": {"type": "point", "size": 120, "opacity": 0}, "encoding": {"tooltip": tooltip}}


def _frame(rows: list[tuple[int, float, str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["step", "value", "of"]).astype({"step": "int64", "value": "float64", "of": "object"})


def bars(found: list[dict[str, int]], across: str, up: str, mark: int | None, alt: str) -> None:
    """A histogram of {low, high, count}; `mark` draws a line at a limit."""
    edge = found[-1]["high"] if mark is None else max(mark, found[-1]["high"])
    x = {"field": "low", "type": "quantitative", "bin": "binned", "axis": {"title": across, "grid": False, "format": ",d", "tickCount": 8}}
    x["scale"] = {"domain": [0, edge], "nice": False}
    y = {"field": "count", "type": "quantitative", "axis": {"title": up, "tickCount": 4, "format": ",d", "tickMinStep": 1}}
    tooltip = [
        {"field": name, "type": "quantitative", "format": ",d", "title": title}
        for name, title in (("low", "from"), ("high", "below"), ("count", up))
    ]
    layer: list[dict[str, Any]] = [
        {"mark": {"type": "bar", "color": BLUE}, "encoding": {"x": x, "x2": {"field": "high"}, "y": y, "tooltip": tooltip}}
    ]
    if mark is not None:
        layer.append({"mark": {"type": "rule", "color": AMBER, "strokeWidth": 2, "strokeDash": [5, 4]}, "encoding": {"x": {"datum": mark}}})
    st.vega_lite_chart(pd.DataFrame(found), {"height": 220, "layer": layer}, width="stretch", key="chart.lengths", alt=alt)
