"""A chat with one model, or with two side by side: who answers, how, what was said, and the answers as they grow.

Who answers stands in the address, what was said in the store; the session holds only what isn't settled yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import navigation, services, session
from app.components import chat_setup, teaching, thumbs, tokens, trouble, words
from engine.amounts import duration

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

    from engine.playground import Answer, Exchange, Playground, Settings, Speaker
    from engine.store import Conversation, Correction, Rating, Turn

_WIDTH = 860  # what reads well; two answers take all the room there is
_PERSON, _MODEL = ":material/person:", ":material/neurology:"
_AGAIN = "Takes back the last message with its answers and asks it anew, of whoever is chosen above and by the present settings."
_ENDS = {"length": "cut off at the longest answer allowed (settings)", "stopped": "stopped", "failed": "broke off"}


def show(model_ref: str, with_ref: str, chat_id: str) -> None:
    """The Playground. Raises NotFound for a conversation that isn't there."""
    playground = services.engine().playground
    conversation = playground.conversation(chat_id) if chat_id else None
    # Looked at before the turns: what is kept between the two looks is seen twice for a moment, and not missed.
    exchange = playground.under_way(chat_id) if chat_id else None
    turns = playground.turns(chat_id) if chat_id else []
    st.title("Playground", anchor=False)
    who = chat_setup.speakers(playground, conversation, model_ref, with_ref)
    settings = chat_setup.bar(playground, conversation, who)
    with st.container(horizontal_alignment="center"):
        place = st.container(width="stretch" if len(who) > 1 else _WIDTH)
    corrections = services.engine().teaching.corrections(chat_id) if chat_id else []
    ratings = services.engine().ratings.of_chat(chat_id) if chat_id else []
    with place:
        _history(playground, turns, who, settings, corrections, ratings)
        if not turns:
            # Empty at once in each run: the welcome must not stand beside the first answer.
            welcome = st.empty()
        answers = st.container()
        # Pinned below, the box scrolls the page to its end: before a conversation the beginning would be out of sight on a phone.
        # Where it stood is emptied at once: two boxes would wait for the first answer's end, and what is typed into the old one be lost.
        box = st.empty()
    with nullcontext() if turns or exchange else box.container():
        prompt = st.chat_input("Type a message", key="say", submit_mode="disable", max_chars=20_000) or session.take_prompt()
    if prompt:
        if exchange:
            exchange.settle()
            turns = playground.turns(chat_id)
        asked = _ask(playground, conversation, turns, who, settings, prompt)
        if turns and not exchange:
            with answers:
                _draw_answers(asked)
        st.rerun()
    elif exchange:
        # Asked in another tab, or in this one before F5 or a click on something else.
        with answers:
            _draw_answers(exchange)
        st.rerun()
    elif not turns:
        with welcome.container():
            _welcome(playground, who)
    elif conversation:
        with place, st.container(horizontal=True, horizontal_alignment="right"):
            arguments = (playground, conversation.id, turns[-1].id)
            st.button("Ask again", key="again", icon=":material/refresh:", type="tertiary", help=_AGAIN, on_click=_again, args=arguments)
        with place, trouble.boundary():
            teaching.below(conversation, turns, who, settings, corrections)


def _welcome(playground: Playground, who: Sequence[Speaker]) -> None:
    first = who[0]
    with st.container(border=True):
        st.markdown(f"## Talk to {' and '.join(words.literal(speaker.name) for speaker in who)}", anchors=False)
        st.markdown(_introduction(who))
        asked = playground.prompts(first)
        if asked:
            st.caption("Try one of these:")
            with st.container(horizontal=True):
                for number, prompt in enumerate(asked):
                    kind: Any = "secondary" if number else "primary"
                    st.button(words.literal(prompt), key=f"try-{number}", type=kind, on_click=session.ask_next, args=(prompt,))
        if len(who) == 1 and first.kind != "base":
            base = f"base:{first.base_model}"
            navigation.link_to_chat(
                first.ref,
                f"Ask it and {words.literal(first.base_model)}, which it was made from, side by side",
                beside=base,
                icon=":material/compare:",
            )
        if first.kind == "base":
            navigation.link(navigation.TRAINING, "Teach it something first")


def _introduction(who: Sequence[Speaker]) -> str:
    if len(who) > 1:
        return "Both get the same prompts, and each sees its own answers only."
    speaker = who[0]
    base = words.literal(speaker.base_model)
    return {
        "base": f"The base model {base} as it is, before any training of yours.",
        "model": f"Tuned on the base model {base}. It is spoken to as it was trained: same form, same system prompt.",
        "checkpoint": f"A checkpoint: what the run had made of {base} by then.",
    }[speaker.kind]


def _history(
    playground: Playground,
    turns: Sequence[Turn],
    who: Sequence[Speaker],
    settings: Settings,
    corrections: Sequence[Correction],
    ratings: Sequence[Rating],
) -> None:
    for number, turn in enumerate(turns):
        _said_by_person(turn.prompt)
        for side, place in enumerate(_sides(len(turn.answers))):
            with place:
                _said_by_model(playground, turns[:number], turn, side, settings, corrections, ratings, named=_needs_name(turn, who))


def _needs_name(turn: Turn, who: Sequence[Speaker]) -> bool:
    return len(turn.answers) > 1 or [answer["speaker"] for answer in turn.answers] != [speaker.ref for speaker in who]


def _again(playground: Playground, conversation_id: str, turn_id: int) -> None:
    trouble.attempt(lambda: session.ask_next(playground.take_back(conversation_id, turn_id)))


def _said_by_person(prompt: str) -> None:
    with st.chat_message("user", avatar=_PERSON):
        st.text(prompt)


def _said_by_model(
    playground: Playground,
    before: Sequence[Turn],
    turn: Turn,
    side: int,
    settings: Settings,
    corrections: Sequence[Correction],
    ratings: Sequence[Rating],
    *,
    named: bool,
) -> None:
    answer = turn.answers[side]
    told = teaching.found(corrections, turn, side)
    with st.chat_message("assistant", avatar=_MODEL):
        if named:
            st.badge(words.literal(answer["name"]), color="blue" if side == 0 else "green")
        if teaching.editing(turn, side):
            teaching.editor(turn.conversation_id, turn, side, told)
            return
        _text(st, answer["text"], done=True)
        if told:
            teaching.mark(told)
        if answer.get("error"):
            trouble.show_error(answer["error"])
        with st.container(horizontal=True, vertical_alignment="center"):
            st.caption(_figures(answer), width="content")
            if answer["text"].strip():
                thumbs.beside(turn, side, ratings)
            if answer["text"]:
                tokens.switch(turn.id, side)
            if not answer.get("error") and not teaching.waits(told):
                teaching.switch(turn, side)
        if (turn.id, side) in session.probabilities():
            with trouble.boundary():
                messages = playground.messages(before, side, turn.prompt, settings)
                tokens.show(playground, turn.id, side, answer, messages)


def _figures(answer: dict[str, Any]) -> str:
    parts = [f"{answer['tokens']:,} tokens"] if answer.get("tokens") else []
    if answer.get("tokens") and answer.get("seconds", 0) >= 0.05:
        parts.append(duration(answer["seconds"]))
    return " · ".join([*parts, *filter(None, [_ENDS.get(answer["finish"])])])


def _text(place: Any, text: str, *, done: bool) -> None:
    if text.strip():
        place.markdown(words.prose(text))
    elif done:
        place.markdown(":gray[(nothing)]")


def _sides(count: int) -> Sequence[AbstractContextManager[Any]]:
    return st.columns(count, gap="medium") if count > 1 else [nullcontext()]


def _ask(
    playground: Playground,
    conversation: Conversation | None,
    turns: Sequence[Turn],
    who: Sequence[Speaker],
    settings: Settings,
    prompt: str,
) -> Exchange:
    """Begins to answer, in a new conversation if there is none, which stands in the address from then on."""
    asking = playground.ask(who, [playground.messages(turns, side, prompt, settings) for side in range(len(who))], settings)
    if conversation is None:
        conversation = playground.begin(prompt, who, settings)
    elif chat_setup.changed(conversation, who, settings):
        playground.set_up(conversation.id, who, settings)
    exchange = playground.exchange(conversation.id, prompt, asking)
    st.query_params["chat"] = conversation.id
    return exchange


def _draw_answers(exchange: Exchange) -> None:
    """As they grow, to their end. Streamlit may end this anywhere; the answers go on without it, and are kept."""
    _said_by_person(exchange.prompt)
    answers, places = exchange.asking.answers, []
    for side, (place, answer) in enumerate(zip(_sides(len(answers)), answers, strict=True)):
        with place, st.chat_message("assistant", avatar=_MODEL):
            if len(answers) > 1:
                st.badge(words.literal(answer.speaker.name), color="green" if side else "blue")
            places.append(st.empty())
    # The rerun that it causes ends this one too. (The chat box has a stop mark of its own, but that leaves the page half drawn.)
    st.button("Stop", key="stop", icon=":material/stop_circle:", help="What was said by then is kept.", on_click=_stop, args=(exchange,))
    for _ in exchange.asking.updates():
        for place, answer in zip(places, answers, strict=True):
            _draw(place, answer)
    exchange.settle()


def _stop(exchange: Exchange) -> None:
    trouble.attempt(exchange.settle)


def _draw(place: DeltaGenerator, answer: Answer) -> None:
    """Also what hasn't changed: only while it draws does Streamlit notice that somebody wants to stop."""
    if answer.text:
        place.markdown(words.prose(answer.text))
    elif answer.stage:
        place.caption(words.literal(f"{answer.stage[0].upper()}{answer.stage[1:]}…"))
