"""A test run of a reward on the screen: what is scored, how the scores are spread, each with its reason, and what is wrong with them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import services, session
from app.components import charts, trouble, words

if TYPE_CHECKING:
    from engine.rewards import RewardCheck

_SOURCES = {
    "expected": "the rows' own answers",
    "typed": "answers that I type",
    "sampled": "answers of the model as it is now",
}
_CUT = 300


def show(changes: dict[str, Any], place: str = "wizard") -> None:
    """What to score, the button, and what came of it."""
    st.markdown("### Try it out", anchors=False)
    st.caption("Before a run spends anything: does it score better answers higher?")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        source = st.selectbox("What to score", list(_SOURCES), format_func=_SOURCES.get, key=f"{place}-reward-source", width=280)
        rows = int(st.number_input("Rows", 1, 100, 8, key=f"{place}-reward-rows", width=120))
        tries = 4
        if source == "sampled":
            tries = int(st.number_input("Answers for each", 2, 16, 4, key=f"{place}-reward-tries", width=140))
    typed: list[str] = []
    if source == "typed":
        text = st.text_area("Answers, one a line: the first to the first row, and so on", key=f"{place}-reward-typed", height=110)
        typed = [line for line in text.splitlines() if line.strip()]
    tried = json.dumps([changes.get(name) for name in ("reward", "data", "rl", "start", "base_model")] + [source, rows, tries, typed])
    lacking = not (changes.get("data") or {}) or (source == "typed" and not typed)
    if st.button("Test-run", key=f"{place}-reward-test", icon=":material/science:", disabled=lacking):
        _run(changes, {"rows": rows, "answers": typed, "source": source, "tries": tries}, tried)
    if not changes.get("data"):
        st.caption("Choose data first: the reward is tried on its rows.")
    kept = session.reward_check()
    if kept is None:
        return
    if kept[0] != tried:
        st.caption("What is below was tried before the last change.")
    _result(kept[1])


def _run(changes: dict[str, Any], how: dict[str, Any], tried: str) -> None:
    with trouble.boundary(), st.status("Reading the data", expanded=False) as status:
        try:
            found = services.engine().rewards.check(changes, say=lambda text: status.update(label=words.sentence(text)), **how)
        except Exception:
            status.update(label="It can't be tried like this", state="error")
            raise
        status.update(label=f"{len(found.scored):,} answers scored in {words.figure(found.seconds)} s", state="complete")
        session.keep_reward_check(tried, found)


def _result(found: RewardCheck) -> None:
    for warning in found.warnings:
        st.warning(words.literal(warning), icon=":material/warning:")
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.markdown(f"**{_finding(found)}**")
        alt = f"Histogram of {len(found.scored)} scores from {words.figure(found.lowest)} to {words.figure(found.highest)}"
        charts.scores(found.bins, alt)
        st.caption(_cost(found))
    with right:
        st.dataframe(_table(found), hide_index=True, alt="Each answer with its score and the reason", height=330)


def _finding(found: RewardCheck) -> str:
    by_source: dict[str, list[float]] = {}
    for one in found.scored:
        by_source.setdefault(one.source, []).append(one.score.value)
    means = [f"{words.figure(sum(values) / len(values))} for {source}" for source, values in by_source.items()]
    return f"Mean score: {', '.join(means)}. From {words.figure(found.lowest)} to {words.figure(found.highest)}."


def _cost(found: RewardCheck) -> str:
    calls = f", {found.calls:,} requests to models with {found.tokens:,} tokens" if found.calls else ""
    return (
        f"Scoring took {words.figure(found.seconds)} s{calls}. One step of the run would take about {words.figure(found.step_seconds)} s."
    )


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
