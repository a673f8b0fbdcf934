"""The bar above a chat: who answers, the settings, the chats that are kept. Choices of who stand in the address."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import streamlit as st

from app import navigation, session
from app.components import trouble, words
from engine import EngineError
from engine.errors import NotFound
from engine.playground import HELP, LIMITS, Settings

if TYPE_CHECKING:
    from engine.playground import Playground, Speaker
    from engine.store import Conversation

_NOTHING = ""
_LISTED = 30
_SHOWN = words.at_slider("%0.2f")
_KINDS = {"base": " (base model)", "checkpoint": " (checkpoint)", "model": ""}


def speakers(playground: Playground, conversation: Conversation | None, model_ref: str, with_ref: str) -> list[Speaker]:
    """Whom the address names; else those of the conversation; else the newest model. Whoever is gone is told of and passed over."""
    who = []
    for ref in filter(None, (model_ref, with_ref)):
        try:
            who.append(playground.speaker(ref))
        except NotFound as error:
            trouble.show_error(error.to_dict())
    if not model_ref:
        # Whoever is to be compared with stands beside the usual one.
        usual = (playground.speakers_of(conversation) if conversation else []) or playground.speakers()[:1]
        return [usual[0], *who] if who else usual
    return who or playground.speakers()[:1]


def changed(conversation: Conversation, who: Sequence[Speaker], settings: Settings) -> bool:
    """Whether the conversation goes on otherwise than it was kept."""
    kept = conversation.setup
    return kept.get("speakers") != [speaker.ref for speaker in who] or kept.get("settings") != settings.to_dict()


def bar(playground: Playground, conversation: Conversation | None, who: Sequence[Speaker]) -> Settings:
    """Draws it. -> the settings as they stand."""
    listed = playground.speakers()
    names = {speaker.ref: speaker.name + _KINDS[speaker.kind] for speaker in [*listed, *who]}
    refs = list(names)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        _choice("Model", "model", refs, names, who[0].ref, [_ref(who, 1)])
        _choice("Compare with", "with", [_NOTHING, *refs], {_NOTHING: "nothing", **names}, _ref(who, 1), [who[0].ref])
        with st.popover("Settings", icon=":material/tune:"):
            settings = _settings(playground, conversation, who)
        kept = playground.conversations(_LISTED)
        if kept:
            with st.popover("Chats", icon=":material/forum:"):
                _chats(playground, kept, conversation)
        if conversation:
            st.button("New chat", key="new-chat", icon=":material/add:", on_click=_leave, args=(who,))
    return settings


def _ref(who: Sequence[Speaker], side: int) -> str:
    return who[side].ref if side < len(who) else _NOTHING


def _choice(label: str, slot: str, refs: list[str], names: dict[str, str], chosen: str, other: list[str]) -> None:
    # The choice is part of the key: a link that names another one has to win over what the widget remembers.
    key = f"{slot}.{chosen}"

    def choose() -> None:
        ref = st.session_state[key]
        first, second = (ref, other[0]) if slot == "model" else (other[0], ref)
        st.query_params["model"] = first
        if second:
            st.query_params["with"] = second
        else:
            st.query_params.pop("with", None)

    st.selectbox(label, refs, index=refs.index(chosen), format_func=lambda ref: names[ref], key=key, on_change=choose, width=250)


def _settings(playground: Playground, conversation: Conversation | None, who: Sequence[Speaker]) -> Settings:
    kept = playground.settings_of(conversation, who)
    place = conversation.id if conversation else "+".join(speaker.ref for speaker in who)
    now = session.chat_settings(place)
    start = Settings.read(now, kept)

    def key(name: str) -> str:
        return f"{name}.{place}"

    low, high = LIMITS["temperature"]
    now["temperature"] = st.slider(
        "How varied (temperature)", low, high, start.temperature, 0.05, _SHOWN, key=key("temperature"), help=HELP["temperature"]
    )
    low, high = LIMITS["top_p"]
    now["top_p"] = st.slider("Likeliest share only (top-p)", low, high, start.top_p, 0.01, _SHOWN, key=key("top_p"), help=HELP["top_p"])
    least, most = (int(limit) for limit in LIMITS["max_tokens"])
    now["max_tokens"] = st.number_input(
        "Longest answer, in tokens", least, most, start.max_tokens, 16, key=key("max_tokens"), help=HELP["max_tokens"]
    )
    least, most = (int(limit) for limit in LIMITS["seed"])
    now["seed"] = st.number_input("Seed", least, most, start.seed, 1, key=key("seed"), help=HELP["seed"], placeholder="anew each time")
    now["remember"] = st.toggle("It remembers the conversation", start.remember, key=key("remember"), help=HELP["remember"])
    trained = next((speaker.system_prompt for speaker in who if speaker.system_prompt), "")
    now["system_prompt"] = st.text_area(
        "System prompt",
        start.system_prompt,
        key=key("system_prompt"),
        help=HELP["system_prompt"],
        placeholder=f"As trained: {trained}" if trained else "None",
        max_chars=8000,
    )
    return Settings.read(now, kept)


def _chats(playground: Playground, kept: list[Conversation], conversation: Conversation | None) -> None:
    if conversation:
        st.caption("This chat")
        with st.form("rename-chat", border=False):
            title = st.text_input("Name", conversation.title, key=f"title.{conversation.id}", max_chars=60)
            renames = st.form_submit_button("Rename")
        if renames:
            try:
                playground.rename(conversation.id, title)
            except EngineError as error:
                trouble.show_error(error.to_dict())
            else:
                st.rerun()
        st.button(
            "Delete this chat for good", key="delete-chat", icon=":material/delete:", on_click=_delete, args=(playground, conversation)
        )
    others = [one for one in kept if conversation is None or one.id != conversation.id]
    if others:
        st.caption("Go on with" if len(kept) < _LISTED else f"Go on with (the last {_LISTED})")
    for one in others:
        label = f"{words.literal(one.title)} :gray[{words.ago(time.time() - one.updated_at)}]"
        navigation.link_to_conversation(one.id, label)


def _delete(playground: Playground, conversation: Conversation) -> None:
    def delete() -> None:
        playground.delete(conversation.id)
        st.query_params.pop("chat", None)

    trouble.attempt(delete, f"{conversation.title} is deleted")


def _leave(who: Sequence[Speaker]) -> None:
    """To a new chat with the same."""
    st.query_params.from_dict(dict(zip(("model", "with"), (speaker.ref for speaker in who), strict=False)))
