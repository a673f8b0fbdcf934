"""One field of a recipe on the screen: its words, unit and healthy range as the recipe has them, with the reason for its value.

What is typed goes to a callback; knows nothing of where it is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import streamlit as st
import yaml

from app import session
from app.components import words
from engine import recipe

Changed = Callable[[str, Any], None]


@cache
def described() -> dict[str, dict[str, Any]]:
    """Every field by its full name."""
    return {field["name"]: field for field in recipe.fields()}


def value_of(values: dict[str, Any], name: str) -> Any:
    """A field in a recipe's plain values."""
    for part in name.split("."):
        values = values[part]
    return values


def show(name: str, value: Any, changed: Changed, *, advice: dict[str, Any] | None = None, effect: str = "", place: str = "wizard") -> None:
    """The field with its present value; `advice` is {value, reason}, `effect` what too high or too low does."""
    field = described()[name]
    # With the recommended value in its key, a field follows it when that changes, unless somebody typed.
    key = f"{place}-{name}-{session.form_generation()}-{(advice or {}).get('value')}"
    widget(field, value, key, lambda typed: changed(name, typed), effect)
    notes = []
    if field["healthy"]:
        low, high = (words.figure(bound) for bound in field["healthy"])
        notes.append(f"Usually {low} to {high}.")
    if advice:
        same = value == advice["value"]
        notes.append(
            words.literal(advice["reason"])
            if same
            else f"Recommended: {words.figure_or_text(advice['value'])}. {words.literal(advice['reason'])}"
        )
    if notes:
        st.caption(" ".join(notes))


def widget(field: dict[str, Any], value: Any, key: str, take: Callable[[Any], None], effect: str = "") -> None:
    """Any described field by itself; what is typed goes to `take`."""
    label = field["help"].rstrip(".")
    if field["unit"] and field["unit"] not in label:
        label += f", in {field['unit']}"
    _widget(field, label, value, key, lambda: take(_typed(field, st.session_state[key])), effect)


def _widget(field: dict[str, Any], label: str, value: Any, key: str, on_change: Callable[[], None], effect: str) -> None:
    common: dict[str, Any] = {"key": key, "on_change": on_change, "help": effect or None}
    label = words.label(label)
    if field["kind"] == "bool":
        st.toggle(label, value=value, **common)
    elif field["kind"] == "choice":
        st.selectbox(label, field["choices"], index=field["choices"].index(value), **common)
    elif field["kind"] == "int":
        st.number_input(label, value=value, step=1, **common)
    elif field["kind"] == "float":
        st.number_input(label, value=value, step=abs(value or 0) / 10 or 0.01, format="%g", **common)
    elif field["kind"] in ("list", "mapping"):
        st.text_area(label, value=yaml.safe_dump(value, allow_unicode=True) if value else "", height=80, placeholder="YAML", **common)
    else:
        st.text_input(label, value=value, **common)


def _typed(field: dict[str, Any], value: Any) -> Any:
    if field["kind"] in ("list", "mapping"):
        empty: Any = [] if field["kind"] == "list" else {}
        try:
            return yaml.safe_load(value) or empty
        except yaml.YAMLError:
            return value
    return value
