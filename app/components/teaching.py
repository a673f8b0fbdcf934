"""Teaching by correcting, in a chat: an answer edited in place, the tray of corrections, the lesson as it goes, before and after, undo.

What it means and how it is done is the engine's (engine.teaching); knows only how it looks.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from app import navigation, services, session
from app.components import chat_setup, trouble, words
from engine.amounts import duration
from engine.errors import NotFound
from engine.teaching import UNDER_WAY

if TYPE_CHECKING:
    from engine.playground import Settings, Speaker
    from engine.store import Conversation, Correction, Lesson, Turn
    from engine.teaching import Case, Teaching

_EVERY_S = 0.5
_HELP = "Write what it should have said. A few corrections together make a lesson of some seconds."


def editing(turn: Turn, side: int) -> bool:
    """Whether this answer is open to be corrected."""
    return session.correcting() == (turn.id, side)


def switch(turn: Turn, side: int) -> None:
    """The button that opens an answer."""
    st.button(
        "Correct it",
        key=f"correct-{turn.id}-{side}",
        icon=":material/edit:",
        type="tertiary",
        help=_HELP,
        on_click=session.correct,
        args=((turn.id, side),),
    )


def editor(conversation_id: str, turn: Turn, side: int, told: Correction | None) -> None:
    """The answer, to be edited."""
    key = f"should.{turn.id}.{side}"
    with st.form(f"correction-{turn.id}-{side}", border=False):
        start = told.correction if told else turn.answers[side]["text"]
        st.text_area("What it should have said", start, key=key, max_chars=20_000)
        with st.container(horizontal=True):
            st.form_submit_button("Keep this correction", type="primary", on_click=_keep, args=(conversation_id, turn.id, side, key))
            st.form_submit_button("Cancel", on_click=session.correct, args=(None,))


def found(corrections: Sequence[Correction], turn: Turn, side: int) -> Correction | None:
    """The newest correction of this answer."""
    for one in reversed(corrections):
        # A turn's number may be given anew once the turn is taken back.
        if (one.turn_id, one.side) == (turn.id, side) and one.answer == turn.answers[side]["text"]:
            return one
    return None


def waits(told: Correction | None) -> bool:
    """Whether it is in the tray."""
    return told is not None and told.lesson_id is None


def mark(told: Correction) -> None:
    """Under an answer that was corrected."""
    with st.container(horizontal=True, vertical_alignment="center"):
        if told.lesson_id is None:
            st.badge("corrected", icon=":material/edit:", color="green")
        else:
            st.badge("corrected and learned", icon=":material/school:", color="gray")
        st.markdown(words.literal(told.correction), width="content")


def below(
    conversation: Conversation, turns: Sequence[Turn], who: Sequence[Speaker], settings: Settings, corrections: Sequence[Correction]
) -> None:
    """What stands under a conversation: the newest lesson, and the tray."""
    teaching = services.engine().teaching
    lessons = teaching.lessons(conversation.id)
    newest = lessons[-1] if lessons else None
    if newest and newest.state in UNDER_WAY:
        _live(newest.id)
        return
    if newest:
        _ended(teaching, newest, turns, who)
    if tray := [one for one in corrections if waits(one)]:
        _tray(teaching, conversation, turns, who, settings, tray)


@st.fragment(run_every=_EVERY_S)
def _live(lesson_id: str) -> None:
    lesson, progress = services.engine().teaching.look(lesson_id)
    if lesson.state not in UNDER_WAY:
        st.rerun()
    with st.container(border=True):
        count = len(lesson.cases)
        st.markdown(f"**Learning {count} correction{'s' * (count != 1)}**")
        stage = words.literal(progress.stage[:1].upper() + progress.stage[1:])
        st.progress(progress.fraction, text=f"{stage} · {duration(max(0.0, time.time() - lesson.created_at))}")
        if progress.job is not None:
            navigation.link_to_run(progress.job.id, "Its run, with the curve")


def _tray(
    teaching: Teaching,
    conversation: Conversation,
    turns: Sequence[Turn],
    who: Sequence[Speaker],
    settings: Settings,
    tray: Sequence[Correction],
) -> None:
    name = words.literal(who[0].name)
    with st.container(border=True):
        st.markdown(f"**{len(tray)} correction{'s' * (len(tray) != 1)}**")
        for one in tray:
            _row(teaching, one, turns)
        can = teaching.teachable(who[0])
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button(
                "Learn",
                key="learn",
                type="primary",
                icon=":material/school:",
                disabled=not can,
                on_click=_learn,
                args=(teaching, conversation, who, settings),
            )
            st.button(
                "Save as data set",
                key="corrections-save",
                icon=":material/dataset:",
                help="All corrections of this chat, as examples to train on; what was said instead is kept beside each.",
                on_click=_save,
                args=(teaching, conversation),
            )
        if can:
            st.caption(f"{name} practises them for some seconds, along with its other answers so that it keeps those. You can undo it.")
        else:
            st.caption(f"{name} can't learn more: its weights to go on from weren't kept. Choose another model above.")


def _row(teaching: Teaching, one: Correction, turns: Sequence[Turn]) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        prompt = one.messages[-1]["content"]
        st.markdown(f":gray[{words.literal(_short(prompt))}] → {words.literal(_short(one.correction))}", width="content")
        # In a container of their own they stay together where there is little room.
        with st.container(horizontal=True, width="content"):
            if any(found([one], turn, side) for turn in turns for side in range(len(turn.answers))):
                place = (one.turn_id, one.side)
                st.button("Edit", key=f"edit-{one.id}", type="tertiary", icon=":material/edit:", on_click=session.correct, args=(place,))
            arguments = (teaching, one.id)
            st.button("Remove", key=f"remove-{one.id}", type="tertiary", icon=":material/close:", on_click=_remove, args=arguments)


def _ended(teaching: Teaching, lesson: Lesson, turns: Sequence[Turn], who: Sequence[Speaker]) -> None:
    playground = services.engine().playground
    if lesson.state == "failed":
        trouble.show_error(lesson.error or {"message": "the lesson failed"})
        return
    names = {}
    for ref in (lesson.taught, lesson.learned):
        try:
            names[ref] = words.literal(playground.speaker(ref).name)
        except NotFound:
            names[ref] = "a model that is gone"
    before, after = names[lesson.taught], names[lesson.learned]
    gone = after == "a model that is gone"
    if lesson.state == "undone":
        if not gone:
            with st.container(border=True, horizontal=True, vertical_alignment="center"):
                st.markdown(f"Undone: {before} answers again. {after} is kept among the models.")
                arguments = (lesson.learned, after)
                st.button(f"Delete {after} for good", key="delete-version", icon=":material/delete:", on_click=_delete, args=arguments)
        return
    if lesson.learned not in [speaker.ref for speaker in who]:
        return
    cases = teaching.cases(lesson)
    right = sum(bool(case.right) for case in cases)
    with st.container(border=True):
        took = duration((lesson.ended_at or lesson.created_at) - lesson.created_at)
        st.markdown(f"**{after} answers {right} of {len(cases)} as corrected** :gray[learned from {before} in {took}]")
        # Where the talk went on, one line will do.
        if not turns or turns[-1].at < (lesson.ended_at or 0):
            _before_and_after(cases)
            if right < len(cases):
                st.caption("The others wait below: learn once more, or write them in simpler words.")
        with st.container(horizontal=True, vertical_alignment="center"):
            help_text = f"{before} answers again; the corrections wait as before, and {after} stays among the models."
            st.button("Undo", key="undo", icon=":material/undo:", help=help_text, on_click=_undo, args=(teaching, lesson))
            navigation.link_to_model(lesson.learned, f"About {after}")


def _before_and_after(cases: Sequence[Case]) -> None:
    for case in cases:
        st.caption(words.literal(_short(case.prompt)))
        left, right = st.columns(2)
        left.markdown(f":gray[before] {words.code(case.answer)}")
        sign, colour = ("as corrected", "green") if case.right else ("not yet", "orange")
        right.markdown(f":gray[now] {words.code(case.after or '')} :{colour}-badge[{sign}]")


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


def _keep(conversation_id: str, turn_id: int, side: int, key: str) -> None:
    def keep() -> None:
        services.engine().teaching.correct(conversation_id, turn_id, side, st.session_state[key])
        session.correct(None)

    trouble.attempt(keep)


def _remove(teaching: Teaching, correction_id: str) -> None:
    trouble.attempt(lambda: teaching.remove(correction_id))


def _learn(teaching: Teaching, conversation: Conversation, who: Sequence[Speaker], settings: Settings) -> None:
    def learn() -> None:
        if chat_setup.changed(conversation, who, settings):
            services.engine().playground.set_up(conversation.id, who, settings)
        teaching.learn(conversation.id, who[0].ref)
        _let_the_chat_say_who()

    trouble.attempt(learn)


def _undo(teaching: Teaching, lesson: Lesson) -> None:
    def undo() -> None:
        teaching.undo(lesson.id)
        _let_the_chat_say_who()

    trouble.attempt(undo)


def _let_the_chat_say_who() -> None:
    """The engine changes who answers in this chat, which an address that names somebody would hide."""
    for name in ("model", "with"):
        st.query_params.pop(name, None)


def _save(teaching: Teaching, conversation: Conversation) -> None:
    def save() -> Any:
        made = teaching.save_as_dataset(conversation.id)
        session.notices().append(session.Notice("done", f"{made.name} is in Datasets"))

    trouble.attempt(save)


def _delete(model_id: str, name: str) -> None:
    trouble.attempt(lambda: services.engine().registry.delete(model_id), f"{name} is deleted")
