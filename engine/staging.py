"""`engine.stages`: what follows one another in the run that is being put together: added, taken out, moved, changed. Of one owner's draft.

A stage that is added comes with the settings that suit its method; whatever is done to stages, the others stay as they are. Starts
nothing; what a stage is, is the recipe's to know.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from engine import data, knowledge
from engine.drafts import Draft, Drafts
from engine.errors import EngineError, NotFound, RecipeError
from engine.recipe import BLANK_DATA, MAY_CHANGE, METHODS, Recipe, follower, written

if TYPE_CHECKING:
    from engine.planning import Planner


@dataclass(frozen=True)
class Staged:
    """One stage as it stands in the draft; `number` counts from 1. `reasons` are what is recommended for its fields, `error` is why it
    can't be as it is, with what to do. `data` are the sources that it could learn from: {key: title}; `source` is the key of its own."""

    number: int
    recipe: Recipe
    title: str
    term: str
    steps: int
    rows: int
    source: str
    data: dict[str, str]
    reasons: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: dict[str, Any] | None = None


class Stages:
    """One owner's."""

    def __init__(self, planner: Planner, drafts: Drafts, library: Any):
        self._planner, self._drafts, self._library = planner, drafts, library

    def list(self) -> list[Staged]:
        """The draft's stages in order, none before any data is chosen. Raises EngineError where the first can't be told."""
        if not self._drafts.get().data():
            return []
        recipes = self._recipes()
        found = [self._staged(number, recipe, alone=len(recipes) == 1) for number, recipe in enumerate(recipes, 1)]
        return [replace(one, reasons=one.reasons | known) for one, known in zip(found, _measured(recipes), strict=True)]

    def add(self, method: str) -> Draft:
        """A further one at the end, on the same data where its rows serve."""
        recipes = self._recipes()
        return self._keep([*recipes, self._suited(recipes[-1], method)])

    def put_first(self, method: str) -> Draft:
        """One before all others, such as learning from examples before learning from preferences."""
        recipes = self._recipes()
        return self._keep([self._suited(recipes[0], method), *recipes])

    def remove(self, number: int) -> Draft:
        """Raises RecipeError for the only one."""
        recipes = self._recipes()
        if len(recipes) == 1:
            raise RecipeError("a run has one stage at least", "Add another before you take this one out.", where="recipe then")
        self._known(recipes, number)
        return self._keep([recipe for place, recipe in enumerate(recipes, 1) if place != number])

    def move(self, number: int, by: int) -> Draft:
        """One place earlier (-1) or later (1)."""
        recipes = self._recipes()
        self._known(recipes, number)
        self._known(recipes, number + by)
        here, there = number - 1, number - 1 + by
        recipes[here], recipes[there] = recipes[there], recipes[here]
        return self._keep(recipes)

    def change(self, number: int, field: str, value: Any) -> Draft:
        """Sets one field of a stage; None goes back to what is recommended. `data` takes a source's key. Raises RecipeError."""
        if number == 1:
            return self._drafts.change("data", _source(value)) if field == "data" else self._drafts.change(field, value)
        recipes = self._recipes()
        recipe = self._known(recipes, number)
        if field == "method":
            changed = self._suited(recipes[number - 2], value)
        elif field == "data":
            changed = recipe.merged({"data": {**BLANK_DATA, **_source(value)}})
        else:
            if value is None:
                value = self._advice(recipe).get(field, {}).get("value")
            *parts, leaf = field.split(".")
            changes: dict[str, Any] = {leaf: value}
            for part in reversed(parts):
                changes = {part: changes}
            changed = recipe.merged(changes)
        return self._keep([changed if place == number else one for place, one in enumerate(recipes, 1)])

    def _recipes(self) -> list[Recipe]:
        return written(self._planner.suggest(self._drafts.get().changes).recipe)

    def _keep(self, recipes: list[Recipe]) -> Draft:
        """The draft with these stages. What was chosen for the first stays as it was chosen while the first is the same."""
        draft = self._drafts.get()
        changes = {name: value for name, value in draft.changes.items() if name != "then"}
        if recipes[0] != self._recipes()[0]:
            changes = {name: value for name, value in changes.items() if name not in MAY_CHANGE}
            changes |= follower(Recipe(), recipes[0])
        followers = [follower(before, after) for before, after in pairwise(recipes)]
        return self._drafts.update(changes=changes | ({"then": followers} if followers else {}))

    def _suited(self, neighbour: Recipe, method: str) -> Recipe:
        """A stage of that method with what is recommended for it, on its neighbour's data where that serves."""
        if method not in METHODS:
            raise NotFound(f"there is no method {method!r}", f"There are: {', '.join(METHODS)}.")
        recipe = neighbour.merged({"method": method, "training": {"steps": None}})
        if not self._serves(recipe):
            offered = self._sources(method)
            recipe = recipe.merged({"data": {**BLANK_DATA, **_source(next(iter(offered), None))}})
        for name, known in self._advice(recipe).items():
            part, _, leaf = name.rpartition(".")
            if part in MAY_CHANGE:
                recipe = recipe.merged({part: {leaf: known["value"]}})
        return recipe

    def _advice(self, recipe: Recipe) -> dict[str, dict[str, Any]]:
        advice = self._planner.advice(recipe)
        try:
            rows = self._planner.figures(recipe)["epoch"]
        except EngineError:
            return advice
        return advice | {"training.steps": knowledge.steps_for(max(1, rows), recipe.training.batch_size)}

    def _serves(self, recipe: Recipe) -> bool:
        try:
            return bool(self._planner.figures(recipe)["train"])
        except EngineError:
            return False

    def _sources(self, method: str) -> dict[str, str]:
        """What a method could learn from, by a key."""
        shape = knowledge.shape(method)
        found = {f"demo:{name}": entry["title"] for name, entry in self._planner.example_sets(method).items()}
        serve = [kept for kept in self._library.find() if kept.state != "unmapped" and kept.shape in data.SERVES[shape]]
        mine = {f"dataset:{kept.id}": kept.name for kept in serve}
        return mine | found

    def _staged(self, number: int, recipe: Recipe, *, alone: bool) -> Staged:
        known = knowledge.method(recipe.method)
        source, offered = _key(recipe), self._sources(recipe.method)
        if source and source not in offered:
            offered = {source: recipe.data.path or "the same data", **offered}
        steps = rows = 0
        error = None
        reasons: dict[str, dict[str, Any]] = {}
        try:
            if not source:
                raise RecipeError("this stage has no data yet", f"It learns from {_wanted(recipe.method)}.", where=f"stage {number}")
            planned = [self._planner.planned(stage.recipe) for stage in recipe.stages()]
            steps, rows = sum(one.steps for one in planned), planned[0].figures["train"]
            reasons = {} if number == 1 else self._advice(recipe)
        except EngineError as found:
            error = found.to_dict()
        return Staged(number, recipe, known["title"], known["term"], steps, rows, source, offered, reasons, None if alone else error)

    def _known(self, recipes: list[Recipe], number: int) -> Recipe:
        if not 1 <= number <= len(recipes):
            raise NotFound(f"there is no stage {number}", f"There are {len(recipes)}.")
        return recipes[number - 1]


def _measured(recipes: list[Recipe]) -> list[dict[str, dict[str, Any]]]:
    """For stages that were measured one after the other on an example set, what they were measured with; else nothing."""
    methods, demo = [one.method for one in recipes], recipes[0].data.demo
    shipped = demo in {*knowledge.demos(), *knowledge.sets()} and recipes[0].base_model == "nano"
    known = Recipe.make(knowledge.measured(demo, methods)) if shipped else Recipe()
    if len(recipes) == 1 or [one.method for one in written(known)] != methods:
        return [{} for _ in recipes]
    why = {"reason": "Measured on this demo: with these settings it learns what it is meant to.", "source": "Thinker's own demos"}
    names = ("steps", "learning_rate", "batch_size")
    return [{f"training.{name}": {"value": getattr(one.training, name), **why} for name in names} for one in written(known)]


def _wanted(method: str) -> str:
    return str(knowledge.shapes()[knowledge.shape(method)]["title"])


def _key(recipe: Recipe) -> str:
    spec = recipe.data
    return next((f"{kind}:{value}" for kind in ("demo", "dataset", "path") if (value := getattr(spec, kind))), "")


def _source(key: str | None) -> dict[str, Any]:
    kind, _, name = (key or "").partition(":")
    return {kind: name} if name else {}
