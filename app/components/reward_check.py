"""A test run of a reward or a judge on the screen: what is scored, how the scores are spread, each with its reason, what is wrong."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import services, session
from app.components import charts, trouble, words
from engine.amounts import duration

if TYPE_CHECKING:
    from engine.rewards import RewardCheck

_SOURCES = {
    "expected": "the rows' own answers",
    "typed": "answers that I type",
    "sampled": "answers of the model as it is now",
}
_CUT = 300


def show(changes: dict[str, Any], parts: Any, stem: str, *, judge: bool) -> None:
    """What to score, the button, and what came of it. `stem` tells the editor apart that `parts` stand in."""
    st.markdown("### Try it out", anchors=False)
    st.caption("Before a run spends anything: does it score better answers higher?")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        source = st.selectbox("What to score", list(_SOURCES), format_func=_SOURCES.get, key=f"{stem}-source", width=280)
        rows = int(st.number_input("Rows", 1, 100, 8, key=f"{stem}-rows", width=120))
        tries = 4
        if source == "sampled":
            tries = int(st.number_input("Answers for each", 2, 16, 4, key=f"{stem}-tries", width=140))
    typed: list[str] = []
    if source == "typed":
        text = st.text_area("Answers, one a line: the first to the first row, and so on", key=f"{stem}-typed", height=110)
        typed = [line for line in text.splitlines() if line.strip()]
    about = [changes.get(name) for name in ("data", "profile", "rl", "start", "base_model")]
    tried = json.dumps([parts, *about, source, rows, tries, typed])
    lacking = not (changes.get("data") or {}) or (source == "typed" and not typed)
    if st.button("Test-run", key=f"{stem}-test", icon=":material/science:", disabled=lacking):
        _run(changes, {"rows": rows, "answers": typed, "source": source, "tries": tries, "judge": judge}, stem, tried)
    if not changes.get("data"):
        st.caption("Choose data first: it is tried on its rows.")
    kept = session.reward_check(stem)
    if kept is None:
        return
    if kept[0] != tried:
        st.caption("What is below was tried before the last change.")
    _result(kept[1], judge)


def _run(changes: dict[str, Any], how: dict[str, Any], stem: str, tried: str) -> None:
    with trouble.boundary(), st.status("Reading the data", expanded=False) as status:
        try:
            found = services.engine().rewards.check(changes, say=lambda text: status.update(label=words.sentence(text)), **how)
        except Exception:
            status.update(label="It can't be tried like this", state="error")
            raise
        status.update(label=f"{len(found.scored):,} answers scored in {_took(found.seconds)}", state="complete")
        session.keep_reward_check(stem, tried, found)


def _result(found: RewardCheck, judge: bool) -> None:
    for warning in found.warnings:
        st.warning(words.literal(warning), icon=":material/warning:")
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.markdown(f"**{_finding(found)}**")
        alt = f"Histogram of {len(found.scored)} scores from {words.figure(found.lowest)} to {words.figure(found.highest)}"
        charts.scores(found.bins, alt)
        st.caption(_cost(found, judge))
    with right:
        st.dataframe(_table(found), hide_index=True, alt="Each answer with its score and the reason", height=330)


def _finding(found: RewardCheck) -> str:
    by_source: dict[str, list[float]] = {}
    for one in found.scored:
        by_source.setdefault(one.source, []).append(one.score.value)
    means = [f"{words.figure(sum(values) / len(values))} for {source}" for source, values in by_source.items()]
    return f"Mean score: {', '.join(means)}. From {words.figure(found.lowest)} to {words.figure(found.highest)}."


def _cost(found: RewardCheck, judge: bool) -> str:
    calls = f", {found.calls:,} requests to models with {found.tokens:,} tokens" if found.calls else ""
    whole = "Both sides of the proof" if judge else "One step of the run"
    return f"Scoring took {_took(found.seconds)}{calls}. {whole} would take {_took(found.step_seconds)}."


def _took(seconds: float) -> str:
    return duration(seconds) if seconds >= 0.1 else "less than 0.1 s"


def _table(found: RewardCheck) -> list[dict[str, Any]]:
    several = len(found.scored[0].score.parts) > 1
    return [
        {
            "score": round(one.score.value, 4),
            "answer": one.answer[:_CUT],
            "why": one.score.note[:_CUT],
            **({name: round(value, 4) for name, value in one.score.parts.items()} if several else {}),
            "expected": one.expected[:_CUT],
            "prompt": one.prompt[:_CUT],
            "answer is": one.source,
            "row": one.row,
        }
        for one in found.scored
    ]
