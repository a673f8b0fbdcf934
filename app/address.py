"""Choices that stand in the address, so that F5, a second tab and a copied link show the same. Knows no page."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st


def chosen(name: str, options: Sequence[str], usual: str) -> str:
    """What the address says, if it's one of the options; else what is usual."""
    said = st.query_params.get(name, usual)
    return said if said in options else usual


def keep(name: str, key: str, usual: str) -> None:
    """For a widget's on_change: its value goes into the address, unless it's what is usual anyhow.

    A widget's own `bind` would put the label there, which changes with what is counted in it.
    """
    value = st.session_state.get(key)
    if value in (None, usual):
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = str(value)
