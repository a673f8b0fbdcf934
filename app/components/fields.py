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
from app.components import trouble, words
from engine import knowledge, recipe
from engine.errors import RecipeError

Changed = Callable[[str, Any], None]


PARTS = {
    "dpo": "Learning from pairs (DPO)",
    "kto": "Learning from verdicts (KTO)",
    "rl": "Trying out answers (RL)",
    "reward": "What a good answer is (reward)",
    "reward_model": "The model that learns to score (reward model)",
    "distill": "Learning from a teacher (distillation)",
    "own_loss": "Your own loss",
    "rlhf": "Trying out answers (RLHF)",
}
"""What the parts that only some methods read are called, and what those are called together that a method reads."""


def _effect(name: str) -> str:
    """What going too far either way does, for a help mark; empty where nothing is known."""
    known = knowledge.effects().get(name)
    return f"Too high: {known['high']}. Too low: {known['low']}." if known else ""


@cache
def described() -> dict[str, dict[str, Any]]:
    """Every field by its full name."""
    return {field["name"]: field for field in recipe.fields()}


def value_of(values: dict[str, Any], name: str) -> Any:
    """A field in a recipe's plain values."""
    for part in name.split("."):
        values = values[part]
    return values


def show(
    name: str, value: Any, changed: Changed, *, advice: dict[str, Any] | None = None, effect: str | None = None, place: str = "wizard"
) -> None:
    """The field with its present value; `advice` is {value, reason}, `effect` what too high or too low does, if not what is known of it."""
    field = described()[name]
    # With the recommended value in its key, a field follows it when that changes, unless somebody typed.
    key = f"{place}-{name}-{session.form_generation()}-{(advice or {}).get('value')}"
    widget(field, value, key, lambda typed: changed(name, typed), _effect(name) if effect is None else effect)
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
    """Any described field by itself; what is typed goes to `take`, unless it can't be read, which is told."""
    label = field["help"].rstrip(".")
    if field["unit"] and field["unit"] not in label:
        label += f", in {field['unit']}"
    _widget(field, label, value, key, lambda: trouble.attempt(lambda: take(_typed(field, st.session_state[key]))), effect)


def _widget(field: dict[str, Any], label: str, value: Any, key: str, on_change: Callable[[], None], effect: str) -> None:
    common: dict[str, Any] = {"key": key, "on_change": on_change, "help": effect or None}
    label = words.label(label)
    if field["kind"] == "bool":
        # A toggle cuts a long label off instead of breaking it.
        short, rest = _first_words(label)
        st.toggle(short, value=value, **common)
        if rest:
            st.caption(rest)
    elif field["kind"] == "choice":
        st.selectbox(label, field["choices"], index=field["choices"].index(value), **common)
    elif field["kind"] == "int":
        st.number_input(label, value=value, step=1, **common)
    elif field["kind"] == "float":
        st.number_input(label, value=value, step=abs(value or 0) / 10 or 0.01, format="%g", **common)
    elif field["kind"] in ("list", "mapping"):
        text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False) if value else ""
        st.text_area(label, value=text, height="content", placeholder="YAML", **common)
    elif field.get("long"):
        st.text_area(label, value=value, height=160, **common)
    else:
        st.text_input(label, value=value, **common)


def _first_words(label: str) -> tuple[str, str]:
    """A long label as what is switched and what is to be said of it."""
    if len(label) <= 48:
        return label, ""
    cut = min((place for mark in (": ", "; ", ", ", " (", " instead ") if (place := label.find(mark, 12)) > 0), default=-1)
    if cut < 0:
        return label, ""
    return label[:cut], words.sentence(label[cut:].lstrip(":;, "))


def _typed(field: dict[str, Any], value: Any) -> Any:
    if field["kind"] in ("list", "mapping"):
        empty: Any = [] if field["kind"] == "list" else {}
        try:
            return yaml.safe_load(value) or empty
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}" if mark else ""
            told = getattr(error, "problem", None) or "it isn't YAML"
            raise RecipeError(f"this can't be read: {told}", "Correct it: YAML is wanted.", where=f"{field['name']}{line}") from error
    return value
