"""Replies about tuned models: which there are, which is the best, what one of them can do, the way to a chat. Changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.assistant import proven
from engine.assistant.desk import Desk, State
from engine.assistant.reply import DEMO, Action, Choice, Reply
from engine.assistant.wording import safe
from engine.evaluation import outcome

if TYPE_CHECKING:
    from engine.assistant.meaning import Meaning


def one(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """What is known of a model that is named."""
    model = desk.thing(*meaning.things[0])[1] if meaning.things else None
    if model is None:
        return models(desk, meaning, state)
    about = desk.registry.about(model.id)
    lines = [f"**{safe(model.name)}** stands on {safe(model.base_model)}."]
    if about.parent:
        lines.append(f"It goes on from {safe(about.parent.name)}.")
    if found := proven.sentences(model.proof):
        lines.append(found)
    if cases := about.lesson.get("cases"):
        lines.append(
            f"It was taught by correcting: it answers {sum(bool(case['right']) for case in cases)} of {len(cases)} prompts as taught."
        )
    if not found and not cases:
        lines.append("Nothing was proven of it: its run ended early, or had no held-out examples.")
    usable = about.files or bool(about.away)
    if not usable:
        lines.append("Its files are gone, so it can't be talked to or trained further.")
    choices = [Choice("Compare it with what it was made from", f"Compare model {model.id} with its base")]
    if model.weights_path and usable:
        choices.insert(0, Choice("Train it further", f"Train model {model.id} further"))
    chat = (Action("chat", f"Chat with {model.name[:40]}", model.id),) if usable else ()
    reply = Reply("model", " ".join(lines), tuple(choices), (*chat, Action("model", "About this model", model.id)))
    return reply, replace(state, model=model.id, run=model.job_id or state.run)


def best(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """The models by what they were proven to do."""
    models = desk.registry.find()
    if not models:
        return Reply(
            "best_model", "There is no tuned model yet: each finished run leaves one.", (DEMO,), (Action("models", "Models"),)
        ), state
    rows = [(found, outcome.count(model.proof), model) for model in models if (found := outcome.headline(model.proof))]
    if not rows:
        text = (
            "None of your models has a proof: their runs ended early, or kept no examples aside. The newest is at the top of the Models "
            "page."
        )
        return Reply("best_model", text, (), (Action("models", "Models"),)), state
    rows.sort(key=lambda row: (_kind(row[0]), row[0].after if row[0].better == "down" else -row[0].after, -row[2].created_at))
    found, count, first = rows[0]
    on = f" on {count:,} prompts it had never seen" if count else ""
    text = f"**{safe(first.name)}**: {found.called} went from {found.was} to {found.now}{on}."
    if len(rows) > 1:
        kinds = " that are of one kind, and" if len({one.name for one, _, _ in rows}) > 1 else ""
        text += f" Such figures compare only{kinds} between models that were tested on the same examples."
    facts = tuple({"model": model.name, "proof": proven.short(model.proof), "prompts": f"{asked:,}"} for _, asked, model in rows[:6])
    actions = (Action("chat", f"Chat with {first.name[:40]}", first.id), Action("models", "All models"))
    choices = (
        Choice("Train it further", f"Train model {first.id} further"),
        Choice("Compare my last two runs", "Compare my last two runs"),
    )
    shown = [{"kind": "model", "id": model.id} for _, _, model in rows[:6]]
    return Reply("best_model", text, choices, actions, facts=facts), replace(state, model=first.id, shown=shown)


def models(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """What was trained."""
    found = desk.registry.find()
    if not found:
        return Reply(
            "list_models", "There is no tuned model yet: each finished run leaves one.", (DEMO,), (Action("models", "Models"),)
        ), state
    facts = tuple({"model": model.name, "on": model.base_model, "proof": proven.short(model.proof)} for model in found[:8])
    actions = (Action("chat", f"Chat with {found[0].name[:40]}", found[0].id), Action("models", "All models"))
    text = f"There {'is one model' if len(found) == 1 else f'are {len(found):,} models'} of yours."
    choices = (Choice(f"Train {found[0].name[:40]} further", f"Train model {found[0].id} further"),)
    shown = [{"kind": "model", "id": model.id} for model in found[:8]]
    return Reply("list_models", text, choices, actions, facts=facts), replace(state, shown=shown)


def chat(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """The way to a chat with what was trained."""
    found = desk.registry.find()
    named = [desk.thing(*thing)[1] for thing in meaning.things]
    wanted = [model for model in named if model]
    if not found:
        text = "There is no tuned model to talk to yet. You can talk to nano as it is, or train it first: the demo takes about a minute."
        return Reply("chat", text, (DEMO,), (Action("chat", "Chat with nano", "base:nano"),)), state
    talked_of = [model for model in found if model.id == state.model or (state.run and model.job_id == state.run)]
    shown = wanted or talked_of or found[:3]
    actions = tuple(Action("chat", f"Chat with {model.name[:40]}", model.id) for model in shown[:3])
    return Reply("chat", "It opens in the Playground; it works while other runs train.", (), actions), state


def _kind(found: outcome.Measured) -> tuple[int, str]:
    """Models are ranked among those that were judged by the same; right answers first."""
    return outcome.FIRST.index(found.name) if found.name in outcome.FIRST else len(outcome.FIRST), found.name
