"""What can be asked of a run in a dialog: another like it with changes, another name, the same as text to copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app import services, session
from app.components import words
from engine import EngineError

if TYPE_CHECKING:
    from engine.store import Job


@st.dialog("Train again with changes")
def again(job_id: str, wished: dict[str, Any]) -> None:
    """The main settings of the run, to change; what isn't shown stays as it was."""
    engine = services.engine()
    try:
        recipe = engine.runs.again(job_id, wished)
    except EngineError as error:
        st.error(words.literal(str(error)))
        return
    help_of = engine.runs.field_help()
    first = " Steps, rate and batch are its first stage's." if recipe.then else ""
    st.caption(f"A new run with the same model and data.{first} What isn't shown here stays as it was.")
    name = st.text_input("Name", f"{recipe.name} again"[:120], max_chars=120, key="again.name")
    with st.grid(2, min_column_width=150, gap="small"):
        steps = st.number_input(
            "Steps (updates)", min_value=0, value=recipe.training.steps or 0, step=10, key="again.steps", help="0 goes by epochs instead."
        )
        epochs = st.number_input(
            "Times through the data (epochs)", 0.01, 1000.0, recipe.training.epochs, key="again.epochs", help=help_of["training.epochs"]
        )
        rate = st.text_input(
            "Learning rate", f"{recipe.training.learning_rate:g}", key="again.rate", help=help_of["training.learning_rate"]
        )
        batch = st.number_input(
            "Examples at once (batch size)", 1, 4096, recipe.training.batch_size, key="again.batch", help=help_of["training.batch_size"]
        )
        rank = st.number_input("Adapter size (LoRA rank)", 1, 512, recipe.lora.rank, key="again.rank", help=help_of["lora.rank"])
        seed = st.number_input("Seed", 0, 2**31 - 1, recipe.seed, key="again.seed", help=help_of["seed"])
    if advised := engine.runs.recommended_rate(recipe.base_model, recipe.method):
        st.caption(f"Recommended learning rate for this model: {advised:.2g}")
    if st.button("Start training", type="primary", icon=":material/play_arrow:", key="again.start"):
        changes: dict[str, Any] = {
            **wished,
            "name": name.strip(),
            "seed": seed,
            "lora": {**wished.get("lora", {}), "rank": rank},
            "training": {
                **wished.get("training", {}), "steps": steps or None, "epochs": epochs, "batch_size": batch, "learning_rate": rate
            },
        }  # fmt: skip
        try:
            made = engine.launch(engine.runs.again(job_id, changes))
        except EngineError as error:
            st.error(words.literal(str(error)), icon=":material/error:")
        else:
            session.notices().append(session.Notice("done", f"{made.name} is queued"))
            st.query_params["job"] = made.id
            st.rerun()


@st.dialog("Rename this run")
def rename(job_id: str, name: str) -> None:
    """Another name; a model that came of the run keeps its own."""
    wanted = st.text_input("Name", name, max_chars=120, key="rename.name")
    if st.button("Rename", type="primary", key="rename.do"):
        try:
            services.engine().runs.rename(job_id, wanted)
        except EngineError as error:
            st.error(words.literal(str(error)), icon=":material/error:")
        else:
            st.rerun()


@st.dialog("The same run, to copy", width="large")
def copy(job: Job) -> None:
    """As a command, a recipe file and a script."""
    try:
        shared = services.engine().runs.shared(job.id)
    except EngineError as error:
        st.error(words.literal(str(error)))
        return
    command, recipe, script = st.tabs(["Command", "Recipe (YAML)", "Python script"])
    with command:
        st.caption("In a terminal, from Thinker's folder:")
        st.code(shared.command, language="bash", wrap_lines=True)
    with recipe:
        st.caption("Save it as recipe.yaml, then: `python thinker.py train --recipe recipe.yaml`")
        st.code(shared.yaml, language="yaml")
        st.download_button("recipe.yaml", shared.yaml, "recipe.yaml", "application/yaml", icon=":material/download:", on_click="ignore")
    with script:
        st.caption("Runs in the foreground, with the Python in Thinker's `.venv`:")
        st.code(shared.script, language="python")
        st.download_button("train.py", shared.script, "train.py", "text/x-python", icon=":material/download:", on_click="ignore")
