"""What sessions share: the one Store of this process, and an Engine for each owner."""

from __future__ import annotations

import gc

import streamlit as st

from app import identity
from engine import Engine
from engine.store import Store


def engine() -> Engine:
    """The Engine of whoever this session belongs to."""
    return _engine_of(identity.who().owner)


@st.cache_resource(show_spinner=False)
def _store() -> Store:
    return Store()


# Visitors come and go; one who was forgotten here only gets a new Engine.
@st.cache_resource(show_spinner=False, max_entries=500)
def _engine_of(owner: str) -> Engine:
    """Made once for each; runs that nobody carries since the last time are taken up again."""
    made = Engine(owner, store=_store())
    made.revive()
    return made


@st.cache_resource(show_spinner=False)
def settle() -> None:
    """Streamlit collects garbage after every rerun: what is loaded by the end of the first is taken out of its way, once."""
    gc.collect()
    gc.freeze()
