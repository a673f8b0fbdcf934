"""From a goal in words to a whole recipe with reasons: asks for what is missing, one thing at a time, and proposes; starts nothing.

Settings, estimates and warnings are the planner's. What was said of the run to come is kept in the conversation's state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine import knowledge, paths, system
from engine.amounts import size
from engine.assistant import rules
from engine.assistant.desk import Desk, State, called
from engine.assistant.explaining import suited
from engine.assistant.reply import Action, Choice, Proposal, Reason, Reply, Takes, Warned
from engine.assistant.settings_said import merged
from engine.assistant.wording import figure, safe
from engine.errors import EngineError
from engine.recipe import Recipe

if TYPE_CHECKING:
    from engine.assistant.meaning import Meaning
    from engine.planning import Plan

_DEMO = Choice("Show me the one-minute demo", "Show me the one-minute demo")
_TITLES = {
    "base_model": "Base model", "full": "What is trained", "training.learning_rate": "Learning rate", "training.steps": "Steps",
    "training.epochs": "Epochs", "training.batch_size": "Batch size", "lora.rank": "LoRA rank", "lora.train_mlp": "Layers",
    "training.schedule": "Schedule", "training.max_length": "Longest example", "seed": "Seed",
}  # fmt: skip
_NUDGED_LEAST = {"training.batch_size": 1, "lora.rank": 1, "training.steps": 1, "training.max_length": 8}


def plan(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Takes in what was said of the run to come, then asks for the next thing or proposes."""
    if meaning.intent == "change" and not state.goal and not state.changes.get("data"):
        if state.run:
            return again(desk, meaning, state)
        return _ask_goal(replace(state, changes=merged(state.changes, meaning.changes)), meaning)
    changes, note = dict(state.changes), ""
    if meaning.goal == "demo":
        # A demo is whole as it is: nothing said of other data holds for it. What was noted before any goal does.
        noted = {} if state.goal or changes.get("data") else changes
        changes = {**noted, "data": {"demo": meaning.demo}}
        demo = knowledge.demo(meaning.demo)
        note = f"**{demo['title']}.** {demo['task']} {demo['expect'].strip()} "
        state = replace(state, goal="demo", wish="", rows=None)
    elif meaning.goal and meaning.intent == "goal":
        if state.goal == "demo":
            changes = {name: value for name, value in changes.items() if name not in ("data", "name", "training", "lora")}
        state = replace(state, goal=meaning.goal, wish=meaning.text[:200])
    if meaning.rows is not None:
        state = replace(state, rows=meaning.rows)
    if meaning.dataset or meaning.latest:
        wanted = meaning.dataset or next((found.id for found in desk.library.find()), "")
        if not wanted:
            return _ask_data(desk, replace(state, changes=merged(changes, meaning.changes)), "use_data", "Your library is empty. ")
        changes = {name: value for name, value in changes.items() if name not in ("data", "name")} | {"data": {"dataset": wanted}}
        state = replace(state, goal=state.goal if state.goal not in ("", "demo") else meaning.goal or "answer")
    if meaning.changes.get("base_model") and changes.get("start"):
        # Another base model is another beginning.
        changes = {name: value for name, value in changes.items() if name not in ("start", "lora")}
    if meaning.changes.get("full") is not None and bool(changes.get("full")) != meaning.changes["full"]:
        # A rate that suits adapters doesn't suit all weights, nor the other way round.
        changes = _without(changes, "training.learning_rate")
    changes = merged(changes, meaning.changes)
    if {"steps", "epochs"} <= set(changes.get("training", {})) and "epochs" in meaning.changes.get("training", {}):
        changes = _without(changes, "training.steps")
    try:
        changes = nudged(desk, changes, meaning.nudges)
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
        return Reply("again", "There is no run to train again yet.", (_DEMO,)), state
    try:
        values = job.recipe.model_dump(mode="json") | {"name": job.name}
        changes = nudged(desk, merged(values, meaning.changes), meaning.nudges)
        Recipe.make(changes)
    except EngineError as error:
        return refused(error, "again"), state
    goal = "demo" if changes["data"].get("demo") else "answer"
    return next_step(desk, replace(state, goal=goal, changes=changes, run=job.id), "again", f"Once more what {called(job)} did. ")


def recommended(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Forgets settings that were said; goal, data and model stay."""
    kept = {name: value for name, value in state.changes.items() if name in ("data", "name", "base_model")}
    state = replace(state, changes=kept)
    return next_step(desk, state, "recommended", "") if state.goal or kept.get("data") else _ask_goal(state, meaning)


def launch(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """A start that was asked for in words: the proposal once more, with its button."""
    if state.proposed:
        return next_step(desk, state, "launch", "I start nothing by myself: press the button, and it begins. ")
    if state.goal or state.changes.get("data"):
        return next_step(desk, state, "launch", "")
    return _ask_goal(state, meaning)


def new(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Begins anew: what should it learn?"""
    return _ask_goal(State(run=state.run, started=state.started, changes=meaning.changes), meaning)


def reset(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """Drops what was being put together."""
    text = "Dropped. Nothing was started." if state.goal or state.changes else "There is nothing to drop."
    return Reply("reset", f"{text} What would you like to do?", _goal_choices()), State(run=state.run, started=state.started)


def why(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """The reasons of the proposal, or of one setting of it."""
    if not state.proposed:
        return Reply("why", "There is no proposal yet whose reasons I could give. What should the model learn?", _goal_choices()), state
    try:
        made = _proposal(desk, state)
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
        return Reply("estimate", text, (_DEMO, *_goal_choices()[1:])), state
    try:
        made = _proposal(desk, state)
    except EngineError as error:
        return refused(error, "estimate"), state
    lines = [f"- **{one.name.capitalize()}:** {safe(one.text)}. {safe('; '.join(one.assumptions), 400)}" for one in made.takes]
    return Reply(
        "estimate", "\n".join(lines) + "\n\nRight within a factor of two or so.", (Choice("Show the proposal", "Start it"),)
    ), state


def _ask_goal(state: State, meaning: Meaning) -> tuple[Reply, State]:
    noted = "Noted. " if meaning.changes and meaning.intent == "change" else ""
    return Reply(meaning.intent, f"{noted}What should the model learn?", _goal_choices()), replace(state, asked="goal")


def _goal_choices() -> tuple[Choice, ...]:
    say = {
        "demo": "Show me the one-minute demo",
        "answer": "It should answer questions",
        "style": "It should follow a style",
        "review": "It should review code",
    }
    return tuple(Choice(goal["title"], say.get(name, goal["title"])) for name, goal in knowledge.goals().items())


def next_step(desk: Desk, state: State, intent: str, note: str) -> tuple[Reply, State]:
    """Asks for the one thing that is missing, or proposes."""
    if not state.changes.get("data"):
        return _ask_data(desk, state, intent, note)
    own = not state.changes["data"].get("demo")
    named = state.changes.get("base_model") or state.changes.get("start") or desk.defaults.get().get("base_model")
    if own and not named:
        if any(desk.may_use(name) for name in _others(desk)):
            return _ask_model(desk, state, intent, note)
        state = replace(state, changes={**state.changes, "base_model": "nano"})
    try:
        made = _proposal(desk, state)
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
    return Reply(intent, text, _changes_offered(made), actions, made), replace(state, proposed=True, asked="")


def _like(row: dict[str, Any]) -> str:
    """What a row of such data looks like."""
    asked = f"“{safe(row['prompt'])}”"
    if "chosen" in row:
        return f"{asked} → better “{safe(row['chosen'])}”, worse “{safe(row['rejected'])}”"
    if "label" in row:
        return f"{asked} → “{safe(row['completion'])}”, found {'good' if row['label'] else 'bad'}"
    answer = row.get("completion") or row.get("answer")
    return f"{asked} → “{safe(answer)}”" if answer else asked


def _ask_data(desk: Desk, state: State, intent: str, note: str) -> tuple[Reply, State]:
    goal = knowledge.goals().get(state.goal or "answer", {})
    parts = [note]
    if state.wish:
        parts.append(
            "A model can learn that from examples. "
            if state.goal != "review"
            else "I can't mend code myself, but a model can learn to review it. "
        )
    parts.append(f"It needs: {goal['data'][0].lower()}{goal['data'][1:]} For example: {_like(goal['row'])}")
    if state.rows is not None:
        parts.append(f" {_enough(state.rows)}")
    own = [found for found in desk.library.find() if found.state != "unmapped"][:4]
    choices = [Choice(f"Use {found.name[:40]} ({found.examples:,})", f"Use the data set {found.name}") for found in own]
    parts.append(
        " Which of your data sets should it learn from?" if own else " Add your examples on the Datasets page, then come back here."
    )
    if not own:
        choices.append(Choice("I have added it", "Use my latest upload"))
    if state.goal == "review":
        choices.append(Choice("Try the small code review that ships", "Teach it to find bugs"))
    elif not own:
        choices.append(_DEMO)
    choices.append(Choice("I have no data", "I have no data"))
    return Reply(intent, "".join(parts), tuple(choices), (Action("datasets", "Add a file"),)), replace(state, asked="data", proposed=False)


def _ask_model(desk: Desk, state: State, intent: str, note: str) -> tuple[Reply, State]:
    free = system.probe(paths.home()).memory_free
    choices = [Choice("nano: seconds, but knows little", "Use nano")]
    here = [name for name in desk.library.base_models() if name != "nano" and desk.may_use(name)]
    choices += [Choice(f"{name.rpartition('/')[2] or name} (here already)", f"Use {name}") for name in here[:2]]
    known = knowledge.base_models()
    for name in [name for name in suited(desk, free) if name not in here][:2]:
        choices.append(Choice(f"{name.rpartition('/')[2]} ({size(4 * known[name]['parameters'])} in memory, is downloaded)", f"Use {name}"))
    text = (
        f"{note}Which model should learn it? nano trains in seconds on this machine and knows letters and little else: good to see how "
        f"your data does, "
        f"not for real answers. {size(free)} of memory are free; the others that I name fit."
    )
    return Reply(intent, text, tuple(choices)), replace(state, asked="model", proposed=False)


def _others(desk: Desk) -> list[str]:
    return [name for name in [*desk.library.base_models(), *knowledge.base_models()] if name != "nano"]


def _saves(desk: Desk, changes: dict[str, Any]) -> str:
    """What there is to save, before half the steps are proposed."""
    place = changes.get("endpoint") or desk.defaults.get().get("endpoint") or "local"
    free = "On this machine training costs nothing but time. " if place == "local" else ""
    return f"{free}Half the steps take about half of it; they also teach less. "


def _enough(rows: int) -> str:
    needs = knowledge.method("sft")["needs"]
    if rows < 50:
        return f"{rows:,} are few: fewer than 50 seldom teach more than themselves."
    told = knowledge.steps_for(rows, 32)
    return (
        f"{rows:,} are {'a good start' if rows < 5000 else 'plenty'} ({needs.rpartition('; ')[2].rstrip('.')}): about {told['value']:,} "
        f"steps of 32."
    )


def _proposal(desk: Desk, state: State) -> Proposal:
    found = desk.planner.suggest(state.changes)
    planned = desk.planner.plan(found.recipe)
    return Proposal(
        recipe=found.recipe.model_dump(mode="json"),
        goal=state.goal or "answer",
        changes=state.changes,
        summary=_summary(found.recipe, planned, desk.planner.starts().get(found.recipe.start.checkpoint, "")),
        reasons=tuple(_reasons(state, found.recipe, found.reasons)),
        takes=tuple(Takes(one.name, one.text, one.size, one.assumptions) for one in planned.estimates),
        warnings=tuple(Warned(one.level, one.text, one.action) for one in planned.warnings),
    )


def _summary(recipe: Recipe, planned: Plan, goes_on_from: str) -> tuple[str, ...]:
    figures = planned.figures
    learns = "all of its weights" if recipe.full else f"an adapter of rank {recipe.lora.rank} (LoRA)"
    passes = planned.steps * recipe.training.batch_size / max(1, figures["epoch"])
    replay = f", {figures['replay']:,} of them to keep older skills" if figures["replay"] else ""
    often = f"every example about {figure(passes)} times" if passes >= 1 else f"about {100 * passes:.0f} % of them come up"
    where = "on this machine" if recipe.endpoint == "local" else f"at {recipe.endpoint}"
    lines = [
        f"{goes_on_from or recipe.base_model} learns from {figures['train']:,} examples{replay}, in {planned.steps:,} updates of "
        f"{recipe.training.batch_size} "
        f"({often}).",
        f"It trains {learns} at a learning rate of up to {figure(recipe.training.learning_rate)}, {where}.",
    ]
    if recipe.evaluation.proof and figures["held_out"]:
        lines.append(f"Before and after, it is tested on {figures['held_out']:,} examples that it never trains on.")
    return tuple(lines)


def _reasons(state: State, recipe: Recipe, advised: dict[str, dict[str, Any]]) -> list[Reason]:
    method = knowledge.method(recipe.method)
    values = recipe.model_dump(mode="json")
    made = [Reason("method", "Method", method["term"], method["use_when"][0], method["source"])]
    if not recipe.full:
        made.append(
            Reason(
                "full", "What is trained", "an adapter (LoRA)", knowledge.terms()["lora"]["meaning"], knowledge.terms()["lora"]["source"]
            )
        )
    usual = Recipe().model_dump(mode="json")
    for name, title in _TITLES.items():
        value, known = _value(values, name), advised.get(name)
        if name == "full" and not recipe.full:
            continue
        if known and value == known["value"]:
            made.append(Reason(name, title, _shown(value), known["reason"], known["source"]))
        elif known:
            made.append(
                Reason(name, title, _shown(value), f"As chosen. Recommended: {_shown(known['value'])}. {known['reason']}", "", True)
            )
        elif _value(state.changes, name) is not None and (value != _value(usual, name) or name == "base_model"):
            made.append(Reason(name, title, _shown(value), "As chosen.", "", True))
    return made


def _changes_offered(made: Proposal) -> tuple[Choice, ...]:
    if made.recipe["start"]["checkpoint"]:
        base = made.recipe["base_model"]
        return (
            Choice("Fewer steps", "Fewer steps"),
            Choice("Smaller batch", "Smaller batch"),
            Choice(f"From {base} instead", f"Use {base}"),
        )
    kind = (
        Choice("With LoRA instead", "Use LoRA")
        if made.recipe["full"]
        else Choice("All weights instead (full fine-tuning)", "Use full fine-tuning")
    )
    return (Choice("Fewer steps", "Fewer steps"), Choice("Smaller batch", "Smaller batch"), kind)


def nudged(desk: Desk, changes: dict[str, Any], nudges: dict[str, float]) -> dict[str, Any]:
    """The changes with some values made larger or smaller, from where they stand or are recommended."""
    if not nudges or not changes.get("data"):
        return changes
    values = desk.planner.suggest(changes).recipe.model_dump(mode="json")
    for name, factor in nudges.items():
        old = _value(values, name)
        if old is None:
            continue
        new = old * factor if isinstance(old, float) else max(_NUDGED_LEAST.get(name, 0), int(old * factor))
        part, _, leaf = name.partition(".")
        changes = merged(changes, {part: {leaf: new}})
    return changes


def refused(error: EngineError, intent: str) -> Reply:
    """What no recipe can have."""
    return Reply(
        intent, f"That can't be: {safe(str(error), 600)}", (Choice("Back to what is recommended", "Back to the recommended settings"),)
    )


def _value(values: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        if not isinstance(values, dict):
            return None
        values = values.get(part)
    return values


def _without(values: dict[str, Any], name: str) -> dict[str, Any]:
    part, _, leaf = name.partition(".")
    return {**values, part: {inner: value for inner, value in values.get(part, {}).items() if inner != leaf}}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return figure(value) if isinstance(value, int | float) else str(value)
