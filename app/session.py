"""Everything that a session remembers, in one list, typed. None of it is a widget's key: those vanish with their widget.

What has to survive F5 isn't here but in the address (`?job=`) or in the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import streamlit as st

from app.run_data import RunData

if TYPE_CHECKING:
    from engine.playground import Token
    from engine.upkeep import Tally

T = TypeVar("T")
_RUNS_KEPT = 4


@dataclass(frozen=True)
class Notice:
    """Something to tell the person at the next rerun; a toast that is followed by one would be lost."""

    kind: Literal["done", "trouble"]
    text: str


def owner() -> str:
    """Whose session this is; empty until it is known. Settled once: whoever signs out gets another session."""
    return st.session_state.get(_name("owner"), "")


def set_owner(name: str) -> None:
    """Settles whose it is."""
    st.session_state[_name("owner")] = name


def notices() -> list[Notice]:
    """Waiting to be shown."""
    return _get("notices", list)


def run_data(job_id: str) -> RunData:
    """What was fetched of a run so far; the few looked at last are kept."""
    runs: dict[str, RunData] = _get("runs", dict)
    found = runs.pop(job_id, None) or RunData()
    runs[job_id] = found
    for oldest in list(runs)[:-_RUNS_KEPT]:
        del runs[oldest]
    return found


def forget_run(job_id: str) -> None:
    """Drops what was fetched of a run that is gone."""
    _get("runs", dict).pop(job_id, None)


def travels() -> dict[tuple[str, str], dict[int, str]]:
    """{(job id, prompt): {step: answer}}: what checkpoints were asked so far."""
    return _get("travels", dict)


def reward_check(editor: str) -> tuple[str, Any] | None:
    """(what was tried, what came of it) in the last test run of an editor of rewards."""
    return _get("reward_checks", dict).get(editor)


def keep_reward_check(editor: str, tried: str, found: Any) -> None:
    """In place of the one before."""
    _get("reward_checks", dict)[editor] = (tried, found)


def wish_again(job_id: str, changes: dict[str, Any]) -> None:
    """Notes that the run should be trained again with these changes; the page asks for the rest."""
    st.session_state[_name("wish")] = (job_id, changes)


def take_wish() -> tuple[str, dict[str, Any]] | None:
    """What was wished for, once."""
    return st.session_state.pop(_name("wish"), None)


def wished() -> bool:
    """Whether something waits to be taken."""
    return _name("wish") in st.session_state


def figures() -> dict[str, dict[str, Any]]:
    """Key figures of the runs that came to an end, by id: they change no more."""
    return _get("figures", dict)


def keep_figures(rows: list[dict[str, Any]]) -> None:
    """The newest of them all."""
    st.session_state[_name("figures")] = {row["id"]: row for row in rows}


def cards_listed() -> int:
    """How many runs Analytics shows as cards."""
    return _get("cards_listed", lambda: 12)


def list_more_cards(more: int = 12) -> None:
    """Shows more of them."""
    st.session_state[_name("cards_listed")] = cards_listed() + more


def runs_listed() -> int:
    """How many runs the list shows."""
    return _get("runs_listed", lambda: 20)


def list_more_runs(more: int = 20) -> None:
    """Shows more of them."""
    st.session_state[_name("runs_listed")] = runs_listed() + more


# -- Playground and Models


def chat_settings(chat: str) -> dict[str, Any]:
    """What was changed of a chat's settings, by field; `chat` is a conversation's id, or whom a new one is with."""
    return _get("chat_settings", dict).setdefault(chat, {})


def ask_next(prompt: str) -> None:
    """A prompt that a button chose, to be asked in the coming rerun."""
    st.session_state[_name("ask_next")] = prompt


def take_prompt() -> str:
    """The prompt that waits, once."""
    return st.session_state.pop(_name("ask_next"), "")


def probabilities() -> dict[tuple[int, int], list[Token] | None]:
    """Answers whose tokens are shown, by turn and side; None until they are worked out."""
    return _get("probabilities", dict)


def correcting() -> tuple[int, int] | None:
    """The answer that is open to be corrected, by turn and side."""
    return st.session_state.get(_name("correcting"))


def correct(answer: tuple[int, int] | None) -> None:
    """Opens an answer, or closes the one that is open."""
    st.session_state[_name("correcting")] = answer


def models_listed() -> int:
    """How many models the list shows."""
    return _get("models_listed", lambda: 20)


def list_more_models(more: int = 20) -> None:
    """Shows more of them."""
    st.session_state[_name("models_listed")] = models_listed() + more


def stored(endpoint: str) -> list[Any] | None:
    """What was last seen to be stored there; None before."""
    return _get("stored", dict).get(endpoint)


def keep_stored(endpoint: str, kept: list[Any] | None) -> None:
    """Shown until it is looked at again."""
    _get("stored", dict)[endpoint] = kept


def fetched(path: str) -> bytes | None:
    """The zip of a stored checkpoint that was fetched last."""
    found: dict[str, bytes] = _get("fetched", dict)
    return found.get(path)


def keep_fetched(path: str, content: bytes) -> None:
    """One at a time: they may be big."""
    st.session_state[_name("fetched")] = {path: content}


# -- the wizard: what it has chosen is in the store (engine.drafts)


def form_generation() -> int:
    """Part of the keys of fields: a new one makes them show what was set elsewhere, by a preset or another choice."""
    return _get("form_generation", lambda: 0)


def renew_forms() -> None:
    """Fields show what is kept, whatever was typed before."""
    st.session_state[_name("form_generation")] = form_generation() + 1


# -- Datasets


@dataclass(frozen=True)
class Arrival:
    """What became of a file that was dropped: a data set, or an error. `known`: these very bytes were there already."""

    file: str
    dataset_id: str = ""
    error: dict[str, Any] | None = None
    known: bool = False


def arrivals() -> list[Arrival]:
    """The files dropped in this session, newest first, until they are put aside."""
    return _get("arrivals", list)


def upload_round() -> int:
    """Changes when dropped files were taken over, so that the field for them is empty again."""
    return _get("upload_round", int)


def next_upload_round() -> None:
    """Empties the field."""
    st.session_state[_name("upload_round")] = upload_round() + 1


def datasets_listed() -> int:
    """How many data sets the list shows."""
    return _get("datasets_listed", lambda: 24)


def list_more_datasets(more: int = 24) -> None:
    """Shows more of them."""
    st.session_state[_name("datasets_listed")] = datasets_listed() + more


def found_rows() -> dict[tuple[str, int, str], list[int]]:
    """What was searched for last, by data set, its bytes and text: the places of the rows."""
    return _get("found_rows", dict)


# -- Assistant


def say_next(text: str) -> None:
    """What a button says to the assistant, in the coming rerun."""
    st.session_state[_name("say_next")] = text


def take_saying() -> str:
    """What waits to be said, once."""
    return st.session_state.pop(_name("say_next"), "")


# -- Settings


def tally(make: Callable[[], Tally]) -> Tally:
    """The data directory as far as it has been gone through."""
    return _get("tally", make)


def forget_tally() -> None:
    """It is gone through anew."""
    st.session_state.pop(_name("tally"), None)


def diagnostics() -> str:
    """What was gathered last; empty before."""
    return _get("diagnostics", str)


def keep_diagnostics(text: str) -> None:
    """Shown until they are gathered again."""
    st.session_state[_name("diagnostics")] = text


def _get(key: str, make: Callable[[], T]) -> T:
    name = _name(key)
    if name not in st.session_state:
        st.session_state[name] = make()
    return st.session_state[name]


def _name(key: str) -> str:
    return f"thinker.{key}"
