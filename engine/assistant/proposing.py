"""From a goal in words to a whole recipe with reasons: asks for what is missing, one thing at a time, and proposes; starts nothing.

Settings, estimates and warnings are the planner's. What was said of the run to come is kept in the conversation's state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine import knowledge
from engine.assistant import asking, by_method, drawing_up, rules
from engine.assistant.desk import Desk, State, called
from engine.assistant.reply import DEMO, Action, Choice, Reply
from engine.assistant.settings_said import merged
from engine.assistant.wording import safe
from engine.errors import EngineError
from engine.recipe import Recipe
from engine.recipe.chain import written

if TYPE_CHECKING:
    from engine.assistant.meaning import Meaning

_NUDGED_LEAST = {"training.batch_size": 1, "lora.rank": 1, "training.steps": 1, "training.max_length": 8}


def plan(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Takes in what was said of the run to come, then asks for the next thing or proposes."""
    if meaning.intent == "change" and not state.goal and not state.changes.get("data"):
        if state.run:
            return again(desk, meaning, state)
        return asking.goal(replace(state, changes=merged(state.changes, meaning.changes)), meaning)
    changes, note = dict(state.changes), ""
    if meaning.method:
        state, changes, note = by_method.taken(desk, meaning, state, changes)
    elif meaning.goal == "demo":
        # A demo is whole as it is: nothing said of other data holds for it. What was noted before any goal does.
        noted = {} if state.goal or changes.get("data") else changes
        changes = {**noted, "data": {"demo": meaning.demo}}
        demo = knowledge.demo(meaning.demo)
        note = f"**{demo['title']}.** {demo['task']} {demo['expect'].strip()} "
        state = replace(state, goal="demo", wish="", rows=None, first=None)
    elif meaning.goal and meaning.intent == "goal":
        if state.goal == "demo" or by_method.of(state) != "sft":
            changes = {name: value for name, value in changes.items() if name not in ("data", "name", "training", "lora")}
        state = replace(state, goal=meaning.goal, wish=meaning.text[:200])
    if meaning.first is not None and not meaning.method:
        state = replace(state, first=meaning.first)
    if meaning.rows is not None:
        state = replace(state, rows=meaning.rows)
    if meaning.dataset or meaning.latest:
        wanted = meaning.dataset or next((found.id for found in desk.library.find()), "")
        if not wanted:
            return asking.rows(desk, replace(state, changes=merged(changes, meaning.changes)), "use_data", "Your library is empty. ")
        changes = {name: value for name, value in changes.items() if name not in ("data", "name", "then")} | {"data": {"dataset": wanted}}
        if state.goal in ("", "demo"):
            goal = meaning.goal or by_method.goal_of_rows(desk.library.get(wanted).shape)
            # What its rows are made for; a goal of plain examples is served by the better answers of a pair, too.
            method = knowledge.goals()[goal]["method"]
            changes = {**changes, **({"method": method} if method != "sft" else {})}
            state = replace(state, goal=goal)
    if meaning.changes.get("base_model") and changes.get("start"):
        # Another base model is another beginning.
        changes = {name: value for name, value in changes.items() if name not in ("start", "lora")}
    if meaning.changes.get("full") is not None and bool(changes.get("full")) != meaning.changes["full"]:
        # A rate that suits adapters doesn't suit all weights, nor the other way round.
        changes = _without(changes, "training.learning_rate")
    if changes.get("then") and meaning.changes.get("training"):
        then = changes["then"]
        changes["then"] = [*then[:-1], merged(then[-1], {"training": meaning.changes["training"]})]
        changes = merged(changes, {name: value for name, value in meaning.changes.items() if name != "training"})
    else:
        changes = merged(changes, meaning.changes)
    if {"steps", "epochs"} <= set(changes.get("training", {})) and "epochs" in meaning.changes.get("training", {}):
        changes = _without(changes, "training.steps")
    try:
        changes = nudged(desk, changes, meaning.nudges, state)
        Recipe.make(changes)
    except EngineError as error:
        return refused(error, meaning.intent), state
    if meaning.nudges and not meaning.changes and rules.CHEAPER.search(meaning.text):
        note += _saves(desk, changes)
    return next_step(desk, replace(state, changes=changes), meaning.intent, note)


def again(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """The recipe of a run once more, with what was said changed in it."""
    job = desk.job(meaning.run) or desk.job(state.run) or next(iter(desk.newest(limit=1)), None)
    if job is None:
        return Reply("again", "There is no run to train again yet.", (DEMO,)), state
    try:
        values = job.recipe.model_dump(mode="json") | {"name": job.name}
        changes = nudged(desk, merged(values, meaning.changes), meaning.nudges)
        Recipe.make(changes)
    except EngineError as error:
        return refused(error, "again"), state
    method = knowledge.methods_of(changes)[-1]
    goal = by_method.ways.goal_of(method) if method != "sft" else "demo" if changes["data"].get("demo") else "answer"
    return next_step(
        desk, replace(state, goal=goal, changes=changes, run=job.id, first=False), "again", f"Once more what {called(job)} did. "
    )


def recommended(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Forgets settings that were said; goal, data and model stay."""
    kept = {name: value for name, value in state.changes.items() if name in ("data", "name", "base_model", "method", "reward", "distill")}
    state = replace(state, changes=kept, first=None)
    return next_step(desk, state, "recommended", "") if state.goal or kept.get("data") else asking.goal(state, meaning)


def launch(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """A start that was asked for in words: the proposal once more, with its button."""
    if state.proposed:
        return next_step(desk, state, "launch", "I start nothing by myself: press the button, and it begins. ")
    if state.goal or state.changes.get("data"):
        return next_step(desk, state, "launch", "")
    return asking.goal(state, meaning)


def new(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Begins anew: what should it learn?"""
    return asking.goal(State(run=state.run, started=state.started, changes=meaning.changes), meaning)


def reset(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Drops what was being put together."""
    text = "Dropped. Nothing was started." if state.goal or state.changes else "There is nothing to drop."
    return Reply("reset", f"{text} What would you like to do?", asking.goals()), State(run=state.run, started=state.started)


def why(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """The reasons of the proposal, or of one setting of it."""
    if not state.proposed:
        return Reply("why", "There is no proposal yet whose reasons I could give. What should the model learn?", asking.goals()), state
    try:
        made = drawing_up.proposal(desk, state)
    except EngineError as error:
        return refused(error, "why"), state
    said = " ".join(meaning.topics)
    wanted = [one for one in made.reasons if one.label.lower() in said or (one.field.endswith("rank") and "rank" in said)] or list(
        made.reasons
    )
    lines = [f"- **{one.label}: {safe(one.value)}.** {safe(one.reason, 400)}" for one in wanted]
    return Reply("why", "\n".join(lines), (Choice("Show the proposal", "Start it"),)), state


def estimate(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """What the proposal will take; without one, what the demo took to say."""
    if not (state.proposed or state.changes.get("data")):
        prices = knowledge.prices()
        text = (
            f"That depends on data, model and steps: tell me what you have, and I work it out. On this machine training costs nothing "
            f"({prices['endpoints']['local']['note'][:-1].lower()})."
        )
        return Reply("estimate", text, (DEMO, *asking.goals()[1:])), state
    try:
        made = drawing_up.proposal(desk, state)
    except EngineError as error:
        return refused(error, "estimate"), state
    lines = [f"- **{one.name.capitalize()}:** {safe(one.text)}. {safe('; '.join(one.assumptions), 400)}" for one in made.takes]
    return Reply(
        "estimate", "\n".join(lines) + "\n\nRight within a factor of two or so.", (Choice("Show the proposal", "Start it"),)
    ), state


def next_step(desk: Desk, state: State, intent: str, note: str) -> tuple[Reply, State]:
    """Asks for the one thing that is missing, or proposes."""
    if not state.changes.get("data"):
        return asking.rows(desk, state, intent, note)
    if asked := by_method.missing(desk, state, intent, note):
        return asked
    own = not state.changes["data"].get("demo")
    named = state.changes.get("base_model") or state.changes.get("start") or desk.defaults.get().get("base_model")
    if own and not named:
        if any(desk.may_use(name) for name in asking.others(desk)):
            return asking.model(desk, state, intent, note)
        state = replace(state, changes={**state.changes, "base_model": "nano"})
    state, why = by_method.settled(desk, state)
    note += why + by_method.beginning(desk, state)
    try:
        made = drawing_up.proposal(desk, state)
    except EngineError as error:
        choices = (Choice("Use nano instead", "Use nano"), Choice("Which data sets are there?", "Which data sets are there?"))
        actions = (
            (Action("dataset", "Open the data set", state.changes["data"]["dataset"]),) if state.changes["data"].get("dataset") else ()
        )
        return Reply(intent, f"{note}That can't be planned: {safe(str(error), 600)}", choices, actions), state
    text = f"{note}This is what I would do; every choice has its reason below."
    if not made.sound:
        text = f"{note}This could be done, but something speaks against it."
    label = "Start training" if made.sound else "Start all the same"
    actions = (Action("launch", label), Action("wizard", "Change in the Wizard"))
    return Reply(intent, text, drawing_up.changes_offered(made), actions, made), replace(state, proposed=True, asked="")


def _saves(desk: Desk, changes: dict[str, Any]) -> str:
    """What there is to save, before half the steps are proposed."""
    place = changes.get("endpoint") or desk.defaults.get().get("endpoint") or "local"
    free = "On this machine training costs nothing but time. " if place == "local" else ""
    return f"{free}Half the steps take about half of it; they also teach less. "


def nudged(desk: Desk, changes: dict[str, Any], nudges: dict[str, float], state: State | None = None) -> dict[str, Any]:
    """The changes with some values made larger or smaller, from where they stand or are recommended."""
    if not nudges or not changes.get("data"):
        return changes
    recipe = by_method.wanted(desk, replace(state or State(first=False), changes=changes)).recipe
    # Of several stages the last is what it is about.
    values = written(recipe)[-1].model_dump(mode="json")
    for name, factor in nudges.items():
        old = drawing_up.value(values, name)
        if old is None:
            continue
        new = old * factor if isinstance(old, float) else max(_NUDGED_LEAST.get(name, 0), int(old * factor))
        part, _, leaf = name.partition(".")
        if part == "training" and (then := changes.get("then")):
            changes = {**changes, "then": [*then[:-1], merged(then[-1], {part: {leaf: new}})]}
        else:
            changes = merged(changes, {part: {leaf: new}})
    return changes


def refused(error: EngineError, intent: str) -> Reply:
    """What no recipe can have."""
    return Reply(
        intent, f"That can't be: {safe(str(error), 600)}", (Choice("Back to what is recommended", "Back to the recommended settings"),)
    )


def _without(values: dict[str, Any], name: str) -> dict[str, Any]:
    part, _, leaf = name.partition(".")
    return {**values, part: {inner: value for inner, value in values.get(part, {}).items() if inner != leaf}}
