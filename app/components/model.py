"""One tuned model: what it can do, where it comes from, what was noted of it, and taking it away."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import navigation, services
from app.components import lesson, proof, trouble, words
from app.components.stages import method_title
from engine.amounts import size

if TYPE_CHECKING:
    from engine import Recipe
    from engine.registry import About, Registry

_MOST_CHILDREN = 5


def show(model_id: str) -> None:
    """Its page. Raises NotFound."""
    engine = services.engine()
    about = engine.registry.about(model_id)
    model = about.model
    with st.container(horizontal=True, vertical_alignment="center"):
        st.title(words.literal(model.name), anchor=False, width="content")
        if about.away:
            st.badge(f"at {words.literal(engine.place(about.away))}", icon=":material/cloud:", color="blue")
        elif not about.files:
            st.badge("● files are gone", color="red")
    kind = "all weights" if about.whole else "adapter (LoRA)"
    facts = [f"on {model.base_model}", kind, *([size(about.bytes)] if about.bytes else [])]
    st.caption(words.literal(" · ".join([*facts, words.ago(time.time() - model.created_at), f"model {model.id}"])))
    _actions(engine.registry, about)
    if sentences := words.proof_sentences(model.proof or {"held_out": {}, "skills": {}}):
        st.header("What it can do", anchor=False)
        if about.job and about.job.result:
            proof.figures(engine, about.job.result)
        st.markdown("\n".join(f"- {sentence}" for sentence in sentences))
    elif about.lesson:
        lesson.show(engine, about)
    else:
        st.caption("Nothing was proven of it: its run ended early, or had no held-out examples.")
    left, right = st.columns(2, gap="large")
    with left:
        _lineage(about)
        _recipe(about)
    with right:
        _notes(engine.registry, about)


def _actions(registry: Registry, about: About) -> None:
    model = about.model
    with st.container(horizontal=True, vertical_alignment="center"):
        here = about.files or bool(about.away)
        if here and st.button("Chat", key="chat", type="primary", icon=":material/chat:"):
            st.switch_page(navigation.PLAYGROUND.path, query_params={"model": model.id})
        if about.away:
            navigation.link(navigation.MODELS, "Download it from the list of what is stored there")
        elif about.files:
            st.download_button(
                "Download",
                lambda: registry.archive(model.id),
                f"{registry.file_name(model)}.zip",
                "application/zip",
                key="download",
                icon=":material/download:",
                on_click="ignore",
                help="A zip of the folder that PEFT loads, with its recipe and how to load it. transformers loads a whole model's.",
            )
        with st.popover("Rename", icon=":material/edit:"):
            with st.form("rename", border=False):
                name = st.text_input("Name", model.name, key=f"name.{model.id}", max_chars=120)
                if st.form_submit_button("Rename"):
                    _change(lambda: registry.rename(model.id, name), "Renamed")
        with st.popover("Delete", icon=":material/delete:"):
            weight = f" and its {size(about.bytes)} of files" if about.bytes else ""
            st.markdown(f"Delete this model{weight} for good? Its run with its curves stays.")
            st.button("Delete for good", key="delete", on_click=_delete, args=(registry, model.id, model.name))
        if here:
            base = f"base:{model.base_model}"
            if model.weights_path:
                navigation.link_to_training_from(model.id, "Train it further")
            navigation.link_to_chat(model.id, f"Compare with {words.literal(model.base_model)}", beside=base, icon=":material/compare:")


def _change(action: Any, done: str) -> None:
    trouble.attempt(action, done)
    st.rerun()


def _delete(registry: Registry, model_id: str, name: str) -> None:
    def delete() -> None:
        registry.delete(model_id)
        st.query_params.pop("model", None)

    trouble.attempt(delete, f"{name} is deleted")


def _lineage(about: About) -> None:
    model, job, recipe = about.model, about.job, about.recipe
    st.header("Where it comes from", anchor=False)
    lines = [f"- **Base model:** {words.literal(model.base_model)}"]
    if about.parent and not about.parent.model_id:
        lines.append(f"- **Goes on from (parent):** {words.literal(about.parent.name)}")
    if recipe:
        lines.append(f"- **Data:** {_data(about)}")
        lines.append(f"- **Method:** {_methods(recipe)}")
    if job:
        lines.append(f"- **Training:** {job.step:,} updates, {job.tokens:,} tokens")
    if model.system_prompt:
        lines.append(f"- **System prompt:** {words.literal(model.system_prompt)}")
    lines.append(f"- **Form of its conversations (renderer):** {words.literal(model.renderer)}")
    st.markdown("\n".join(lines))
    if about.parent and about.parent.model_id:
        navigation.link_to_model(about.parent.model_id, f"Goes on from {words.literal(about.parent.name)}")
    for child in about.children[:_MOST_CHILDREN]:
        navigation.link_to_model(child.id, f"{words.literal(child.name)} went on from it")
    if job:
        navigation.link_to_run(job.id, f"The run {words.literal(job.name)}, with its curves")
    else:
        st.caption("Its run was deleted, and with it the recipe and the curves.")


def _methods(recipe: Recipe) -> str:
    """Of several stages all, in order."""
    stages = recipe.stages()
    if len(stages) > 1:
        return ", then ".join(words.literal(method_title(stage.recipe.method)) for stage in stages)
    known = services.engine().explain_method(recipe.method)
    return f"{words.literal(known['title'])}: {words.literal(known['term'])}"


def _data(about: About) -> str:
    assert about.recipe is not None
    spec, counts = about.recipe.data, about.data
    name = f"the demo {spec.demo}" if spec.demo else spec.path.replace("\\", "/").rpartition("/")[2] or str(counts.get("name", ""))
    more = []
    if counts.get("train"):
        replay = f", {counts['replay']:,} of them to keep old skills (replay)" if counts.get("replay") else ""
        more.append(f"{counts['train']:,} training examples{replay}")
    if counts.get("held_out"):
        more.append(f"{counts['held_out']:,} held out for the proof")
    return words.literal("; ".join([name, *more]))


def _recipe(about: About) -> None:
    if about.recipe is None:
        return
    st.header("What differs from a plain recipe", anchor=False)
    if not about.changes:
        st.caption("Nothing: every field is at its default.")
        return
    rows = [{"field": change.field, "here": _plain(change.value), "usually": _plain(change.default)} for change in about.changes]
    st.dataframe(rows, hide_index=True, height=38 + 36 * min(len(rows), 10), alt="Recipe fields that differ from their defaults")
    with st.expander("The recipe, to copy"):
        st.code(services.engine().policy.told(about.recipe.to_yaml()), language="yaml")


def _plain(value: Any) -> str:
    if value is None or value == "" or value == ():
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _notes(registry: Registry, about: About) -> None:
    model = about.model
    st.header("Notes", anchor=False)
    with st.form("notes", border=False):
        text = st.text_area(
            "Notes",
            model.notes,
            key=f"notes.{model.id}",
            height=160,
            label_visibility="collapsed",
            placeholder="What it is for, what you saw when you tried it, what to change next time",
        )
        if st.form_submit_button("Save notes"):
            _change(lambda: registry.note(model.id, text), "Notes are saved")
