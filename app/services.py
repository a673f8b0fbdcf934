"""What all sessions share: the one Engine of this process."""

from __future__ import annotations

import gc

import streamlit as st

from engine import Engine


@st.cache_resource(show_spinner=False)
def engine() -> Engine:
    """The Engine. Made once; runs that nobody carries since the last time are taken up again."""
    made = Engine()
    made.revive()
    return made


@st.cache_resource(show_spinner=False)
def settle() -> None:
    """Streamlit collects garbage after every rerun: what is loaded by the end of the first is taken out of its way, once."""
    gc.collect()
    gc.freeze()
