"""Replies about tuned models: which there are, which is the best, what one of them can do, the way to a chat. Changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.assistant.desk import Desk, State
from engine.assistant.reply import Action, Choice, Reply
from engine.assistant.wording import percent, safe

if TYPE_CHECKING:
    from engine.assistant.meaning import Meaning
    from engine.store import Model

_DEMO = Choice("Show me the one-minute demo", "Show me the one-minute demo")


def one(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """What is known of a model that is named."""
    model = desk.thing(*meaning.things[0])[1] if meaning.things else None
    if model is None:
        return models(desk, meaning, state)
    about = desk.registry.about(model.id)
    lines = [f"**{safe(model.name)}** stands on {safe(model.base_model)}."]
    if about.parent:
        lines.append(f"It goes on from {safe(about.parent.name)}.")
    if found := proof_of(model):
        before, after = found
        lines.append(
            f"On {after['count']:,} prompts it had never seen, right answers went from {percent(before['exact_match'])} to "
            f"**{percent(after['exact_match'])}**."
        )
    if cases := about.lesson.get("cases"):
        lines.append(
            f"It was taught by correcting: it answers {sum(bool(case['right']) for case in cases)} of {len(cases)} prompts as taught."
        )
    skills = (model.proof or {}).get("skills") or {}
    if skills.get("before") is not None and skills.get("after") is not None:
        lines.append(f"General skills: {percent(skills['before'])} before, {percent(skills['after'])} after.")
    if not found and not cases:
        lines.append("Nothing was proven of it: its run ended early, or had no held-out examples.")
    if not about.files:
        lines.append("Its files are gone, so it can't be talked to or trained further.")
    choices = [Choice("Compare it with what it was made from", f"Compare model {model.id} with its base")]
    if model.weights_path and about.files:
        choices.insert(0, Choice("Train it further", f"Train model {model.id} further"))
    chat = (Action("chat", f"Chat with {model.name[:40]}", model.id),) if about.files else ()
    reply = Reply("model", " ".join(lines), tuple(choices), (*chat, Action("model", "About this model", model.id)))
    return reply, replace(state, model=model.id, run=model.job_id or state.run)


def best(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """The models by what they were proven to do."""
    models = desk.registry.find()
    if not models:
        return Reply(
            "best_model", "There is no tuned model yet: each finished run leaves one.", (_DEMO,), (Action("models", "Models"),)
        ), state
    proven = [
        (after["exact_match"], before["exact_match"], after["count"], model)
        for model in models
        if (found := proof_of(model))
        for before, after in [found]
    ]
    if not proven:
        text = (
            "None of your models has a proof: their runs ended early, or kept no examples aside. The newest is at the top of the Models "
            "page."
        )
        return Reply("best_model", text, (), (Action("models", "Models"),)), state
    proven.sort(key=lambda row: (-row[0], -row[3].created_at))
    first = proven[0]
    text = (
        f"**{safe(first[3].name)}**: {percent(first[0])} right on {first[2]:,} prompts it had never seen, from {percent(first[1])} before."
    )
    if len(proven) > 1:
        text += " Such figures compare only between models that were tested on the same examples."
    facts = tuple(
        {"model": model.name, "before": percent(was), "after": percent(now), "prompts": f"{count:,}"}
        for now, was, count, model in proven[:6]
    )
    actions = (Action("chat", f"Chat with {first[3].name[:40]}", first[3].id), Action("models", "All models"))
    choices = (
        Choice("Train it further", f"Train model {first[3].id} further"),
        Choice("Compare my last two runs", "Compare my last two runs"),
    )
    shown = [{"kind": "model", "id": row[3].id} for row in proven[:6]]
    return Reply("best_model", text, choices, actions, facts=facts), replace(state, model=first[3].id, shown=shown)


def models(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """What was trained."""
    found = desk.registry.find()
    if not found:
        return Reply(
            "list_models", "There is no tuned model yet: each finished run leaves one.", (_DEMO,), (Action("models", "Models"),)
        ), state
    facts = tuple(
        {"model": model.name, "on": model.base_model, "right": percent(proof[1]["exact_match"]) if (proof := proof_of(model)) else "–"}
        for model in found[:8]
    )
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
        return Reply("chat", text, (_DEMO,), (Action("chat", "Chat with nano", "base:nano"),)), state
    talked_of = [model for model in found if model.id == state.model or (state.run and model.job_id == state.run)]
    shown = wanted or talked_of or found[:3]
    actions = tuple(Action("chat", f"Chat with {model.name[:40]}", model.id) for model in shown[:3])
    return Reply("chat", "It opens in the Playground; it works while other runs train.", (), actions), state


def proof_of(model: Model) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What was measured on held-out examples before and after; None without a proof by right answers."""
    held_out = (model.proof or {}).get("held_out") or {}
    before, after = held_out.get("before"), held_out.get("after")
    return (before, after) if before and after and "exact_match" in before and "exact_match" in after else None
