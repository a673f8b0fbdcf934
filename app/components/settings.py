"""Settings, section by section: each is a function that shows itself; SECTIONS is their order. Knows no section's rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from app import navigation, services, session, shortcuts, tour
from app.components import fields, job_keeping, judges, servers, trouble
from app.components import keys as keys_given
from engine import EngineError
from engine.amounts import size
from engine.defaults import FIELDS
from engine.upkeep import KINDS

_AT_ONCE, _EACH = 0.15, 0.25
_EFFECTS = {
    "training.batch_size": "Smaller needs less memory and makes more updates, each noisier. Empty: what is recommended for the model.",
    "training.max_length": "Shorter needs less memory, but longer examples lose their ends. Empty: the model's own limit.",
}


def show() -> None:
    """All of them; one that fails leaves the others be."""
    st.title("Settings", anchor=False)
    shared = services.engine().policy.shared
    for title, section in SECTIONS:
        if shared and section in (folder, diagnostics, servers.show, judges.show):
            # The folder and its log are everybody's, and this machine calls nobody that a stranger names.
            continue
        with st.container(border=True):
            st.header(title, anchor=False)
            with trouble.boundary():
                section()


def folder() -> None:
    """Where things are kept, and how big they are."""
    upkeep = services.engine().upkeep
    st.markdown("All that you make lies in one folder. Set `THINKER_HOME` before the start to have it elsewhere.")
    st.code(upkeep.folder(), language=None)
    st.fragment(_sizes, run_every=None if _tally().done else 0.5)()


def _tally() -> Any:
    tally = session.tally(services.engine().upkeep.tally)
    return tally if tally.done else tally.go_on(_AT_ONCE)


def _sizes() -> None:
    with trouble.boundary():
        upkeep = services.engine().upkeep
        tally = session.tally(upkeep.tally)
        if not tally.done and tally.go_on(_EACH).done:
            st.rerun()
        so_far = "" if tally.done else " so far"
        with st.container(horizontal=True, gap="medium"):
            st.metric(
                f"In the folder{so_far}",
                f"`{size(tally.total)}`",
                f"{tally.files:,} files",
                delta_color="off",
                delta_arrow="off",
                width="content",
            )
            st.metric("Free on its disk", f"`{size(upkeep.free())}`", width="content")
        rows = [(told, tally.sizes[kind]) for kind, (told, _) in KINDS.items() if tally.sizes[kind]]
        st.markdown("\n".join(f"- {told}: `{size(count)}`" for told, count in sorted(rows, key=lambda row: -row[1])))
        if tally.done:
            st.button("Count again", key="count-again", icon=":material/refresh:", type="tertiary", on_click=session.forget_tally)
        else:
            st.caption("Still counting.")
        job_keeping.biggest(services.engine())
        st.caption("Deleting models and data sets on their pages makes room. Models fetched from the hub lie in the hub's own cache.")


def defaults() -> None:
    """What new trainings start from."""
    chosen = services.engine().defaults.get()
    st.markdown(
        "What the Wizard fills in for your own data; leave a field empty for what is recommended. The demos keep the settings that were "
        "measured for them."
    )
    with st.grid(3, min_column_width=240, gap="medium") as grid:
        for field in FIELDS:
            with grid.cell():
                value = chosen.get(field, "nano" if field == "base_model" else None)
                fields.show(field, value, _keep_default, effect=_EFFECTS.get(field, ""), place="default")
    if chosen:
        st.button("Back to what is recommended", key="defaults-reset", type="tertiary", icon=":material/undo:", on_click=_reset_defaults)


def _keep_default(field: str, value: Any) -> None:
    def keep() -> None:
        try:
            services.engine().defaults.set(field, value)
        except EngineError:
            session.renew_forms()
            raise

    trouble.attempt(keep, "Kept. New trainings start from it")


def _reset_defaults() -> None:
    session.renew_forms()
    for field in FIELDS:
        trouble.attempt(lambda field=field: services.engine().defaults.set(field, None))


def the_tour() -> None:
    """Taken, skipped, or never seen; from the beginning again."""
    settings = services.engine().settings
    done = settings.get("tour")
    told = {"on": f"You are at stop {tour.number(settings) + 1} of {len(tour.STOPS)}.", "done": "You have seen all of it."}
    st.markdown(f"Six short stops through the pages. {told.get(done, '')}")
    if st.button("Begin again" if done in ("on", "done") else "Show me around", key="tour-begin", icon=":material/explore:"):
        tour.begin(settings)
        navigation.go(navigation.entry(tour.here(settings).page))


def keys() -> None:
    """The keyboard."""
    st.markdown("\n".join(f"- `{key}` {what} :gray[({where})]" for key, what, where in shortcuts.listed()))
    st.caption("They rest while you type.")


def stored() -> None:
    """What is kept about the person, and where it goes: nowhere."""
    engine = services.engine()
    kept = engine.upkeep.kept()
    if most := engine.policy.most_disk:
        used = engine.upkeep.used()
        st.progress(min(1.0, used / most), text=f"Your data sets and models take {size(used)} of {size(most)}.")
    st.markdown(
        "What you make lies on this server, where nobody else who uses it sees it; whoever runs the server could."
        if engine.policy.shared
        else "What you make lies on this machine, and Thinker reports to nobody. What you train elsewhere is sent there, and what judges "
        "or teachers by URL are asked is sent to them. A base model that you name by its hub id is fetched from the hub once."
    )
    there = [f"{count:,} {what if count != 1 else what.removesuffix('s')}" for what, count in kept.items() if count]
    st.caption(f"Kept of yours: {', '.join(there)}." if there else "Nothing is kept of yours yet, but for these settings.")


def diagnostics() -> None:
    """What to send along when asking for help."""
    st.markdown("Versions, the machine, and the last lines of the log, as a text to copy. No keys are in it; read it before you send it.")
    if st.button("Gather", key="gather", icon=":material/stethoscope:"):
        with st.spinner("Looking at the machine, some seconds"):
            session.keep_diagnostics(services.engine().upkeep.diagnostics())
    if text := session.diagnostics():
        st.code(text, language=None, wrap_lines=True, height=320)


SECTIONS: tuple[tuple[str, Callable[[], None]], ...] = (
    ("Where things are kept", folder),
    ("Keys", keys_given.show),
    ("Servers by URL", servers.show),
    ("Judges and teachers by URL", judges.show),
    ("What tokens cost", servers.prices),
    ("What new trainings start from", defaults),
    ("The tour", the_tour),
    ("Keyboard", keys),
    ("What is stored about you", stored),
    ("Diagnostics", diagnostics),
)
