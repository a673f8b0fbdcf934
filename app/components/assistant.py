"""A conversation with the assistant: what was said, the newest reply with its buttons, the conversations that are kept.

What was said is in the store, and which conversation it is stands in the address; the session holds only what a button is about to say.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import navigation, services, session
from app.components import assistant_reply, trouble, words
from engine.assistant import MOST_CHARACTERS

if TYPE_CHECKING:
    from engine.assistant import Assistant
    from engine.store import Talk

_WIDTH = 860
_LISTED = 20
_PERSON, _SELF = ":material/person:", ":material/assistant:"


def show(talk_id: str) -> None:
    """The Assistant. Raises NotFound for a conversation that isn't there."""
    assistant = services.engine().assistant
    _head(assistant, talk_id)
    talk = assistant.talk(talk_id) if talk_id else None
    with st.container(horizontal_alignment="center"):
        column = st.container(width=_WIDTH)
    place = column.container()
    # Pinned below, it scrolls the page to its end: right for a conversation, but before one the beginning would be out of sight on a phone.
    with nullcontext() if talk else column:
        said = st.chat_input("What should a model learn? Or ask how a run is", key="say", max_chars=MOST_CHARACTERS)
    said = said or session.take_saying()
    with place:
        if talk:
            _history(talk, answering=bool(said))
        elif not said:
            _welcome(assistant)
        if said:
            _answer(assistant, said, talk_id)


def _head(assistant: Assistant, talk_id: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        st.title("Assistant", anchor=False, width="content")
        with st.container(horizontal=True, vertical_alignment="center", width="content"):
            kept = assistant.talks(_LISTED)
            if talk_id:
                st.button("New conversation", key="new-talk", icon=":material/add:", on_click=lambda: st.query_params.pop("talk", None))
            if kept:
                with st.popover("Conversations", icon=":material/forum:"):
                    _kept(assistant, kept, talk_id)


def _kept(assistant: Assistant, kept: list[Talk], talk_id: str) -> None:
    this = next((talk for talk in kept if talk.id == talk_id), None)
    if this:
        st.caption(f"This one: {words.literal(this.title)}")
        sure = st.checkbox("Delete it for good; what was started from it stays", key=f"sure.{talk_id}")
        st.button("Delete", key="delete-talk", icon=":material/delete:", disabled=not sure, on_click=_delete, args=(assistant, this))
    others = [talk for talk in kept if talk.id != talk_id]
    if others:
        st.caption("Go on with" if len(kept) < _LISTED else f"Go on with (the last {_LISTED})")
    for talk in others:
        navigation.link_to_talk(talk.id, f"{words.literal(talk.title)} :gray[{words.ago(time.time() - talk.updated_at)}]")


def _delete(assistant: Assistant, talk: Talk) -> None:
    def delete() -> None:
        assistant.delete(talk.id)
        st.query_params.pop("talk", None)

    trouble.attempt(delete, f"“{talk.title}” is deleted")


def _welcome(assistant: Assistant) -> None:
    with st.container(border=True):
        st.markdown("## Say what you want in plain English", anchors=False)
        st.markdown(
            "I put together a training from a goal, say how your runs are, and explain what the words and numbers mean. I go by rules and "
            "Thinker's own knowledge: no language model, no key, no network. Nothing starts until you press its button."
        )
        with st.container(horizontal=True):
            for number, choice in enumerate(assistant.openings()):
                kind: Any = "secondary" if number else "primary"
                st.button(words.literal(choice.label), key=f"open-{number}", type=kind, on_click=session.say_next, args=(choice.say,))


def _history(talk: Talk, *, answering: bool) -> None:
    proposals = [number for number, turn in enumerate(talk.turns) if (turn.get("reply") or {}).get("proposal")]
    started = services.engine().assistant.started(talk.id)
    for number, turn in enumerate(talk.turns):
        if turn["role"] == "user":
            _person(turn.get("text", ""))
        elif turn["role"] == "assistant":
            with st.chat_message("assistant", avatar=_SELF), trouble.boundary():
                newest = number == len(talk.turns) - 1 and not answering
                current = bool(proposals) and number == proposals[-1] and not answering
                assistant_reply.show(talk.id, number, turn["reply"], newest=newest, current=current, started=started.get(number, ""))
        elif turn.get("kind") == "started":
            with st.chat_message("assistant", avatar=_SELF), trouble.boundary():
                assistant_reply.run(turn["job"], newest=number == len(talk.turns) - 1 and not answering)


def _answer(assistant: Assistant, said: str, talk_id: str) -> None:
    _person(said)
    with st.chat_message("assistant", avatar=_SELF), st.spinner("Looking it up"):
        st.query_params["talk"] = assistant.say(said, talk_id).id
    st.rerun()


def _person(text: str) -> None:
    with st.chat_message("user", avatar=_PERSON):
        st.text(text or "(nothing)")
