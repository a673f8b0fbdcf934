"""All runs with their key figures, and any number of them over each other. What is chosen stands in the address."""

from __future__ import annotations

import csv
import io
import time
from typing import Any

import pandas as pd
import streamlit as st

from app import address, navigation, services, session
from app.components import analytics_cards, charts, choices, explain, words
from engine import Engine
from engine.amounts import duration
from engine.runs import telling

_ALONG = {"step": "step (updates made)", "tokens": "tokens trained on", "seconds": "seconds in training"}
_ALONG_LABELS = {"step": "step", "tokens": "tokens", "seconds": "time"}
_WINDOWS = {"as it is": 1, "5 points": 5, "20 points": 20, "100 points": 100}


def show() -> None:
    """Totals, the table, and the runs that were picked in it over each other."""
    engine = services.engine()
    st.title("Analytics", anchor=False)
    totals = engine.runs.totals()
    if not totals["runs"]:
        st.markdown("Every run will stand here with its key figures: how right it was before and after, its losses, what it took.")
        st.markdown("Pick some of them, and their curves are drawn over each other, with only the settings in which they differ.")
        navigation.link(navigation.TRAINING, "Train something first")
        return
    with st.grid(4, min_column_width=140):
        st.metric("Runs", f"`{totals['runs']:,}`")
        st.metric("Finished", f"`{totals['finished']:,}`")
        st.metric("Tokens trained on", f"`{_thousands(totals['tokens'])}`", help=explain.meaning(engine, "tokens"))
        st.metric("Time in training", f"`{duration(totals['seconds'])}`", help=explain.meaning(engine, "seconds"))
    rows = _rows(engine)
    picked = _table(engine, rows)
    if not picked:
        st.info("Pick runs by their boxes to draw them over each other.", icon=":material/compare_arrows:")
        return
    _compare(engine, picked, {row["id"]: row for row in rows})


def _rows(engine: Engine) -> list[dict[str, Any]]:
    rows = engine.runs.table(session.figures())
    session.keep_figures(rows)
    return rows


def _table(engine: Engine, rows: list[dict[str, Any]]) -> list[str]:
    """-> the ids that are picked, those of the address first."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        search = st.text_input(
            "Search", key="search", bind="query-params", placeholder="Name, id, model or method", icon=":material/search:", width=280
        )
        labels = {state: engine.light(state).label for state in dict.fromkeys(row["state"] for row in rows)}
        chosen = st.multiselect("State", list(labels), format_func=labels.get, key="states", bind="query-params", width=280)
        wanted = [row for row in rows if _fits(row, search, chosen)]
        view = analytics_cards.view()
        st.download_button(
            "Table (CSV)", lambda: _csv(wanted), "runs.csv", "text/csv", icon=":material/download:", on_click="ignore", key="csv"
        )
    known = {row["id"] for row in rows}
    picked = [job_id for job_id in st.query_params.get("runs", "").split(",") if job_id in known]
    if not wanted:
        st.info("No run is like that. Search for something else.", icon=":material/search_off:")
        return picked
    if view == "cards":
        return analytics_cards.show(engine, wanted, picked)
    places = {row["id"]: place for place, row in enumerate(wanted)}
    # A table that shows other rows is another table: what is picked in it is said anew.
    key = f"table.{hash((search, tuple(chosen), len(wanted)))}"
    st.dataframe(
        _frame(engine, wanted),
        hide_index=True,
        height=min(430, 38 + 36 * len(wanted)),
        key=key,
        on_select=lambda: _note(key, wanted, picked),
        selection_mode="multi-row",
        selection_default={"selection": {"rows": [places[job_id] for job_id in picked if job_id in places], "columns": [], "cells": []}},
        column_config=_columns(engine),
        placeholder="–",
        alt="All runs with their key figures",
    )
    st.caption(f"{len(wanted):,} of {len(rows):,} runs; {len(picked)} picked." if picked else f"{len(wanted):,} of {len(rows):,} runs.")
    return picked


def _note(key: str, shown: list[dict[str, Any]], before: list[str]) -> None:
    """What is picked now goes into the address; what is picked but not shown stays picked."""
    rows = st.session_state[key]["selection"]["rows"]
    now = [shown[row]["id"] for row in rows if row < len(shown)]
    visible = {row["id"] for row in shown}
    kept = [job_id for job_id in before if job_id not in visible or job_id in now]
    picked = [*kept, *(job_id for job_id in now if job_id not in kept)]
    analytics_cards.keep(picked)


def _compare(engine: Engine, picked: list[str], rows: dict[str, dict[str, Any]]) -> None:
    names = _names(picked, rows)
    st.header(f"{len(picked)} runs compared" if len(picked) > 1 else names[picked[0]], anchor=False)
    metrics = engine.runs.metric_names(picked)
    if not metrics:
        st.caption("None of these has measured anything yet.")
    else:
        _curves(engine, picked, names, metrics)
    if len(picked) > 1:
        _differences(engine, picked, names)
    with st.container(horizontal=True):
        for job_id in picked[:8]:
            navigation.link_to_run(job_id, f"Open {names[job_id]}")


def _curves(engine: Engine, picked: list[str], names: dict[str, str], metrics: list[str]) -> None:
    titles = {metric: explain.title(engine, metric) for metric in metrics}
    usual = next((metric for metric in engine.runs.judged_by(picked) if metric in metrics), metrics[0])
    with st.container(horizontal=True, vertical_alignment="bottom"):
        at = metrics.index(address.chosen("y", metrics, usual))
        metric = st.selectbox(
            "What",
            metrics,
            index=at,
            format_func=lambda name: titles[name][0],
            key="what",
            on_change=address.keep,
            args=("y", "what", usual),
            width=200,
        )
        along = choices.segments(
            "Along",
            list(_ALONG),
            default=address.chosen("x", list(_ALONG), "step"),
            format_func=_ALONG_LABELS.__getitem__,
            key="along",
            on_change=address.keep,
            args=("x", "along", "step"),
        )
        window = st.selectbox("Smoothing", list(_WINDOWS), key="smooth", bind="query-params", width=140)
        log = st.toggle("Log scale", key="log", bind="query-params")
        curves = engine.runs.overlay(picked, metric, along)
        told = {names[job_id]: points for job_id, points in curves.items() if points}
        st.download_button(
            "Curves (CSV)", lambda: _curves_csv(told, along), "curves.csv", "text/csv", icon=":material/download:", on_click="ignore"
        )
    title, unit = titles[metric]
    st.markdown(f"### {words.literal(_finding(engine, metric, told))}", help=explain.meaning(engine, metric), anchors=False)
    axis = f"{title.lower()} ({unit})" if unit else title.lower()
    charts.overlay(told, _ALONG[along], axis, f"{title} of {len(told)} runs along {_ALONG[along]}", window=_WINDOWS[window], log=log)
    silent = [names[job_id] for job_id in picked if names[job_id] not in told]
    if silent:
        st.caption(f"Not measured in: {', '.join(map(words.literal, silent))}")


def _finding(engine: Engine, metric: str, curves: dict[str, Any]) -> str:
    title, unit = explain.title(engine, metric)
    ends = {name: points[-1][1] for name, points in curves.items() if points[-1][1] == points[-1][1]}
    better = engine.runs.better(metric)
    if not ends:
        return title
    if len(ends) < 2 or better == "neither":
        return title if len(ends) > 1 else f"{title}: {words.measure(next(iter(ends.values())), unit)} at the end"
    best = (max if better == "up" else min)(ends, key=lambda name: ends[name])
    return f"{title} ended {'highest' if better == 'up' else 'lowest'} in {best}: {words.measure(ends[best], unit)}"


def _differences(engine: Engine, picked: list[str], names: dict[str, str]) -> None:
    st.markdown("### What they differ in", help="Only settings that aren't the same in all of them.", anchors=False)
    found = engine.runs.differences(picked)
    if not found:
        st.caption("Nothing: the same recipe.")
        return
    rows = [{"setting": row["field"], **{names[job_id]: _value(value) for job_id, value in row["values"].items()}} for row in found]
    st.dataframe(rows, hide_index=True, height=min(400, 38 + 36 * len(rows)), alt="Settings in which the picked runs differ")
    with st.expander("What these settings are"):
        st.markdown("\n".join(f"- `{row['field']}`: {row['help']}" for row in found))


def _fits(row: dict[str, Any], search: str, states: list[str]) -> bool:
    text = search.strip().lower()
    return (not states or row["state"] in states) and (
        not text or any(text in str(row[name]).lower() for name in ("name", "id", "model", "method"))
    )


def _names(picked: list[str], rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    """By name; where two are called the same, by name and id."""
    names = [rows[job_id]["name"] for job_id in picked]
    return {job_id: name if names.count(name) == 1 else f"{name} ({job_id[:5]})" for job_id, name in zip(picked, names, strict=True)}


def _frame(engine: Engine, rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    frame["state"] = [engine.light(state).label for state in frame["state"]]
    for share in ("before", "after", "skills", *_shares(engine)):
        # Rounded here as everywhere else: the table's own way differs by a tenth where a five comes after.
        frame[share] = (pd.to_numeric(frame[share]) * 100).round(1)
    # A column for each method's numbers would be mostly empty: only those that some run has.
    frame = frame.drop(columns=[name for name in telling() if frame[name].isna().all()])
    frame["created_at"] = [time.strftime("%Y-%m-%d %H:%M", time.localtime(at)) for at in frame["created_at"]]
    return frame.drop(columns=["id"]).assign(id=frame["id"])


def _shares(engine: Engine) -> list[str]:
    return [name for name in telling() if explain.title(engine, name)[1] == "share"]


def _columns(engine: Engine) -> dict[str, Any]:
    shares = _shares(engine)
    number, text = st.column_config.NumberColumn, st.column_config.TextColumn
    return {
        "name": text("Name", pinned=True),
        "state": text("State"),
        "method": text("Method"),
        "model": text("Model"),
        "proof": text("Proof", help="On held-out prompts, before and after training: right answers or a score, and wins."),
        "before": number("Right before", format="%.1f %%", help="Exact match on held-out prompts, before training."),
        "after": number("Right after", format="%.1f %%", help="Exact match on held-out prompts, after training."),
        "skills": number("General skills", format="%.1f %%", help="What it could do before and still can."),
        **{
            name: number(explain.title(engine, name)[0], format="%.1f %%" if name in shares else "%.4g", help=explain.meaning(engine, name))
            for name in telling()
        },
        "tokens": number("Tokens", format="compact"),
        "seconds": number("Seconds", format="%.1f"),
        "steps": number("Steps"),
        "rate": number("Learning rate", format="%.2g"),
        "rank": number("LoRA rank"),
        "batch": number("Batch size"),
        "created_at": text("Started"),
        "id": text("Run"),
    }


def _value(value: Any) -> str:
    return "empty" if value in ("", None, [], {}) else f"{value:g}" if isinstance(value, float) else str(value)


def _thousands(number: float) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if number >= size:
            return f"{number / (size if letter != 'k' else 1e3):.3g} {letter}"
    return f"{number:,.0f}"


def _csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def _curves_csv(curves: dict[str, Any], along: str) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", along, "value"])
    writer.writerows([name, *point] for name, points in curves.items() for point in points)
    return text.getvalue()
