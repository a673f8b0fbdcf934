"""The editor of a reward, and of who judges the proof: the parts one by one, each with the fields that its kind reads, its weight and what
to beware of.

Works on a recipe's plain values and hands the new parts to a callback; knows nothing of where they are kept. Test runs: reward_check.py.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import streamlit as st

from app import services, session
from app.components import fields, judges, reward_check, trouble, words
from engine import EngineError
from engine.recipe import RewardPart

_KINDS_SAID = re.compile(r" \((?:[a-z_]+(?:, )?)+\)(?=\.?$)")
_COLUMNS = ("expected", "tests")
_LONG = {"code": 220, "rubric": 120}
Parts = list[dict[str, Any]]
Put = Callable[[Parts], None]


@dataclass(frozen=True)
class Use:
    """What parts are put together for: the recipe's field that holds them, what is said of it, and what holds without any of them; where
    that is empty there is one part at least."""

    name: str
    field: str
    title: str
    meaning: str
    without: str = ""


REWARD = Use(
    "reward",
    "reward.parts",
    "What is a good answer?",
    "Every answer that the model tries is scored by this; the score is the weighted sum of the parts (reward).",
)
JUDGE = Use(
    "judge",
    "evaluation.judge",
    "Who tells which answer is better (judge)",
    "After the run its answers to held-out prompts are put beside those of the model that its last stage began with. This scores both, and "
    "the higher score wins (win rate). Take something else than what the run learns from: what was trained to please a judge pleases that "
    "one, which proves nothing.",
    "Nobody is named: it goes by the right answers, where the data has any.",
)
USES = {use.field: use for use in (REWARD, JUDGE)}


def show(changes: dict[str, Any], changed: Callable[[str, Any], None], place: str = "wizard", use: Use = REWARD) -> None:
    """The parts, the same as text, and a test run. `changes` are a recipe's plain values as far as they differ from the usual; `changed`
    is told the use's field and its parts as they shall be."""
    with trouble.boundary():
        kinds = services.engine().rewards.kinds()
        parts, columns = _parts_of(changes, use), _columns(changes)
        stem = f"{place}-{use.name}"

        def put(wanted: Parts) -> None:
            changed(use.field, wanted)

        st.markdown(f"## {use.title}", anchors=False)
        st.caption(use.meaning)
        if not parts:
            st.markdown(use.without)
        for number, part in enumerate(parts):
            _part(kinds, parts, number, part, columns, put, stem, sole=len(parts) == 1 and not use.without)
        _add(kinds, parts, put, stem)
        with st.expander("As text (YAML)"):
            _as_text(use, parts, put, stem)
        if parts:
            reward_check.show(changes, parts, stem, judge=use is JUDGE)


def _parts_of(changes: dict[str, Any], use: Use) -> Parts:
    """Those that the recipe has, without what is as usual anyway."""
    part, _, leaf = use.field.partition(".")
    given = (changes.get(part) or {}).get(leaf) or ([] if use.without else [{}])
    return [{"kind": part.get("kind", "exact"), **part} for part in given]


def _as_text(use: Use, parts: Parts, put: Put, stem: str) -> None:
    """All that a part can say, also what the editor has no field for."""
    text = json.dumps(parts, sort_keys=True)
    # With the parts in its key, it shows what is changed above.
    key = f"{stem}-text-{session.form_generation()}-{hashlib.sha1(text.encode()).hexdigest()[:8]}"

    def take(wanted: Any) -> None:
        session.renew_forms()
        put(wanted)

    fields.widget({**fields.described()[use.field], "help": "The parts"}, parts, key, take)


def _part(
    kinds: dict[str, Any],
    parts: Parts,
    number: int,
    part: dict[str, Any],
    columns: list[str],
    put_all: Put,
    editor: str,
    *,
    sole: bool,
) -> None:
    kind = kinds[part["kind"]]
    whole = RewardPart.model_validate(part).model_dump(mode="json")
    stem = f"{editor}-{number}-{session.form_generation()}"

    def put(name: str, value: Any) -> None:
        if name == "weight" and value is None:
            value = 1.0
        put_all([{**one, name: value} if place == number else one for place, one in enumerate(parts)])

    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f":material/{kind.icon}: **{kind.title}**", width="stretch")
            remove = {"icon": ":material/delete:", "type": "tertiary", "disabled": sole, "help": "Take this part out"}
            st.button("Remove", key=f"{stem}-remove", on_click=_remove, args=(parts, number, put_all), **remove)
        st.caption(words.literal(kind.meaning))
        if not kind.allowed:
            st.warning("This kind can't be used here, for others use the machine too. Choose another.", icon=":material/lock:")
        long = [field for field in kind.fields if field["name"] in _LONG]
        for field in long:
            _field(field, whole, columns, f"{stem}-{part['kind']}-{field['name']}", put)
        with st.grid(2, min_column_width=260, gap="medium") as grid:
            for field in kind.fields:
                if field not in long:
                    with grid.cell():
                        _field(field, whole, columns, f"{stem}-{part['kind']}-{field['name']}", put)
        if part["kind"] == "judge" and whole["url"]:
            judges.key_of(whole["url"], stem)
        with st.container(horizontal=True, vertical_alignment="bottom"):
            _number_of(whole["weight"], f"{stem}-weight", put)
            _name_of(whole["name"], kind.title, f"{stem}-name", put)
            with st.popover("What to watch for", icon=":material/visibility:"):
                st.markdown(f"**Use it when**  \n{words.literal(kind.use_when)}")
                st.markdown("\n".join(f"- {words.literal(one)}" for one in kind.pitfalls))


def _field(field: dict[str, Any], whole: dict[str, Any], columns: list[str], key: str, put: Callable[[str, Any], None]) -> None:
    # Which kinds read it goes without saying here.
    field = {**field, "help": _KINDS_SAID.sub("", field["help"])}
    name, label = field["name"], words.label(_KINDS_SAID.sub("", field["help"]).rstrip("."))
    value = whole[name]
    if name in _LONG:
        st.text_area(label, value=value, key=key, height=_LONG[name], on_change=lambda: put(name, st.session_state[key]))
    elif name == "model":
        judges.model_field(label, value, whole["url"] if whole["kind"] == "judge" else "", key, lambda typed: put(name, typed))
    elif name == "url":
        judges.url_field(label, value, key, lambda typed: _elsewhere(typed, whole, put))
    elif name in _COLUMNS:
        _column(name, label, value, columns, key, put)
    else:
        fields.widget(field, value, key, lambda typed: put(name, typed))


def _elsewhere(url: str, whole: dict[str, Any], put: Callable[[str, Any], None]) -> None:
    session.renew_forms()
    put("url", url)


def _column(name: str, label: str, value: str, columns: list[str], key: str, put: Callable[[str, Any], None]) -> None:
    """One of the data's columns. A name that the data hasn't is shown as that."""
    usual = {"expected": [""]}.get(name, [])
    options = [*usual, *columns, *([value] if value and value not in columns else [])]
    lost = {value} - {*columns, ""}

    def said(one: str) -> str:
        return f"{one} (not in the data)" if one in lost else one or "the row's own answer"

    st.selectbox(
        label,
        options,
        index=options.index(value) if value in options else None,
        format_func=said,
        key=key,
        accept_new_options=True,
        help="The columns of the data's first rows; another name can be typed." if columns else "The data's columns aren't known yet.",
        on_change=lambda: put(name, (st.session_state[key] or "").strip()),
    )


def _columns(changes: dict[str, Any]) -> list[str]:
    """Those of the chosen data that aren't the prompt itself; none as long as there is no data that can be read."""
    spec = changes.get("data") or {}
    if not any(spec.get(name) for name in ("demo", "path", "dataset")):
        return []
    with suppress(EngineError, ValueError):
        return services.engine().rewards.columns(changes)
    return []


def _number_of(weight: float, key: str, put: Callable[[str, Any], None]) -> None:
    told = "How much it counts in the sum (weight); below 0 it is a penalty."
    st.number_input(
        "Weight", value=weight, step=0.1, format="%g", key=key, help=told, width=160, on_change=lambda: put("weight", st.session_state[key])
    )


def _name_of(name: str, title: str, key: str, put: Callable[[str, Any], None]) -> None:
    st.text_input(
        "Name in charts",
        value=name,
        placeholder=title,
        key=key,
        max_chars=40,
        width=220,
        on_change=lambda: put("name", st.session_state[key]),
    )


def _add(kinds: dict[str, Any], parts: Parts, put_all: Put, editor: str) -> None:
    allowed = [name for name, kind in kinds.items() if kind.allowed]
    key = f"{editor}-add-{session.form_generation()}"
    with st.container(horizontal=True, vertical_alignment="bottom"):
        label = "Another part" if parts else "Go by"
        picked = st.selectbox(label, allowed, format_func=lambda name: kinds[name].title, key=key, width=280)
        add = {"icon": ":material/add:", "args": (kinds, parts, key, put_all), "on_click": _put_in}
        st.button("Add", key=f"{editor}-add", **add)
        if parts:
            replace = {"args": (kinds, [], key, put_all), "on_click": _put_in, "help": "Begin with this one instead of what is there"}
            st.button("Use only this", key=f"{editor}-only", type="tertiary", **replace)
    st.caption(words.literal(kinds[picked].use_when))


def _put_in(kinds: dict[str, Any], parts: Parts, key: str, put_all: Put) -> None:
    """With its example filled in, so that there is never a part that can't be used."""
    kind = kinds[st.session_state[key]]
    known = {field["name"] for field in kind.fields}
    new = {"kind": kind.name, **{name: value for name, value in kind.example["part"].items() if name in known}}
    if kind.name == "judge" and "url" not in new:
        models = services.engine().models()
        new["model"] = models[0].id if models else "nano"
    put_all([*parts, new])
    session.renew_forms()


def _remove(parts: Parts, number: int, put_all: Put) -> None:
    put_all([one for place, one in enumerate(parts) if place != number])
    session.renew_forms()
