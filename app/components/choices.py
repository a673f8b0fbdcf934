"""Pills and segmented controls whose choice can be read: its words in the theme's bright blue.

Streamlit writes the chosen one in the primary colour, which has to be dark enough for white text on buttons and so is too dark to be
read on black: 3:1, where WCAG AA wants 4.5:1. No one colour can do both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import streamlit as st


def pills(
    label: str, options: Sequence[str], *, key: str, default: str, format_func: Callable[[str], str] = str, **more: Any
) -> str | None:
    """`st.pills` for one choice of several."""
    return st.pills(label, options, key=key, default=default, format_func=_told(key, default, format_func), **more)


def segments(label: str, options: Sequence[str], *, key: str, default: str, format_func: Callable[[str], str] = str, **more: Any) -> str:
    """`st.segmented_control` that always has a choice."""
    told = _told(key, default, format_func)
    return str(st.segmented_control(label, options, key=key, default=default, required=True, format_func=told, **more))


def _told(key: str, default: str, format_func: Callable[[str], str]) -> Callable[[str], str]:
    # What was clicked is in the session's state before the page is drawn again.
    chosen = st.session_state.get(key, default)
    return lambda option: f":blue[{format_func(option)}]" if option == chosen else format_func(option)
