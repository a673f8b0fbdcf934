"""Step 4: the settings, each filled in with its reason; presets. What goes beyond the usual few is behind "advanced"."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import session
from app.components import fields, profiles, rewards, stages, trouble, words
from app.components.wizard import frame
from engine import EngineError, Recipe

_USUAL = ("training.learning_rate", "training.batch_size", "training.steps", "lora.rank")
_ADVANCED = (
    "training.schedule", "training.warmup", "training.weight_decay", "training.grad_clip_norm", "training.max_length",
    "training.patience", "training.keep_best", "training.plateau", "training.plateau_factor", "lora.train_mlp", "lora.train_attn",
    "lora.train_unembed", "system_prompt", "evaluation.eval_every", "evaluation.samples_every", "evaluation.max_new_tokens",
    "checkpoints.every_steps", "budget.max_dollars", "budget.max_tokens", "budget.max_minutes", "seed",
)  # fmt: skip


def show(draft: Any) -> None:
    """The form."""
    st.markdown("## How should it learn?", anchors=False)
    st.caption("Everything is filled in with what suits your data and model. Change what you like; nothing has to be.")
    try:
        found = frame.engine().planner.suggest(draft.changes)
    except EngineError as error:
        trouble.show_error(error.to_dict())
        _start((draft.changes.get("start") or {}).get("checkpoint", ""))
        _model(draft, draft.changes.get("base_model") or frame.engine().defaults.get().get("base_model") or "nano")
        if draft.changes.get("profile"):
            # It may be what is wrong: a profile of one's own can be gone.
            profiles.choose(Recipe.make(draft.changes), frame.change)
        frame.moves(draft, False, "Choose data and a model that can be read to go on.")
        return
    values = found.recipe.model_dump(mode="json")
    left, right = st.columns(2, gap="large")
    with left:
        fields.show("name", values["name"], frame.change)
        start = found.recipe.start.checkpoint
        _start(start)
        if start:
            st.caption("Base model, kind of training and the adapter's shape come from there.")
        else:
            _model(draft, values["base_model"])
            if found.recipe.full or frame.engine().planner.trains_all_weights(found.recipe.endpoint):
                _full(found.recipe.full)
    with right:
        for name in _USUAL:
            if not ((found.recipe.full or start) and name.startswith("lora.")):
                _field(name, values, found.reasons)
    _method(found)
    then = st.expander("Then, in the same run (stages)", key="then", expanded=bool(found.recipe.then), on_change="rerun")
    if then.open:
        with then:
            stages.show()
    advanced = st.expander("Advanced", key="advanced", on_change="rerun")
    if advanced.open:
        with advanced:
            with st.grid(2, min_column_width=300, gap="medium") as grid:
                for name in _ADVANCED:
                    if not ((found.recipe.full or start) and name.startswith("lora.")):
                        with grid.cell():
                            _field(name, values, found.reasons)
            rewards.show(found.recipe.model_dump(mode="json", exclude_defaults=True), frame.change, use=rewards.JUDGE)
    profiles.choose(found.recipe, frame.change)
    _presets(found.recipe)
    frame.moves(draft, True)


def _field(name: str, values: dict[str, Any], reasons: dict[str, dict[str, Any]]) -> None:
    fields.show(name, fields.value_of(values, name), frame.change, advice=reasons.get(name))


def _method(found: Any) -> None:
    """What only the chosen method reads."""
    method = found.recipe.method
    if any(method in field["methods"] for field in fields.described().values()):
        st.markdown(f"### {words.literal(fields.PARTS.get(method, 'Of this method'))}", anchors=False)
        stages.part_fields(found.recipe, frame.change, found.reasons, "wizard")


def bring(ref: str) -> None:
    """Goes on from this model, wherever the draft stood."""

    def begin() -> None:
        engine = frame.engine()
        goals, draft = engine.planner.goals(), engine.drafts.start_from(engine.model(ref).id)
        own = [name for name, goal in goals.items() if "demo" not in goal]
        step = 3 if draft.data() else 1
        frame.update(goal=draft.goal or own[0], step=step, expert=False)

    trouble.attempt(begin)


def _start(ref: str) -> None:
    """Nothing to choose from, nothing shown."""
    names = frame.engine().planner.starts()
    if ref:
        # The expert form and recipes can name checkpoints too, and a model may be gone.
        names.setdefault(ref, ref)
    if not names:
        return
    key = f"start-{session.form_generation()}"
    st.selectbox(
        "Go on from (start checkpoint)",
        ["", *names],
        index=["", *names].index(ref),
        format_func=lambda one: names[one] if one else "nothing: the base model as it is",
        key=key,
        help="A model that you trained before learns more, instead of the base model from anew.",
        on_change=lambda: _take_start(st.session_state[key]),
    )


def _take_start(ref: str) -> None:
    session.renew_forms()
    trouble.attempt(lambda: frame.engine().drafts.start_from(ref))


def _model(draft: Any, base_model: str) -> None:
    try:
        offered = frame.engine().planner.models_at(draft.changes.get("endpoint") or "local")
    except EngineError as error:
        trouble.show_error(error.to_dict())
        offered = []
    if offered:
        _choice(base_model, offered)
    else:
        fields.show("base_model", base_model, _take_model)
    if offered and (known := frame.engine().planner.about_model(draft.changes.get("endpoint") or "local", base_model)):
        st.caption(words.literal(words.sentence("; ".join(known))))
    if base_model == "nano":
        st.caption("nano ships with Thinker: 1.3 million parameters, learns in seconds, knows letters and little else.")


def _choice(base_model: str, offered: list[str]) -> None:
    """One of those that the place has; what was chosen before and isn't among them is no choice."""
    key = f"offered-{session.form_generation()}"
    st.selectbox(
        "The model to start from",
        offered,
        index=offered.index(base_model) if base_model in offered else None,
        placeholder=f"{words.literal(base_model)} isn't offered there: choose another",
        key=key,
        on_change=lambda: _take_model("base_model", st.session_state[key] or ""),
    )


def _take_model(_: str, base_model: str) -> None:
    session.renew_forms()
    frame.change("base_model", base_model.strip() or None)


def _full(full: bool) -> None:
    key = f"full-{session.form_generation()}"
    kinds = {False: "An adapter (LoRA)", True: "All weights (full)"}
    st.radio(
        "What is trained",
        list(kinds),
        index=int(full),
        format_func=kinds.get,
        key=key,
        horizontal=True,
        on_change=lambda: _take_full(st.session_state[key]),
    )
    if full:
        st.caption("Every weight of the model changes: more memory (16 bytes a parameter), larger files, a lower learning rate.")
    else:
        st.caption(
            "A small addition to the model is trained, the model itself stays: little memory, small files, and as good for most tasks."
        )


def _take_full(full: bool) -> None:
    session.renew_forms()
    frame.change("full", full)


def _presets(recipe: Any) -> None:
    presets = frame.engine().presets
    kept = presets.list()
    with st.popover("Presets", icon=":material/bookmark:"):
        name_key = f"preset-name-{session.form_generation()}"
        st.text_input("Save these settings as", key=name_key, placeholder="A name")
        st.button("Save preset", key="preset-save", on_click=lambda: _save(st.session_state[name_key], recipe))
        for preset in kept:
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(words.literal(preset.name), width="content")
                st.button("Load", key=f"preset-load-{preset.id}", on_click=_load, args=(preset.id,))
                st.button("Delete", key=f"preset-delete-{preset.id}", on_click=_delete, args=(preset.id, preset.name))
            key = f"preset-rename-{preset.id}"
            st.text_input(
                f"New name for {preset.name}",
                key=key,
                label_visibility="collapsed",
                placeholder="Rename",
                on_change=lambda preset=preset, key=key: trouble.attempt(lambda: presets.rename(preset.id, st.session_state[key])),
            )


def _save(name: str, recipe: Any) -> None:
    trouble.attempt(lambda: frame.engine().presets.save(name, recipe), f"Saved as {name}")


def _load(preset_id: str) -> None:
    def load() -> None:
        draft = frame.engine().drafts.get()
        kept = {name: draft.changes[name] for name in ("data", "name") if name in draft.changes}
        frame.engine().drafts.update(changes={**frame.engine().presets.load(preset_id), **kept})
        session.renew_forms()

    trouble.attempt(load, "The preset is loaded")


def _delete(preset_id: str, name: str) -> None:
    trouble.attempt(lambda: frame.engine().presets.delete(preset_id), f"{name} is deleted")
