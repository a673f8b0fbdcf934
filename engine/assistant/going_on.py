"""From a tuned model to a recipe that goes on from it: finds which model is meant and what it learned from; starts nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine import lessons
from engine.assistant import by_method, proposing
from engine.assistant.desk import Desk, State
from engine.assistant.reply import DEMO, Action, Choice, Reply
from engine.assistant.settings_said import merged
from engine.assistant.wording import safe
from engine.errors import EngineError, RecipeError

if TYPE_CHECKING:
    from engine.assistant.meaning import Meaning
    from engine.store import Model


def further(desk: Desk, meaning: Meaning, state: State) -> tuple[Reply, State]:
    """A run that goes on from a model: the one that is named, else the one talked of, else the newest."""
    model = _meant(desk, meaning, state)
    if model is None:
        text = "There is no tuned model to go on from yet: each finished run leaves one."
        if meaning.run and (job := desk.job(meaning.run)):
            text = f"**{safe(job.name)}** has left no model yet, so nothing can go on from it."
        return Reply("further", text, (DEMO,), (Action("models", "Models"),)), state
    if not model.weights_path:
        text = (
            f"**{safe(model.name)}** was kept for use only, without the weights to go on from. Its run can be trained once more, as it was."
        )
        choices = (Choice("Train its run again", f"Train run {model.job_id} again"),) if model.job_id else ()
        return Reply("further", text, choices, (Action("model", "About this model", model.id),)), state
    if state.asked == "model" and state.changes.get("data") and not meaning.plans:
        # The answer to the question which model it should be.
        changes = {name: value for name, value in state.changes.items() if name not in ("base_model", "full", "lora")}
        changes["start"] = {"checkpoint": model.id}
        return proposing.next_step(
            desk, replace(state, changes=changes, model=model.id), "further", f"It goes on from **{safe(model.name)}**. "
        )
    data, said = _data(desk, meaning, model)
    taken = {found.name for found in desk.registry.find()}
    changes: dict[str, Any] = {"start": {"checkpoint": model.id}, "name": lessons.next_version(model.name, taken)}
    if data:
        changes["data"] = data
    # The base model comes from where it goes on; a name that is a part of another's may have been taken for one.
    asked = {name: value for name, value in meaning.changes.items() if name not in ("base_model", "full")}
    changes = merged(changes, asked)
    state = State(goal="demo" if data.get("demo") else "answer", run=state.run, model=model.id, started=state.started, shown=state.shown)
    by = ""
    if meaning.method:
        state, changes, by = by_method.taken(desk, replace(meaning, trial=False, things=()), replace(state, goal=""), changes)
    try:
        changes = proposing.nudged(desk, changes, meaning.nudges, state)
    except EngineError as error:
        return proposing.refused(error, "further"), state
    note = f"It goes on from **{safe(model.name)}**, and becomes a newer version of it{said}. {by}"
    return proposing.next_step(desk, replace(state, changes=changes), "further", note)


def _meant(desk: Desk, meaning: Meaning, state: State) -> Model | None:
    for thing in meaning.things:
        return desk.thing(*thing)[1]
    found = desk.registry.find()
    for wanted in (lambda model: model.id == state.model, lambda model: bool(state.run) and model.job_id == state.run):
        if chosen := next(filter(wanted, found), None):
            return chosen
    return found[0] if found else None


def _data(desk: Desk, meaning: Meaning, model: Model) -> tuple[dict[str, Any], str]:
    """(what it learns from, where that comes from in words): as said, else what its own run learned from, if that is still there."""
    if meaning.demo and meaning.goal == "demo":
        return {"demo": meaning.demo}, ""
    if meaning.dataset:
        return {"dataset": meaning.dataset}, ""
    if meaning.latest:
        newest = next(iter(desk.library.find()), None)
        return ({"dataset": newest.id} if newest else {}), ""
    try:
        job = desk.job(model.job_id or "")
        data = job.recipe.data if job else None
    except RecipeError:
        data = None
    if data is None:
        return {}, ""
    if data.demo:
        return {"demo": data.demo}, ", on the same examples; name another data set if it should learn something else"
    if data.dataset:
        try:
            desk.library.usable(data.dataset)
        except EngineError:
            return {}, ""
        return {"dataset": data.dataset}, ", on the same data set; name another if it should learn something else"
    return {}, ""
