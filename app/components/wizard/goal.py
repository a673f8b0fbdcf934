"""Step 1: what it is for. Cards of the goals that there are, and what the chosen one means, needs and does."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app.components import words
from app.components.wizard import frame
from engine import Recipe, knowledge
from engine.recipe import method_parts

_LAST = len(frame.STEPS) - 1


def show(draft: Any) -> None:
    """The cards."""
    goals = frame.engine().planner.goals()
    st.markdown("## What should the model learn?", anchors=False)
    st.caption("This decides how it is trained, and what your examples should look like.")
    with st.grid(2, min_column_width=300, gap="medium") as grid:
        for name, goal in goals.items():
            with grid.cell(), st.container(border=True, height="stretch"):
                _card(draft, name, goal)
    if draft.goal:
        _meaning(goals[draft.goal])
    frame.moves(draft, bool(draft.goal), "Choose a goal to go on.")


def _card(draft: Any, name: str, goal: dict[str, Any]) -> None:
    method = frame.engine().explain_method(goal["method"])
    st.markdown(f"### :material/{goal['icon']}: {words.literal(goal['title'])}", anchors=False)
    st.markdown(words.literal(goal["meaning"]))
    st.caption(f"Method: {words.literal(method['title']).lower()}, {words.literal(method['term'])}  \nData: {words.literal(goal['data'])}")
    st.markdown(_row(goal["row"]))
    if "demo" in goal:
        # The demo needs no further choice: everything is set, and every step can be looked at on the way back.
        first = not draft.goal
        st.button("Start the demo", key="goal-demo", type="primary" if first else "secondary", on_click=begin_demo, args=(goal["demo"],))
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        if draft.goal == name:
            st.badge("Chosen", icon=":material/check:", color="green")
        else:
            st.button(f"Choose: {goal['title'].lower()}", key=f"goal-{name}", on_click=choose, args=(draft, name))
        if "try" in goal:
            shown = knowledge.method_demos()[goal["try"]]
            help_text = f"{shown['task']} {shown['expect']}"
            st.button(
                "Try it out", key=f"try-{name}", icon=":material/play_arrow:", type="tertiary", help=words.literal(help_text),
                on_click=begin_method_demo, args=(name,),
            )  # fmt: skip


def _row(row: dict[str, Any]) -> str:
    """What data looks like: one answer, two of which one is better, or a verdict."""
    asked = f":gray[For example] {words.code(row['prompt'])}"
    if "chosen" in row:
        return f"{asked}  \n:green[better] {words.code(row['chosen'])}  \n:orange[worse] {words.code(row['rejected'])}"
    if "label" in row:
        verdict = ":green[found good]" if row["label"] else ":orange[found bad]"
        return f"{asked} → {words.code(row['completion'])} {verdict}"
    if "answer" in row:
        return f"{asked} :gray[expected] {words.code(row['answer'])}"
    return f"{asked} → {words.code(row['completion'])}" if "completion" in row else asked


def begin_demo(demo: str) -> None:
    """A draft of this demo, as far as the launch."""
    name = next(name for name, goal in frame.engine().planner.goals().items() if "demo" in goal)
    frame.update(goal=name, step=_LAST, changes={"data": {"demo": demo}}, expert=False)


def begin_method_demo(name: str) -> None:
    """A draft of the demo that a goal's method has, as far as the launch."""
    engine = frame.engine()
    recipe = knowledge.method_demos()[engine.planner.goals()[name]["try"]]["recipe"]
    # Only what it is a demo of: the settings that were measured for it are suggested, with that reason.
    changes = {part: recipe[part] for part in ("name", "method", "data", "then") if part in recipe}
    frame.update(goal=name, step=_LAST, changes=changes, expert=False)


def choose(draft: Any, name: str) -> None:
    """Another goal; what was set for the one before stays, unless that was a demo. Stages and what one method reads go with it."""
    came_with_demo = draft.goal and ("demo" in frame.engine().planner.goals()[draft.goal] or bool(draft.changes.get("then")))
    kept = {} if came_with_demo else draft.changes
    method = frame.engine().planner.goals()[name]["method"]
    other = method != draft.changes.get("method", Recipe().method)
    gone = {"method", *(("training", "then", *method_parts()) if other else ())}
    changes = {key: value for key, value in kept.items() if key not in gone}
    if method != Recipe().method:
        changes["method"] = method
    frame.update(goal=name, changes=changes, reached=1 if came_with_demo else draft.reached)


def _meaning(goal: dict[str, Any]) -> None:
    method = frame.engine().explain_method(goal["method"])
    with st.container(border=True):
        st.markdown(f"**{words.literal(goal['title'])}: {words.literal(method['term'])}.** {words.literal(method['meaning'])}")
        left, right = st.columns([3, 2], gap="large")
        left.markdown("**When it fits**\n" + "\n".join(f"- {words.literal(line)}" for line in method["use_when"]))
        left.markdown("**When it doesn't**\n" + "\n".join(f"- {words.literal(line)}" for line in method["not_when"]))
        left.caption(f"Needs: {words.literal(method['needs'])}")
        # Downwards: a diagram that runs sideways can't be read on a phone.
        arrows = " --> ".join(f'{number}["{text}"]' for number, text in enumerate(method["flow"]))
        with right:
            st.mermaid_chart(f"flowchart TD\n{arrows}")
