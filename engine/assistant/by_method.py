"""What other ways of training than by plain examples need before they can be proposed: rows of their shape, a score, a teacher.

Takes in what was said, asks for what is missing with what there is of it, and makes one recipe of it all; starts nothing.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine import data, knowledge
from engine.assistant import ways
from engine.assistant.desk import Desk, State
from engine.assistant.reply import Action, Choice, Reply
from engine.assistant.settings_said import merged
from engine.assistant.wording import safe
from engine.errors import EngineError
from engine.recipe import Recipe, method_parts
from engine.recipe.chain import follower

if TYPE_CHECKING:
    from engine.assistant.meaning import Meaning
    from engine.planning import Suggestion
    from engine.store import LibrarySet

IMPROVES = ("dpo", "kto", "rl", "rlhf")
"""Those that make better what a model can do already."""
ORDERS = re.compile(r"\s*(?:you are|you're|act as|always|never|your (?:task|job|role)|as an? \w+ you)\b", re.IGNORECASE)
"""How a prompt begins that tells a model what to be."""
_SET = "piglatin"
_FEW = {"numeric": "by the right number", "exact": "by the same text", "length": "by length up to 50 words", "json_schema": "by valid JSON"}
_BY_HAND = {
    "judge": "A judge needs a rubric and a model to ask",
    "python": "A function of yours is written, and tried out, by hand",
    "regex": "An expression is written, and tried out, by hand",
    "contains": "The texts to look for are given by hand",
    "reward_model": "A reward model is named by hand",
}


def of(state: State) -> str:
    """The way of training of the run to come."""
    then = state.changes.get("then") or ()
    return str((then[-1] if then else state.changes).get("method") or state.changes.get("method") or "sft")


def taken(desk: Desk, meaning: Meaning, state: State, changes: dict[str, Any]) -> tuple[State, dict[str, Any], str]:
    """The state with another way of training in it, and what is to be said of that."""
    method, note = meaning.method, ""
    goal = meaning.goal or ways.goal_of(method)
    if method != of(replace(state, changes=changes)):
        gone = {"method", "then", *method_parts(), *(("training", "name") if changes.get("method") or changes.get("then") else ())}
        changes = {name: value for name, value in changes.items() if name not in gone}
        if state.goal and (changes.get("data") or {}).get("demo"):
            # A demo is whole as it is: its rows aren't what another wish is about.
            changes = {name: value for name, value in changes.items() if name not in ("data", "name", "training", "lora")}
    if method != "sft":
        changes["method"] = method
    if meaning.first is not None:
        state = replace(state, first=meaning.first)
    if meaning.trial:
        changes, note = _trial(
            meaning, goal, {name: value for name, value in changes.items() if name not in ("data", "name", "start", "then")}
        )
        state = replace(state, rows=None, first=meaning.first)
    if method == "distill":
        changes = _taught(desk, meaning, changes)
    if method == "own_loss" and not changes.get("own_loss"):
        changes["own_loss"] = {"code": knowledge.method("own_loss")["example"]}
        note += "It begins with a function that ships: the usual loss, in which tokens that the model is sure of count less. "
        note += "Write your own over it in the Wizard. "
    if meaning.score:
        kind, part = meaning.score
        title = knowledge.rewards()[kind]["title"]
        if part:
            changes["reward"] = {"parts": [part]}
            note += f"Scored by: **{title.lower()}**. "
        elif kind == "reward_model" and (named := _named(desk, meaning)):
            changes["reward"] = {"parts": [{"kind": kind, "model": named}]}
            note += f"Scored by: **{safe(named)}**. "
        else:
            note += f"{_BY_HAND[kind]}: go on to the Wizard below, and choose **{title}** there under what a good answer is. "
    return replace(state, goal=goal, wish=""), changes, note


def missing(desk: Desk, state: State, intent: str, note: str) -> tuple[Reply, State] | None:
    """Asks for what the way of training still needs, beside data and a model; None where it has everything."""
    method = of(state)
    if unfit := _unfit(desk, state):
        return _other_data(desk, state, unfit, intent, note)
    if (
        method == "distill"
        and not state.changes.get("then")
        and not any(state.changes.get("distill", {}).get(name) for name in ("teacher", "teacher_prompt"))
    ):
        return _ask_teacher(desk, state, intent, note)
    if method == "rl" and not state.changes.get("reward") and not state.changes["data"].get("demo"):
        expected = _expected(desk, state)
        if expected is not None and not any(expected):
            text = (
                f"{note}What makes an answer good? Your rows don't say which is right, so a score has to tell by the answer alone. A "
                "judge, a reward model, an expression or a function of yours can be given in the Wizard."
            )
            choices = [Choice(knowledge.rewards()[kind]["title"], f"Score {_FEW[kind]}") for kind in ("length", "json_schema")]
            choices.append(Choice("A judge with a rubric", "Score by a judge with a rubric"))
            return Reply(intent, text, tuple(choices), (Action("guide", "Read about scores in the guide"),)), replace(state, asked="score")
    return None


def settled(desk: Desk, state: State) -> tuple[State, str]:
    """With a score that suits the data where none was named, and why."""
    if of(state) != "rl" or state.changes.get("reward") or state.changes.get("then") or state.changes["data"].get("demo"):
        return state, ""
    expected = _expected(desk, state) or []
    kind = "numeric" if expected and all(_number(one) for one in expected if one) else "exact"
    changes = {**state.changes, "reward": {"parts": [{"kind": kind}]}}
    why = "its rows expect numbers" if kind == "numeric" else "its rows say what is expected"
    return replace(state, changes=changes), f"I take **{knowledge.rewards()[kind]['title'].lower()}** as the score, since {why}. "


def wanted(desk: Desk, state: State) -> Suggestion:
    """The whole recipe: with examples first, where the model could do nothing without. Raises EngineError."""
    changes, method = state.changes, of(state)
    if changes.get("then") or not begins_with_examples(desk, state):
        return desk.planner.suggest(changes)
    own = {"method", "training", *method_parts()}
    rest = {name: value for name, value in changes.items() if name not in own}
    said = {name: value for name, value in changes.items() if name in own}
    measured = knowledge.measured(changes["data"]["demo"], ("sft", method)) if changes["data"].get("demo") else {}
    if knowledge.methods_of(measured) == ("sft", method):
        stage = dict(measured["then"][0])
        for part, values in said.items():
            stage = merged(stage, {part: values})
        return desk.planner.suggest({**rest, "then": [stage]})
    if changes["data"].get("demo"):
        # As many updates as were measured to give a first idea; the whole demo would leave nothing to improve.
        few = next(entry["recipe"] for entry in knowledge.method_demos().values() if knowledge.methods_of(entry["recipe"])[0] == "sft")
        rest = {**rest, "training": few["training"], **({"name": changes["name"]} if changes.get("name") else {})}
    before = desk.planner.suggest(rest).recipe
    after = desk.planner.suggest(changes).recipe
    found = desk.planner.suggest({**rest, "then": [follower(before, after)]})
    return found


def begins_with_examples(desk: Desk, state: State) -> bool:
    """Whether a stage of examples comes before; as was said, else where nano has nothing to go on from."""
    if of(state) == "sft" or state.changes.get("then"):
        return False
    shape = _shape(desk, state)
    if shape is not None and shape not in data.SERVES["answers"]:
        return False
    if state.first is not None:
        return state.first
    bare = state.changes.get("base_model", "nano") == "nano" and not (state.changes.get("start") or {}).get("checkpoint")
    return bare and of(state) in IMPROVES


def beginning(desk: Desk, state: State) -> str:
    """Why examples come first, where they do without having been asked for."""
    measured = state.changes["data"].get("demo") and knowledge.measured(state.changes["data"]["demo"], ("sft", of(state)))
    if state.first is None and begins_with_examples(desk, state) and not (measured and knowledge.methods_of(measured)[-1] == of(state)):
        return "nano can do next to nothing by itself, so it first learns from a few examples. "
    return ""


def fitting(desk: Desk, method: str) -> tuple[list[LibrarySet], list[LibrarySet]]:
    """(a person's data sets that the method can learn from, those that it can't), newest first."""
    serves = data.SERVES[knowledge.shape(method)]
    own = [found for found in desk.library.find() if found.state != "unmapped"]
    own.sort(key=lambda found: serves.index(found.shape) if found.shape in serves else len(serves))
    return [found for found in own if found.shape in serves], [found for found in own if found.shape not in serves]


def goal_of_rows(shape: str) -> str:
    """What rows of this shape are first of all good for."""
    return next(
        (name for name, goal in knowledge.goals().items() if "demo" not in goal and knowledge.shape(goal["method"]) == shape), "answer"
    )


def to_try(state: State) -> tuple[Choice, ...]:
    """A way to see the chosen way of training at work without any data."""
    goal = knowledge.goals().get(state.goal, {})
    if not goal or (goal["method"] in ("sft", "distill") and not goal.get("try")):
        return ()
    shown = knowledge.method_demos().get(goal.get("try", ""))
    return (Choice(shown["title"] if shown else "Try it on Pig Latin", f"Show me the demo: {goal['title']}"),)


def _trial(meaning: Meaning, goal: str, changes: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """(changes for a demo of the way of training, what is said of it)."""
    shown = knowledge.method_demos().get(knowledge.goals().get(goal, {}).get("try", ""))
    if shown and meaning.demo in ("", shown["recipe"]["data"]["demo"]):
        kept = {name: value for name, value in changes.items() if name not in ("method", "training", "lora", *method_parts())}
        note = f"**{shown['title']}.** {shown['task']} {shown['expect'].strip()} "
        recipe = shown["recipe"]
        if knowledge.methods_of(recipe) == ("sft", meaning.method) and meaning.method in IMPROVES:
            # Put together as with data of one's own; what was measured for it is found by its rows.
            return {**kept, "method": meaning.method, "data": recipe["data"], "name": recipe["name"]}, note
        return {**kept, **{part: recipe[part] for part in ("name", "method", "data", "then") if part in recipe}}, note
    known = knowledge.demo(meaning.demo or _SET)
    name = f"{known['recipe']['name']}: {knowledge.goals()[goal]['title'].lower()}"
    return {
        **changes,
        "name": name,
        "data": {"demo": meaning.demo or _SET},
    }, f"On the examples of **{known['title']}**, which ship with Thinker. "


def _taught(desk: Desk, meaning: Meaning, changes: dict[str, Any]) -> dict[str, Any]:
    said = dict(meaning.teaching)
    if not said and (named := _named(desk, meaning)):
        said = {"kind": "answers", "teacher": named}
    if said.get("teacher") and changes.get("base_model") == said["teacher"]:
        changes = {name: value for name, value in changes.items() if name != "base_model"}
    return merged(changes, {"distill": said}) if said else changes


def _named(desk: Desk, meaning: Meaning) -> str:
    models = [desk.thing(*thing)[1] for thing in meaning.things]
    return next((model.name for model in models if model), "")


def _ask_teacher(desk: Desk, state: State, intent: str, note: str) -> tuple[Reply, State]:
    own = [model for model in desk.registry.find() if model.sampler_path][:2]
    text = (
        f"{note}Who teaches? One of your models, a base model by its hub id (“teacher Qwen/Qwen3-1.7B”), or the model itself with a long "
        "prompt that it shall do without: write “the prompt is: …”. A model elsewhere, such as one of a company's, is named in the "
        "settings with its key, and its terms should allow learning from it."
    )
    choices = tuple(Choice(f"{model.name[:40]} teaches", f"Learn from teacher {model.name}") for model in own)
    # Imported late: it asks servers, by the same code as rewards do.
    from engine.judges import Judges

    for server in Judges(desk.store, desk.owner).all()[:2]:
        choices += tuple(
            Choice(f"{one} at {server.name} teaches"[:70], f"Learn from teacher {one} at {server.url}") for one in server.models[:1]
        )
    actions = (Action("settings", "Keys and servers"),)
    return Reply(intent, text, (*choices, Choice("What is distillation?", "What is distillation?")), actions), replace(
        state, asked="teacher"
    )


def _unfit(desk: Desk, state: State) -> LibrarySet | None:
    """The chosen data set, where the way of training can't learn from its rows."""
    found = desk.dataset(state.changes["data"].get("dataset") or "")
    method = of(state)
    return found if found and found.shape not in data.SERVES[knowledge.shape(method)] else None


def _other_data(desk: Desk, state: State, unfit: LibrarySet, intent: str, note: str) -> tuple[Reply, State]:
    method = of(state)
    needed, shapes = knowledge.shapes()[knowledge.shape(method)], knowledge.shapes()
    able, _ = fitting(desk, method)
    text = f"{note}**{safe(unfit.name)}** holds {shapes[unfit.shape]['title']}, and this needs {needed['title']}. {needed['add']}. "
    text += " ".join(needed["collect"].split())
    choices = [Choice(f"Use {found.name[:40]} ({found.examples:,})", f"Use the data set {found.name}") for found in able[:3]]
    goals = knowledge.goals()
    others = [name for name in desk.planner.goals_for(unfit.shape) if name != state.goal][:2]
    choices += [Choice(f"{goals[name]['title']} from it", f"{ways.said_as(name)} with the data set {unfit.name}") for name in others]
    changes = {name: value for name, value in state.changes.items() if name not in ("data", "name")}
    after = replace(state, changes=changes, asked="data", proposed=False)
    return Reply(intent, text, (*choices, *to_try(state)), (Action("dataset", "Look at it", unfit.id),)), after


def _shape(desk: Desk, state: State) -> str | None:
    spec = state.changes.get("data") or {}
    if spec.get("demo"):
        return "answers"
    found = desk.dataset(spec.get("dataset") or "")
    return found.shape if found else None


def _expected(desk: Desk, state: State) -> list[str] | None:
    """What the first rows expect as an answer; None where that can't be read now, which the plan will say."""
    with suppress(EngineError):
        return [row.expected for row in desk.planner.preview(Recipe.make({"method": "rl", "data": state.changes["data"]}), 50)]
    return None


def _number(text: str) -> bool:
    try:
        return math.isfinite(float(text.strip().replace(",", "").lstrip("$€£").rstrip("%")))
    except ValueError:
        return False
