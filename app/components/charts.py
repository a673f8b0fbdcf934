"""Charts of runs, as Vega-Lite specifications that stay the same from tick to tick: only the data changes, so nothing flickers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import streamlit as st

from engine.evaluation.curves import Curve, smoothed, thinned
from engine.evaluation.doctor import Band

BLUE, TEAL, AMBER, GRAY = "#0ea5e9", "#14b8a6", "#f59e0b", "#a3a3a3"
COLORS = ("#0ea5e9", "#14b8a6", "#f59e0b", "#f43f5e", "#a78bfa", "#84cc16", "#e879f9", "#fb923c", "#67e8f9", "#d4d4d4")
MOST_POINTS = 800
_OF_BAND, _OF_BEGIN = "healthy", "begin"

# Steps, values, and what they are of.
Rows = tuple[np.ndarray, np.ndarray, str]
# Steps at which something begins, with what it is called.
Marks = Sequence[tuple[int, str]]


def main(
    train: Curve,
    held_out: Curve,
    total_steps: int,
    axis: str,
    key: str,
    alt: str,
    *,
    window: int = 1,
    log: bool = False,
    band: Band | None = None,
    begins: Marks = (),
) -> None:
    """What a run is judged by over the steps, in training and held out; the training curve as the mean of `window` steps, and as it was
    behind it. `begins` are the steps at which its stages begin, with their names."""
    parts = [_rows(train, MOST_POINTS * 3 // 4, "training", window), _rows(held_out, MOST_POINTS // 4, "held-out")]
    if window > 1:
        parts.append(_rows(train, MOST_POINTS // 2, "raw"))
    frame = _joined(parts, band, log, begins)
    # Above the curves: inside, there is no corner that every curve stays clear of.
    color = _twins("top")
    lines = {"filter": "datum.of == 'training' || datum.of == 'held-out'"}
    spec = {
        "height": 300,
        "encoding": {"x": _steps(total_steps), "y": _values(axis, 5, ".2~g", log)},
        "layer": [
            _band_layer(TEAL),
            *_begin_layers(),
            {"transform": [{"filter": "datum.of == 'raw'"}], "mark": {"type": "line", "strokeWidth": 1, "opacity": 0.3, "color": BLUE}},
            {"transform": [lines], "mark": {"type": "line", "strokeWidth": 2}, "encoding": {"color": color}},
            _points(color, 55),
            _hover(axis, lines, {"field": "of", "type": "nominal", "title": "on"}),
        ],
    }
    _draw(frame, spec, f"chart.main.{key}.{log:d}", alt)


def small(
    curve: Curve,
    total_steps: int,
    axis: str,
    key: str,
    alt: str,
    *,
    held_out: Curve | None = None,
    thousands: bool = False,
    band: Band | None = None,
    begins: Marks = (),
) -> None:
    """One metric in a small chart, with what it is on held-out data where that is measured too; `axis` is its unit. `thousands` writes
    8000 as 8k."""
    parts = [_rows(curve, MOST_POINTS // 4, "training")]
    if held_out is not None:
        parts.append(_rows(held_out, MOST_POINTS // 8, "held-out"))
    frame = _joined(parts, band, False, begins)
    lines = {"filter": "datum.of == 'training' || datum.of == 'held-out'"}
    # Which is which stands in colour above it: a legend would leave no room for the curves.
    color: dict[str, Any] = {**_twins("bottom"), "legend": None} if held_out is not None else {"value": BLUE}
    spec = {
        "height": 160,
        "encoding": {"x": _steps(total_steps), "y": _values(axis, 3, "~s" if thousands else ".3~g")},
        "layer": [
            _band_layer(TEAL),
            *_begin_layers(names=False),
            {"transform": [lines], "mark": {"type": "line", "strokeWidth": 1.5}, "encoding": {"color": color}},
            *([_points(color, 30)] if held_out is not None else []),
            _hover(axis, lines, *([{"field": "of", "type": "nominal", "title": "on"}] if held_out is not None else [])),
        ],
    }
    _draw(frame, spec, f"chart.{key}", alt)


def overlay(
    curves: Mapping[str, Sequence[tuple[float, float]]], along: str, title: str, alt: str, *, window: int = 1, log: bool = False
) -> None:
    """One metric of several runs, each under its own name."""
    parts = []
    for name, points in curves.items():
        where = np.array([point[0] for point in points], float)
        values = np.array([point[1] for point in points], float)
        kept = np.isfinite(values) & ((values > 0) | (not log))
        where, values = thinned(where[kept], smoothed(values[kept], window), max(100, 4000 // len(curves)))
        parts.append((where, values, name))
    frame = _joined(parts) if parts else pa.table({"step": [], "value": [], "of": []})
    x = {"field": "step", "type": "quantitative", "axis": {"title": along, "grid": False, "format": "~s", "tickCount": 6}}
    color = {
        "field": "of",
        "type": "nominal",
        "title": None,
        "scale": {"domain": list(curves), "range": [COLORS[n % len(COLORS)] for n in range(len(curves))]},
        "legend": {"orient": "bottom", "columns": 2, "labelLimit": 260, "symbolType": "stroke", "symbolStrokeWidth": 3},
    }
    near = {**_hover(title, {"filter": "true"}, {"field": "of", "type": "nominal", "title": "run"})}
    near["encoding"]["tooltip"][0] = {"field": "step", "type": "quantitative", "title": along, "format": ",.4~g"}
    spec = {
        "height": 380,
        "encoding": {"x": x, "y": _values(title, 6, ".3~g", log), "color": color},
        "layer": [{"mark": {"type": "line", "strokeWidth": 2}}, near],
    }
    _draw(frame, spec, f"chart.overlay.{log:d}", alt)


def beside(points: Curve, marks: Sequence[int], axis: str, alt: str) -> None:
    """A curve with the steps at which something was saved marked on it, as far as it goes; `axis` is what it is of."""
    marks = [step for step in marks if points[0][0] <= step <= points[-1][0]]
    frame = _joined([_rows(points, MOST_POINTS // 4, ""), (np.array(marks), np.interp(marks, *points.finite()), "saved")])
    spec = {
        "height": 220,
        "encoding": {"x": _steps(int(points[-1][0])), "y": _values(axis, 4, ".2~g")},
        "layer": [
            {"transform": [{"filter": "datum.of == ''"}], "mark": {"type": "line", "strokeWidth": 2, "color": TEAL}},
            {
                "transform": [{"filter": "datum.of == 'saved'"}],
                "mark": {"type": "point", "filled": True, "size": 90, "color": BLUE, "opacity": 1},
            },
            _hover(axis, {"filter": "true"}),
        ],
    }
    _draw(frame, spec, "chart.travel", alt)


def sparkline(values: Sequence[float], color: str = BLUE) -> str:
    """A curve in miniature as SVG text, empty for fewer than two numbers."""
    points = [value for value in values if math.isfinite(value)]
    if len(points) < 2:
        return ""
    low, high = min(points), max(points)
    span = (high - low) or 1.0
    width, height, edge = 140, 32, 3
    step = (width - 2 * edge) / (len(points) - 1)
    line = " ".join(f"{edge + n * step:.1f},{edge + (height - 2 * edge) * (high - value) / span:.1f}" for n, value in enumerate(points))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2" stroke-linejoin="round" stroke-linecap="round"/></svg>'
    )


def _draw(frame: pa.Table, spec: dict[str, Any], key: str, alt: str) -> None:
    # `alt` says what is to be seen; each line and axis as an image of its own, without words, would only be in the way of a reader.
    layers = [{**layer, "mark": {**layer["mark"], "aria": False}} for layer in spec["layer"]]
    st.vega_lite_chart(frame, {**spec, "layer": layers}, width="stretch", key=key, alt=alt)


def _rows(curve: Curve, limit: int, of: str, window: int = 1) -> Rows:
    steps, values = curve.finite()
    return (*thinned(steps, smoothed(values, window), limit), of)


def _joined(parts: list[Rows], band: Band | None = None, log: bool = False, begins: Marks = ()) -> pa.Table:
    """One table for the chart, the healthy range in it as far as the numbers reach: a wide one mustn't flatten the curve."""
    if log:
        parts = [(steps[values > 0], values[values > 0], of) for steps, values, of in parts]
    steps = np.concatenate([steps for steps, _, _ in parts]).astype(float)
    values = np.concatenate([values for _, values, _ in parts]).astype(float)
    names = [name for _, found, of in parts for name in (of,) * len(found)]
    high = np.full(len(values), np.nan)
    if band is not None and len(values):
        top = 1.1 * float(values.max())
        low = max(band.low or 0.0, float(values.min()) if log else 0.0)
        upper = min(band.high if band.high is not None else top, top)
        if upper > low:
            steps, values = np.append(steps, steps[0]), np.append(values, low)
            names, high = [*names, _OF_BAND], np.append(high, upper)
    if begins:
        # In the table too, so that the specification stays the same when a stage begins.
        none = np.full(len(begins), np.nan)
        steps, values, high = np.append(steps, [step for step, _ in begins]), np.append(values, none), np.append(high, none)
    labels = [""] * len(names) + [name for _, name in begins]
    names = [*names, *[_OF_BEGIN] * len(begins)]
    # As Arrow, which is what goes over the wire: by way of pandas it takes four times as long, every second.
    table = {"step": steps, "value": pa.array(values, from_pandas=True), "of": pa.array(names, pa.string()), "high": high}
    return pa.table(table | ({"label": pa.array(labels, pa.string())} if begins else {}))


def _band_layer(color: str) -> dict[str, Any]:
    return {
        "transform": [{"filter": f"datum.of == '{_OF_BAND}'"}],
        "mark": {"type": "rect", "color": color, "opacity": 0.13},
        "encoding": {"x": {"value": 0}, "x2": {"value": "width"}, "y2": {"field": "high"}},
    }


def _begin_layers(*, names: bool = True) -> list[dict[str, Any]]:
    """A dashed line where a stage begins, and its name beside it."""
    of_them = {"transform": [{"filter": f"datum.of == '{_OF_BEGIN}'"}]}
    whole = {"y": {"value": 0}, "y2": {"value": "height"}}
    rule = {**of_them, "mark": {"type": "rule", "color": GRAY, "strokeWidth": 1, "strokeDash": [4, 4]}, "encoding": whole}
    if not names:
        return [rule]
    text = {"type": "text", "align": "left", "baseline": "top", "dx": 5, "dy": 2, "fontSize": 11, "limit": 150, "color": GRAY}
    return [rule, {**of_them, "mark": text, "encoding": {"y": {"value": 0}, "text": {"field": "label"}}}]


def _twins(legend: str) -> dict[str, Any]:
    return {
        "field": "of",
        "type": "nominal",
        "title": None,
        "scale": {"domain": ["training", "held-out"], "range": [BLUE, TEAL]},
        "legend": {"orient": legend, "symbolType": "stroke", "symbolStrokeWidth": 3},
    }


def _points(color: dict[str, Any], size: int) -> dict[str, Any]:
    """Held-out numbers are few: each is seen."""
    mark = {"type": "point", "filled": True, "size": size, "opacity": 1}
    return {"transform": [{"filter": "datum.of == 'held-out'"}], "mark": mark, "encoding": {"color": color}}


def _steps(total: int) -> dict[str, Any]:
    axis = {"title": "step (updates made)", "grid": False, "tickMinStep": 1, "format": ",d", "tickCount": 5}
    return {"field": "step", "type": "quantitative", "scale": {"domain": [0, max(1, total)], "nice": False}, "axis": axis}


def _values(title: str, ticks: int, form: str, log: bool = False) -> dict[str, Any]:
    scale = {"type": "log"} if log else {"zero": True}
    return {"field": "value", "type": "quantitative", "axis": {"title": title, "tickCount": ticks, "format": form}, "scale": scale}


def _hover(title: str, of: dict[str, Any], *more: dict[str, Any]) -> dict[str, Any]:
    value = {"field": "value", "type": "quantitative", "title": title, "format": ".4~g"}
    tooltip = [{"field": "step", "type": "quantitative", "title": "step"}, value, *more]
    return {"transform": [of], "mark": {"type": "point", "size": 120, "opacity": 0}, "encoding": {"tooltip": tooltip}}


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
    _draw(pa.Table.from_pylist(found), {"height": 220, "layer": layer}, "chart.lengths", alt)


def scores(found: Sequence[Mapping[str, float]], alt: str) -> None:
    """How scores are spread: a histogram of {low, high, count}."""
    x = {"field": "low", "type": "quantitative", "bin": "binned", "axis": {"title": "score", "grid": False, "format": "~g", "tickCount": 6}}
    x["scale"] = {"domain": [found[0]["low"], found[-1]["high"]], "nice": False}
    y = {"field": "count", "type": "quantitative", "axis": {"title": "answers", "tickCount": 4, "format": ",d", "tickMinStep": 1}}
    tooltip = [{"field": name, "type": "quantitative", "format": "~g", "title": title} for name, title in (("low", "from"), ("high", "to"))]
    tooltip.append({"field": "count", "type": "quantitative", "format": ",d", "title": "answers"})
    bar = {"mark": {"type": "bar", "color": BLUE}, "encoding": {"x": x, "x2": {"field": "high"}, "y": y, "tooltip": tooltip}}
    _draw(pa.Table.from_pylist([dict(one) for one in found]), {"height": 200, "layer": [bar]}, "chart.scores", alt)
