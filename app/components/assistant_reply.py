"""One reply of the assistant on the screen: its words, a table, choices and actions to click, a proposal as a card, a run it became.

Choices, and buttons that change something, belong to the newest reply only; links stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app import navigation, services, session
from app.components import explain, runs, trouble, words
from engine import Engine
from engine.assistant import Reply
from engine.errors import NotFound

if TYPE_CHECKING:
    from engine.assistant import Action, Proposal

_COLORS = {"small": "green", "moderate": "orange", "large": "red"}
_CONTROLS = {"pause": "pause", "stop": "stop", "resume": "play_arrow"}
_ARROW = ":material/arrow_forward:"
_AFTER = ("How is my run?", "Is it getting better?", "What does the loss mean?")


def show(talk_id: str, turn: int, values: dict[str, Any], *, newest: bool, current: bool, started: str) -> None:
    """`current`: its proposal is the last one. `started`: the run that its proposal became."""
    reply = Reply.from_dict(values)
    st.markdown(reply.text)
    if reply.facts:
        _facts(reply)
    if reply.proposal:
        _proposal(talk_id, turn, reply, current=current and not started, started=started)
    actions = [action for action in reply.actions if action.kind not in ("launch", "wizard")]
    if actions:
        with st.container(horizontal=True, vertical_alignment="center"):
            for number, action in enumerate(actions):
                _action(action, f"{talk_id}-{turn}-{number}", newest)
    if newest and not started:
        _choices([(choice.label, choice.say) for choice in reply.choices], f"{talk_id}-{turn}")


def run(job_id: str, *, newest: bool) -> None:
    """A run that was started here, live until it comes to rest."""
    engine = services.engine()
    try:
        moving = engine.moving(engine.job(job_id))
    except NotFound:
        st.caption("The run that was started here has been deleted.")
        return
    st.fragment(_live, run_every=1 if moving else None)(job_id, moving)
    if newest:
        _choices([(text, text) for text in (_AFTER if moving else (*_AFTER[:2], "Compare my last two runs"))], job_id)


def _live(job_id: str, moving: bool) -> None:
    with trouble.boundary():
        engine = services.engine()
        card = engine.runs.card(job_id)
        if engine.moving(card.job) != moving:
            st.rerun()
        runs.show_card(engine, card)
        with st.container(horizontal=True, vertical_alignment="center"):
            navigation.link_to_run(job_id, f"{_ARROW} {'Watch it learn' if moving else 'Open the run'}")
            for model in engine.models(job_id)[:1]:
                navigation.link_to_chat(model.id, "Chat with it")


def _facts(reply: Reply) -> None:
    rows = [dict(row) for row in reply.facts]
    st.dataframe(rows, hide_index=True, height=38 + 36 * min(len(rows), 12), alt="Figures that the answer rests on")


def _choices(choices: list[tuple[str, str]], key: str) -> None:
    if not choices:
        return
    with st.container(horizontal=True):
        for number, (label, say) in enumerate(choices):
            st.button(words.literal(label), key=f"choice-{key}-{number}", on_click=session.say_next, args=(say,))


def _proposal(talk_id: str, turn: int, reply: Reply, *, current: bool, started: str) -> None:
    made = reply.proposal
    assert made is not None
    if not current and not started:
        st.caption(f"Proposed: {words.literal(made.summary[0] if made.summary else '')} A later proposal took its place.")
        return
    with st.container(border=True):
        st.markdown(f"**{words.literal(made.recipe.get('name') or 'New training')}**")
        badges = [
            f":{_COLORS.get(takes.size, 'gray')}-badge[{takes.name.capitalize()}: {words.literal(takes.text)}]" for takes in made.takes
        ]
        st.markdown(" ".join(badges))
        st.markdown("\n".join(f"- {words.literal(sentence)}" for sentence in made.summary))
        for warning in made.warnings:
            place = st.error if warning.level == "stop" else st.warning
            place(f"**{words.literal(warning.text)}** {words.literal(warning.action)}", icon=":material/warning:")
        _why(made)
        if started:
            st.badge("Started", icon=":material/check:", color="green")
        else:
            _start(talk_id, turn, reply)


def _why(made: Proposal) -> None:
    with st.expander("Why these settings, and what the estimates rest on"):
        for reason in made.reasons:
            source = f"  \n:gray[{words.literal(reason.source)}]" if reason.source else ""
            chosen = " :blue-badge[chosen]" if reason.chosen else ""
            st.markdown(
                f"**{words.literal(reason.label)}: {words.literal(reason.value)}**{chosen}  \n{words.literal(reason.reason)}{source}"
            )
        for takes in made.takes:
            st.caption(f"{takes.name.capitalize()}: {words.literal('; '.join(takes.assumptions))}")
        st.caption("Estimates are right within a factor of two or so.")


def _start(talk_id: str, turn: int, reply: Reply) -> None:
    label = next((action.label for action in reply.actions if action.kind == "launch"), "Start training")
    sound = reply.proposal is not None and reply.proposal.sound
    with st.container(horizontal=True):
        st.button(
            label,
            key=f"launch-{talk_id}-{turn}",
            type="primary" if sound else "secondary",
            icon=":material/play_arrow:",
            on_click=_launch,
            args=(talk_id, turn),
        )
        drafted = bool(services.engine().drafts.get().goal)
        note = "Takes the place of what you are putting together there." if drafted else None
        if st.button("Change in the Wizard", key=f"wizard-{talk_id}-{turn}", icon=":material/tune:", help=note):
            trouble.attempt(lambda: services.engine().assistant.to_wizard(talk_id, turn))
            session.renew_forms()
            navigation.go(navigation.WIZARD)


def _launch(talk_id: str, turn: int) -> None:
    def launch() -> None:
        engine, assistant = services.engine(), services.engine().assistant
        # Another tab may have been quicker; or as quick, and then both are given the same run.
        if turn not in assistant.started(talk_id):
            job = engine.launch(assistant.recipe(talk_id, turn), token=assistant.token(talk_id, turn))
            assistant.note_start(talk_id, turn, job.id)

    trouble.attempt(launch)


def _action(action: Action, key: str, newest: bool) -> None:
    engine, label = services.engine(), f"{_ARROW} {words.literal(action.label)}"
    if action.kind == "guide":
        if st.button(words.literal(action.label), key=f"act-{key}", icon=":material/menu_book:", type="tertiary"):
            explain.whole_guide()
    elif action.kind in _CONTROLS:
        _control(engine, action, key, newest)
    elif action.kind == "run":
        navigation.link_to_run(action.about, label)
    elif action.kind == "chat" and action.about:
        navigation.link_to_chat(action.about, words.literal(action.label))
    elif action.kind == "beside":
        ref, _, beside = action.about.partition(",")
        navigation.link_to_chat(ref, words.literal(action.label), beside=beside, icon=":material/compare:")
    elif action.kind == "compare":
        navigation.link_to_comparison(action.about.split(","), words.literal(action.label))
    elif action.kind == "dataset":
        navigation.link_to_dataset(action.about, label)
    elif action.kind == "model":
        navigation.link_to_model(action.about, label)
    else:
        places = {
            "runs": navigation.TRAINING,
            "models": navigation.MODELS,
            "datasets": navigation.DATASETS,
            "chat": navigation.PLAYGROUND,
            "settings": navigation.SETTINGS,
        }
        if action.kind in places:
            navigation.link(places[action.kind], label)


def _control(engine: Engine, action: Action, key: str, newest: bool) -> None:
    """Pause, stop or resume, as long as it can be asked of the run and nothing was said since."""
    try:
        possible = newest and action.kind in engine.requests(engine.job(action.about))
    except NotFound:
        return
    if possible:
        ask = {"pause": engine.pause, "stop": engine.stop, "resume": engine.resume}[action.kind]
        done = {"pause": "It is asked to pause", "stop": "It is asked to stop", "resume": "It goes on"}[action.kind]
        st.button(
            words.literal(action.label),
            key=f"act-{key}",
            icon=f":material/{_CONTROLS[action.kind]}:",
            on_click=trouble.attempt,
            args=(lambda: ask(action.about), done),
        )
