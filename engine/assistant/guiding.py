"""Replies that show the way: where data goes, where keys are given, how answers are corrected, which of a list is meant.

What may be done and what is kept is told as it is for this owner; changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine import endpoints, keys
from engine.assistant.desk import Desk, State, called
from engine.assistant.reply import Action, Choice, Reply
from engine.assistant.wording import safe
from engine.jobs import states

if TYPE_CHECKING:
    from engine.assistant.meaning import Meaning

_RUNS = Choice("Which runs are there?", "List my runs")
_LISTS = (
    _RUNS,
    Choice("Which models do I have?", "Which models do I have?"),
    Choice("Which data sets are there?", "Which data sets are there?"),
)


def privacy(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Where data, models and keys are, and who sees them."""
    away = {name: endpoints.kind(name).title for name in endpoints.names() if not endpoints.kind(name).weights}
    lines = []
    if desk.policy.shared:
        lines.append(
            "You share this server. Other visitors see nothing of yours: no data, runs, models, chats or keys. Whoever runs the server can "
            "read its disk, so don't bring what they mustn't see."
        )
        lines.append("Training on this machine sends nothing anywhere.")
    else:
        lines.append(
            "What you add and train stays on this machine, in one folder that the settings show. Training here sends nothing anywhere, and "
            "neither do I: I go by rules, without a network."
        )
        lines.append("A base model that isn't here yet is downloaded from its hub; nothing of yours goes there.")
    if away:
        names = " or ".join(away.values())
        lines.append(f"Only a run that you place at {names} sends its examples there. You choose that yourself, run by run, under Where.")
        used = [job for job in desk.newest(limit=200) if job.endpoint in away]
        lines.append(
            f"{len(used):,} of your runs {'was' if len(used) == 1 else 'were'} placed there; the newest is {called(used[0])}."
            if used
            else "None of your runs was placed there."
        )
    lines.append("Keys are never shown, and written to no log and no database.")
    choices = (Choice("What can this computer do?", "What can this computer do?"),)
    return Reply("privacy", " ".join(lines), choices, (Action("settings", "Open Settings"),)), state


def key(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Where keys are given, which are there, and which runs wait for one."""
    needs = endpoints.needs()
    there = [need.title for need in needs if keys.find(desk.owner, need) is not None]
    missing = [need.title for need in needs if need.title not in there]
    lines = ["Training on this machine needs no key."]
    if missing:
        lines.append(
            f"For {' and '.join(missing)} one is needed: give it in the settings, never here. It is tried at once, and never shown."
        )
    if there:
        lines.append(f"The key for {' and '.join(there)} is there.")
    waiting = desk.newest((states.NEEDS_KEY,), 5)
    if waiting:
        lines.append(
            f"{', '.join(map(called, waiting))} wait{'s' * (len(waiting) == 1)} for it, and go{'es' * (len(waiting) == 1)} on by then."
        )
    return Reply(
        "key", " ".join(lines), (_RUNS,) if waiting else (), (Action("settings", "Give the key" if missing else "Open Settings"),)
    ), state


def correcting(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """How a model is taught by correcting its answers in a chat."""
    found = [desk.thing(*thing)[1] for thing in meaning.things] or [model for model in desk.registry.find() if model.weights_path][:2]
    models = [model for model in found if model]
    text = (
        "You can teach a model by correcting it. In the Playground, chat with it; under a wrong answer press **Correct it** and write what "
        "it should have said. After a few corrections press **Learn**: it practises them for some seconds along with its other answers, so "
        "that it keeps those, and the chat goes on with the newer version. **Undo** takes it back. For much that is wrong, examples in a "
        "file teach more: corrections can be saved as a data set too."
    )
    talk = state.run and next((model for model in models if model.job_id == state.run), None)
    models = [talk] if talk else models
    actions = tuple(Action("chat", f"Correct {model.name[:40]}", model.id) for model in models[:2]) or (
        Action("chat", "Correct nano", "base:nano"),
    )
    return Reply("correcting", text, (Choice("I have examples in a file", "How do I upload a file?"),), actions), state


def which_one(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """It points at what no list has."""
    count = len(state.shown)
    if not count:
        return Reply("which_one", "Which do you mean? I have shown no list yet.", _LISTS), state
    many = "only one" if count == 1 else f"{count}"
    return Reply(
        "which_one", f"The last list has {many}; which of them do you mean? Say its name, or its number in the list.", _LISTS
    ), state


def key_waited_for(name: str) -> str:
    """What to do about a run that waits for a key."""
    return f"It waits for a key of yours for {safe(name)}: give it in the settings, and the run goes on by itself."
