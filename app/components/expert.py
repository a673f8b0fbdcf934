"""Every field of a recipe, by group, with search; and a recipe pasted, uploaded or taken away as YAML."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import session
from app.components import fields, profiles, rewards, stages, trouble, words
from app.components.wizard import frame
from engine import EngineError, Recipe

_GROUPS = {
    "": "The run",
    "start": "Where it starts",
    "data": "Data",
    "lora": "Adapter (LoRA)",
    "training": "Training",
    **fields.PARTS,
    "evaluation": "Evaluation",
    "checkpoints": "Checkpoints",
    "budget": "Limits",
}

_STAGES = "then"


def show(draft: Any) -> None:
    """The form, on the same draft as the steps."""
    try:
        found = frame.engine().planner.suggest(draft.changes)
        recipe, reasons = found.recipe, found.reasons
    except EngineError as error:
        trouble.show_error(error.to_dict())
        recipe, reasons = Recipe.make(draft.changes), {}
    _as_text(recipe)
    if draft.data():
        profiles.choose(recipe, frame.change)
    wanted = st.text_input("Find a setting", key="find", placeholder="such as learning rate", icon=":material/search:").lower()
    values = recipe.model_dump(mode="json")
    found_there = _names(recipe, wanted)
    for group, title in _GROUPS.items():
        names = [name for name in found_there if name.rpartition(".")[0] == group and name != _STAGES]
        plain = [name for name in names if name not in rewards.USES]
        if plain:
            st.markdown(f"## {title}", anchors=False)
            with st.grid(2, min_column_width=300, gap="medium") as grid:
                for name in plain:
                    with grid.cell():
                        stages.one_field(name, values, _change, reasons, "expert")
        for name in names:
            if name in rewards.USES:
                rewards.show(recipe.model_dump(mode="json", exclude_defaults=True), frame.change, "expert", rewards.USES[name])
    if _STAGES in found_there:
        st.markdown("## Then, in the same run (stages)", anchors=False)
        stages.show("expert")
    if not found_there:
        st.caption(f"No setting is about {words.literal(wanted)}.")
    st.button("Review and launch", key="review", type="primary", disabled=not draft.data(), on_click=_review)
    if not draft.data():
        st.caption("Give a demo, a path or a data set under Data to go on, or choose data in the steps.")


def _names(recipe: Recipe, wanted: str) -> list[str]:
    """The fields that the method reads and that are about what is looked for."""
    hidden, found = frame.engine().policy.hidden_fields, []
    for name, field in fields.described().items():
        about = f"{name.replace('_', ' ')} {name} {field['help']}".lower()
        if name not in hidden and recipe.method in (field["methods"] or (recipe.method,)) and wanted in about:
            found.append(name)
    return found


def _change(field: str, value: Any) -> None:
    if field == "method":
        # Other fields, and other values that suit it.
        session.renew_forms()
    frame.change(field, value)


def _review() -> None:
    engine = frame.engine()
    draft = engine.drafts.get()
    method = draft.changes.get("method", Recipe().method)
    fitting = [name for name, goal in engine.planner.goals().items() if goal["method"] == method and "demo" not in goal]
    goal = draft.goal or next(iter(fitting), "answer")
    frame.update(goal=goal, step=len(frame.STEPS) - 1, expert=False)


def _as_text(recipe: Recipe) -> None:
    with st.expander("The recipe as text (YAML): take it away, paste or upload one"):
        st.code(recipe.to_yaml(), language="yaml")
        st.download_button("Download", recipe.to_yaml(), "recipe.yaml", "application/yaml", key="recipe-download", on_click="ignore")
        pasted = f"recipe-paste-{session.form_generation()}"
        st.text_area("Paste a recipe", key=pasted, height=120)
        st.button("Use the pasted recipe", key="recipe-use", on_click=lambda: _use(st.session_state[pasted]))
        key = f"recipe-upload-{session.form_generation()}"
        st.file_uploader("Or upload one", type=["yaml", "yml", "json"], key=key, on_change=lambda: _upload(st.session_state[key]))


def _upload(file: Any) -> None:
    if file is not None:
        _use(file.getvalue().decode("utf-8", "replace"))


def _use(text: str) -> None:
    def use() -> None:
        frame.engine().drafts.update(changes=Recipe.parse(text).model_dump(mode="json", exclude_unset=True))
        session.renew_forms()

    trouble.attempt(use, "The recipe is taken over")
