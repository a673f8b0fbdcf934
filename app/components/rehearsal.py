"""A recipe tried small before it is launched: the button, the looks as they are taken, the stamp. Knows no way of trying."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import services
from app.components import trouble, words
from engine import Engine, Recipe
from engine.amounts import duration

if TYPE_CHECKING:
    from engine.store import Job, Rehearsal

_ICONS = {
    "ok": ":green[:material/check_circle:]",
    "care": ":orange[:material/warning:]",
    "failed": ":red[:material/error:]",
    "skipped": ":gray[:material/remove:]",
    "running": ":blue[:material/pending:]",
}
_WHAT = (
    "Runs all of it small, on this machine: every stage for a few updates with some of your rows, saving, going on, testing. "
    "Judges and teachers are asked a few questions. Nothing of it is kept but what it found."
)


def panel(recipe: Recipe, plan: Any) -> None:
    """The button with its reason; or what the rehearsal of this very recipe says, as it goes or as it went."""
    engine = services.engine()
    found = engine.rehearsals.latest(recipe)
    with st.container(border=True):
        if found is None:
            st.markdown("**Rehearse it first?**")
            if reason := engine.rehearsals.advised(recipe.endpoint, plan.estimates):
                st.markdown(f":orange-badge[recommended] {words.literal(reason)}")
            st.caption(_WHAT)
            _button("Rehearse", recipe)
            return
        moving = not found.over
        st.fragment(_going, run_every=1 if moving else None)(found.id, moving, recipe)


def badge(engine: Engine, job: Job) -> None:
    """On a run's page: that its recipe had been rehearsed. Nothing where it wasn't."""
    stamp = engine.rehearsals.stamp_of(job)
    if stamp is not None and stamp.ended_at is not None:
        before = duration(max(1, round(job.created_at - stamp.ended_at)))
        st.caption(f":green[:material/verified:] Rehearsed {before} before it was launched, on {words.literal(stamp.report['model'])}.")


def _going(rehearsal_id: str, moving: bool, recipe: Recipe) -> None:
    with trouble.boundary():
        engine = services.engine()
        found = engine.rehearsals.get(rehearsal_id)
        if found.over == moving:
            st.rerun()
        _headline(found)
        looks = engine.rehearsals.checks(found.id)
        several = len(recipe.stages()) > 1
        if moving:
            for check in looks:
                _look(engine, check, several)
            st.button(
                "Stop the rehearsal", key="rehearsal-stop", on_click=trouble.attempt, args=(lambda: engine.rehearsals.stop(found.id),)
            )
            return
        wrong = [check for check in looks if check.state in ("failed", "care")]
        for check in wrong:
            _look(engine, check, several)
        with st.expander(f"All that was looked at ({len(looks)})", key="rehearsal-all", on_change="rerun") as more:
            if more.open:
                for check in looks:
                    _look(engine, check, several)
                _details(found)
        _button("Rehearse again", recipe)


def _headline(found: Rehearsal) -> None:
    ago = words.ago(time.time() - (found.ended_at or found.created_at))
    lines = {
        "running": ":blue-badge[● rehearsing] All of it, small.",
        "passed": f":green-badge[✓ rehearsed] {ago}. Nothing was found that stands in the way of this run. "
        "Any change takes this stamp away.",
        "checked": f":green-badge[✓ looked at] {ago}. All that could be looked at here is in order; nothing was learned, for PyTorch isn't "
        "installed on this machine.",
        "failed": f":red-badge[✗ would fail] {ago}. Correct what is marked red, then rehearse again.",
        "stopped": f":gray-badge[stopped] {ago}.",
        "lost": f":orange-badge[cut off] {ago}. Its process ended before it could say more.",
    }
    st.markdown(f"**Rehearsal** {lines[found.state]}")


def _look(engine: Engine, check: Any, several: bool) -> None:
    told = engine.policy.told
    stage = f" (stage {check.stage})" if check.stage and several else ""
    text = f"{_ICONS[check.state]} **{words.literal(check.title)}{stage}**"
    if check.text:
        text += f"  \n{words.literal(words.sentence(told(check.text)))}"
    if check.state in ("failed", "care"):
        hints = [
            part for part in (check.where and f"Where: {told(check.where)}.", check.advice and f"What to do: {told(check.advice)}") if part
        ]
        text += f"  \n:gray[{words.literal(' '.join(hints))}]" if hints else ""
    st.markdown(text)


def _details(found: Rehearsal) -> None:
    report = found.report
    if report.get("steps"):
        st.markdown("**An update**")
        for steps in report["steps"]:
            took = f"; small, on {words.literal(steps['on'])}, one took {steps['seconds']:.2g} s" if "seconds" in steps else ""
            st.markdown(f"Stage {steps['stage']}: {steps['steps']:,} updates of about {steps['tokens']:,} tokens{took}.")
    if report.get("rendered"):
        st.markdown("**Rows as your own model is shown them** :gray[(green is learned)]")
        for shown in report["rendered"]:
            pieces = [f":green[{_visible(text)}]" if learned else _visible(text) for text, learned in shown["pieces"] if text]
            side = f", the {shown['side']} answer" if shown["side"] else ""
            expected = f", expected: {words.literal(shown['expected'])}" if shown["expected"] else ""
            st.markdown(
                f"{' '.join(pieces)}  \n:gray[Stage {shown['stage']}, row {shown['row']:,}{side}, {shown['tokens']:,} tokens{expected}]"
            )
    if report.get("answers"):
        st.markdown(f"**What {words.literal(report['model'])} said in the end** :gray[(it learned for a few updates only)]")
        for said in report["answers"]:
            st.markdown(f":gray[{words.literal(said['prompt'][:200])}] {words.code(said['answer'])}")


def _visible(text: str) -> str:
    return words.literal(text.replace("\n", " ⏎ ")) or "␣"


def _button(label: str, recipe: Recipe) -> None:
    start = services.engine().rehearsals.start
    if st.button(label, key="rehearse", icon=":material/theater_comedy:"):
        trouble.attempt(lambda: start(recipe))
        # All of the page: what is redrawn by itself goes on showing the rehearsal that it was drawn for.
        st.rerun()
