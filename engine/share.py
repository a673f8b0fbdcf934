"""The same run as a command, a recipe file and a Python script, to take along. Pure: from a recipe to text, no store, no files.

A command says all that differs from what the command line would choose by itself, so that it parses to the same recipe.
"""

from __future__ import annotations

import json
import pprint
import shlex
from collections.abc import Callable, Mapping
from typing import Any

import yaml

from engine import knowledge
from engine.recipe import Recipe, fields, written

_FLAGS = {
    "name": "--name",
    "method": "--method",
    "base_model": "--model",
    "start.checkpoint": "--start",
    "training.steps": "--steps",
    "training.epochs": "--epochs",
    "training.batch_size": "--batch-size",
    "training.learning_rate": "--lr",
    "training.max_length": "--max-length",
    "lora.rank": "--rank",
    "seed": "--seed",
    "data.format": "--format",
    "renderer": "--renderer",
    "system_prompt": "--system",
    "data.held_out_path": "--held-out",
}
# What `train FILE` chooses by itself for the model and the data at hand; said, so that it's the same anywhere.
_CHOSEN = ("name", "training.epochs")
_SCRIPT = '''"""{title}: run it from Thinker's folder, with the Python in its .venv."""

from engine import Engine, Recipe

RECIPE = {recipe}


def main() -> None:
    with Engine() as engine:
        result = engine.run(Recipe.make(RECIPE))
    print(result.name, "is", result.state, "after", result.steps, "steps")
    before = result.held_out["before"] or {{}}
    for name, after in (result.held_out["after"] or {{}}).items():
        print(f"{{name}}: {{before.get(name)}} -> {{after}}")


if __name__ == "__main__":
    main()
'''


def as_command(recipe: Recipe) -> str:
    """A command line for a POSIX shell."""
    values = flat(recipe)
    if recipe.data.demo:
        demo = Recipe.make(knowledge.demo(recipe.data.demo)["recipe"])
        usual = flat(demo.merged(suited(recipe.method)) if recipe.method != demo.method else demo)
        words, said = ["--demo", recipe.data.demo], {"data.demo", "data.path"}
        usual["method"] = demo.method
        told = [name for name in values if name not in said and values[name] != usual[name]]
    else:
        usual = flat(Recipe())
        words = ["--dataset", recipe.data.dataset] if recipe.data.dataset else [recipe.data.path]
        said = {"data.demo", "data.path", "data.dataset"}
        always = {*_CHOSEN, *knowledge.recommend({}, method=recipe.method)}
        told = [name for name in values if name not in said and (name in always or values[name] != usual[name])]
    for name in told:
        words += _words(name, values[name])
    return " ".join(["python thinker.py train", *map(shlex.quote, words)])


def suited(method: str) -> dict[str, Any]:
    """What a demo that was measured for another method takes instead with this one: the changes to its recipe."""
    changes: dict[str, Any] = {}
    for name, known in knowledge.recommend({}, "nano", method=method).items():
        part, _, leaf = name.rpartition(".")
        if part != "lora":
            changes.setdefault(part, {})[leaf] = known["value"]
    return {"method": method, **changes}


def as_script(recipe: Recipe) -> str:
    """A Python program that runs it in the foreground and prints what came of it."""
    values = recipe.model_dump(mode="json", exclude_defaults=True)
    title = (recipe.name or "A run").replace("\\", " ").replace('"', "'")
    shown = pprint.pformat(values, width=110, sort_dicts=False)
    return _SCRIPT.format(title=" ".join(title.split()), recipe=shown)


def flat(recipe: Recipe) -> dict[str, Any]:
    """{'training.batch_size': 32, ...}, every field."""
    tree, values = recipe.model_dump(mode="json"), {}
    for field in fields():
        place: Any = tree
        for part in field["name"].split("."):
            place = place[part]
        values[field["name"]] = place
    return values


def of_stages(recipe: Recipe) -> dict[str, Any]:
    """What later stages say anew: {'stage 2 training.steps': 60}."""
    found = {}
    for number, (said, stage) in enumerate(zip(recipe.then, written(recipe)[1:], strict=True), 2):
        whole = flat(stage)
        for part, values in said.items():
            names = [f"{part}.{leaf}" for leaf in values] if isinstance(values, dict) else [part]
            found |= {f"stage {number} {name}": whole[name] for name in names if name in whole}
    return found


def differences(recipes: Mapping[str, Recipe | None], told: Callable[[Any], Any]) -> list[dict[str, Any]]:
    """[{field, help, values: {key: value}}]: only what isn't the same in all of them, names left out. None stands for a recipe that this
    version can't read, which is said in a row of its own. `told` is what may be shown of a value."""
    values = {key: flat(recipe) | of_stages(recipe) for key, recipe in recipes.items() if recipe is not None}
    described = {field["name"]: field["help"] for field in fields() if field["name"] not in ("name", "then")}
    later = sorted({name for known in values.values() for name in known} - set(described) - {"name", "then"})
    found = []
    for name in [*described, *later]:
        of_each = {key: told(known.get(name)) for key, known in values.items()}
        if len({json.dumps(value, sort_keys=True) for value in of_each.values()}) > 1:
            found.append({"field": name, "help": described.get(name.rpartition(" ")[2], ""), "values": of_each})
    if len(values) < len(recipes):
        which = {key: "can be read" if key in values else "of another version" for key in recipes}
        found.append({"field": "recipe", "help": "What another version of Thinker wrote can't be compared.", "values": which})
    return found


def _words(name: str, value: Any) -> list[str]:
    """As a flag of its own where it has one; an empty value can only be set."""
    flag = _FLAGS.get(name)
    if flag and value not in (None, ""):
        return [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]
    return ["--set", f"{name}={_scalar(value)}"]


def _scalar(value: Any) -> str:
    """One line of YAML. JSON is YAML, but for numbers such as 1e-08, which YAML 1.1 takes for text."""
    if isinstance(value, float):
        return yaml.safe_dump(value).splitlines()[0]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)}: {_scalar(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
