"""From what a person chose to a whole recipe with reasons, and what that recipe will take: the wizard's and the assistant's counsel.

Reads data, a model's config and this owner's earlier runs; starts nothing and loads no weights.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from engine import data, endpoints, estimates, guard, knowledge, models, paths, places, profiles, starts, system, tokens_ahead, workloads
from engine.advice import Concern, limits, unprepared, warnings
from engine.data.dataset import stamp
from engine.data.files import read_rows
from engine.defaults import Defaults
from engine.endpoints import remote
from engine.endpoints.fitting import fits
from engine.errors import EngineError, RecipeError
from engine.estimates import Estimate
from engine.jobs import states
from engine.knowledge import pricing
from engine.library import Library
from engine.places import Place
from engine.recipe import DataSpec, Recipe
from engine.rendering import get_renderer, load_tokenizer
from engine.seen import Seen, seen_of
from engine.training.schedule import order, total_steps

if TYPE_CHECKING:
    from engine.store import Store

_ASKED_AGAIN_S = 10.0


@dataclass(frozen=True)
class Suggestion:
    """A whole recipe, and for each field that was recommended: {value, reason, source}."""

    recipe: Recipe
    reasons: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class PlannedStage:
    """One thing after the other: its recipe, the figures of its data, its updates. `goes_on` with what the stage before it learned."""

    recipe: Recipe
    figures: dict[str, Any]
    steps: int
    goes_on: bool


@dataclass(frozen=True)
class Plan:
    """What a recipe comes to. `figures` are those of the data of its first stage: shape, train, epoch (rows until the data is gone
    through once), held_out, replay, median, ...; `stages` has every stage's recipe, figures and steps."""

    steps: int
    figures: dict[str, Any]
    estimates: tuple[Estimate, ...]
    warnings: tuple[Concern, ...]
    stages: tuple[PlannedStage, ...] = ()


class Planner:
    """One owner's. What was read of a file is remembered while it stays as it is."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner
        self._library = Library(store, owner)
        self._defaults = Defaults(store, owner)
        self._known: dict[tuple, Any] = {}

    def places(self) -> list[Place]:
        """Where a run can take place, each with what it needs, looked at now."""
        return places.look(self._owner)

    def models_at(self, endpoint: str) -> list[str]:
        """The base models that an endpoint has to choose from; empty where any can be named. Raises EngineError."""
        if endpoints.kind(endpoint, self._owner).weights:
            return []
        return [offer.name for offer in self._offers(endpoint) if offer.trainable]

    def about_model(self, endpoint: str, listed_as: str) -> list[str]:
        """What is known of a model where it would be trained: the most tokens that it takes at once, and its price. In words."""
        found = []
        with suppress(EngineError):
            if context := self._context(endpoint, listed_as):
                found.append(f"takes up to {context:,} tokens at once (context)")
        price = pricing.find(endpoint, listed_as)
        if price is not None and not price.free:
            found.append(price.told)
        return found

    def trains_all_weights(self, endpoint: str) -> bool:
        """Whether full fine-tuning can be had there. Raises RecipeError for an unknown endpoint."""
        return endpoints.kind(endpoint, self._owner).full

    def goals(self) -> dict[str, dict[str, Any]]:
        """What people come for, by name: title, icon, meaning, method, data, row; the demo names its demo."""
        return knowledge.goals()

    def shape(self, method: str) -> str:
        """What rows a method learns from: answers, pairs, labels, prompts or preferences. Raises NotFound."""
        return knowledge.shape(method)

    def goals_for(self, shape: str) -> list[str]:
        """Those that rows of this shape serve and that bring no data of their own, the ones made for it first."""
        wants = {name: knowledge.shape(goal["method"]) for name, goal in knowledge.goals().items() if "demo" not in goal}
        fitting = [name for name, want in wants.items() if shape in data.SERVES[want]]
        return sorted(fitting, key=lambda name: wants[name] != shape)

    def example_sets(self, method: str) -> dict[str, dict[str, Any]]:
        """The data sets that ship and that a method can learn from: {name: {title, task, rows}}."""
        pairs, demos = knowledge.pairs(), knowledge.demos()
        if knowledge.shape(method) in ("answers", "prompts"):
            return {name: {"title": demo["title"], "task": demo["task"], "rows": demo["examples"]["train"]} for name, demo in demos.items()}
        return {name: {"title": one["title"], "task": one["learns"], "rows": one["examples"]["train"]} for name, one in pairs.items()}

    def starts(self) -> dict[str, str]:
        """Tuned models that a run can go on from, newest first: {id: name}."""
        return {model.id: model.name for model in self._store.models(self._owner) if model.weights_path}

    def suggest(self, changes: dict[str, Any]) -> Suggestion:
        """What the person chose, and for the rest what suits model and data. Raises EngineError."""
        found = starts.named(self._store, self._owner, changes)
        changes = starts.complete(self._store, self._owner, changes)
        spec = changes.get("data") or {}
        if not spec.get("demo") and not spec.get("path") and not spec.get("dataset"):
            raise RecipeError("no data is chosen yet", "Choose an example set or give a file.", where="recipe data")
        start: dict[str, Any] = {}
        reasons: dict[str, dict[str, Any]] = {}
        full = bool(changes.get("full"))
        methods = knowledge.methods_of(changes)
        # A demo keeps what was measured for it.
        own = {} if spec.get("demo") else self._defaults.get()
        base_model = changes.get("base_model") or own.get("base_model") or "nano"
        for name in ("path", "held_out_path"):
            if spec.get(name):
                guard.file(self._owner, f"data.{name}")
        guard.model(self._owner, base_model, changes.get("endpoint") or "local")
        if spec.get("demo"):
            start = knowledge.measured(spec["demo"], methods)
        elif spec.get("dataset"):
            start = {"name": self._library.usable(spec["dataset"]).name}
        else:
            start = {"name": Path(spec["path"]).stem.replace("_", " ")}
        if not spec.get("demo") or base_model != "nano" or full or knowledge.methods_of(start) != methods:
            advice = knowledge.recommend(self._config(base_model), base_model, lora=not full, method=methods[0])
            about_adapters = {name for name, known in advice.items() if name.startswith("lora.") or "LoRA" in known["reason"]}
            reasons = {name: known for name, known in advice.items() if not (full and name in about_adapters)}
            for name, known in reasons.items():
                start = _set(start, name, known["value"])
        else:
            reason = "Measured on this demo: with these settings it learns what it is meant to."
            for name in ("training.learning_rate", "training.steps", "training.batch_size", "lora.rank"):
                reasons[name] = {"value": _get(start, name), "reason": reason, "source": "Thinker's own demos"}
        for name, value in own.items():
            start = _set(start, name, value)
            reasons[name] = {"value": value, "reason": "Your own default, from the settings.", "source": "Settings"}
        recipe = Recipe.make(start).merged(changes)
        if recipe.profile:
            before, recipe = recipe, profiles.settle(self._store, self._owner, recipe)
            reasons |= profiles.decided(before, recipe)
        rows = self.figures(recipe)["epoch"]
        chosen = changes.get("training", {})
        measured = bool(spec.get("demo")) and knowledge.methods_of(start) == methods
        if not measured and rows and not {"steps", "epochs"} & {name for name, value in chosen.items() if value is not None}:
            reasons["training.steps"] = knowledge.steps_for(rows, recipe.training.batch_size)
            recipe = recipe.merged({"training": {"steps": reasons["training.steps"]["value"]}})
        if found is not None:
            reasons.pop("lora.rank", None)
            for name in ("base_model", "full", *(() if recipe.full else (f"lora.{part}" for part in recipe.lora.model_dump()))):
                value = _get(recipe.model_dump(mode="json"), name)
                reasons[name] = {"value": value, "reason": f"As in {found.name}, which this run goes on from.", "source": "its checkpoint"}
        if "lora.rank" in reasons and found is None:
            known = reasons["lora.rank"]
            reasons["lora.rank"] = known | {"reason": f"{known['value']} is enough for {rows:,} examples. {known['reason']}"}
        return Suggestion(recipe, reasons)

    def advice(self, recipe: Recipe) -> dict[str, dict[str, Any]]:
        """What suits the recipe's model and method, by field: {value, reason, source}. Raises EngineError."""
        guard.recipe(self._owner, recipe)
        self._own(recipe.data)
        config = self._config(recipe.base_model)
        return knowledge.recommend(config, recipe.base_model, lora=not recipe.full, method=recipe.method)

    def columns(self, spec: DataSpec) -> list[str]:
        """The names in the file's first rows, to say which is which. Raises DataError."""
        guard.data(self._owner, spec)
        self._own(spec)
        path = Path(spec.path).expanduser() if spec.path else data.source(spec, "answers")[0]
        names: dict[str, None] = {}
        for count, (_, row) in enumerate(read_rows(path)):
            if isinstance(row, dict):
                names.update(dict.fromkeys(map(str, row)))
            if count >= 20:
                break
        return list(names)

    def plan(self, recipe: Recipe) -> Plan:
        """Estimates and warnings. Raises EngineError for data or a model that can't be read."""
        guard.recipe(self._owner, recipe)
        config, speeds = self._config(recipe.base_model), knowledge.speeds()
        stages = tuple(self.planned(stage.recipe, stage.begins >= 0) for stage in recipe.stages())
        figures = stages[0].figures
        model = estimates.model_size(config)
        speed, speed_from = self._speed(recipe, model)
        load, *later = (workloads.of_stage(stage.recipe, stage.figures, stage.steps, speeds) for stage in stages)
        free = system.probe(paths.home()).memory_free
        memory = None
        found: list[Estimate] = []
        if speed:
            found.append(estimates.time(load, speed, speed_from, speeds, *later))
        # What it takes of a machine that nobody here sees is nobody's concern.
        if model and endpoints.kind(recipe.endpoint, self._owner).weights:
            lora = recipe.lora
            adapter = estimates.adapter_parameters(model, lora.rank, lora.train_attn, lora.train_mlp, lora.train_unembed)
            trained = model.parameters if recipe.full else adapter
            heaviest = max((load, *later), key=lambda one: one.longest)
            memory = estimates.memory(model, heaviest, free, full=recipe.full, trained=trained)
            found.append(memory)
        tokens, price = (
            tokens_ahead.expect(recipe, figures, [stage.figures for stage in stages]),
            pricing.find(recipe.endpoint, recipe.base_model),
        )
        if money := estimates.money(tokens, price):
            found.append(money)
        told = []
        for number, stage in enumerate(stages, 1):
            recommended = knowledge.recommend(config, recipe.base_model, lora=not recipe.full, method=stage.recipe.method)
            of_model = (model.hidden if model else 0, memory if number == 1 else None, free)
            found_out = warnings(stage.recipe, stage.figures, recommended, stage.steps, *of_model)
            if number == 1 and not recipe.start.checkpoint:
                found_out += unprepared(stage.recipe)
            told += [one.of_stage(number) for one in found_out] if len(stages) > 1 else found_out
        told += limits(recipe, tokens, price)
        told += self._refused(recipe)
        told.sort(key=lambda one: one.level != "stop")
        return Plan(sum(stage.steps for stage in stages), figures, tuple(found), tuple(told), stages)

    def planned(self, recipe: Recipe, goes_on: bool = False) -> PlannedStage:
        """One stage by itself. Raises EngineError for data that can't be read."""
        figures = self.figures(recipe)
        return PlannedStage(recipe, figures, total_steps(recipe.training, max(1, figures["epoch"])), goes_on)

    def figures(self, recipe: Recipe) -> dict[str, Any]:
        """Counts and lengths of the recipe's data, as its model counts tokens. Raises EngineError."""
        guard.recipe(self._owner, recipe)
        spec = recipe.data
        self._own(spec)
        told = (
            recipe.method,
            recipe.endpoint,
            recipe.base_model,
            recipe.renderer,
            recipe.system_prompt,
            recipe.training.max_length,
            recipe.seed,
        )
        key = ("figures", stamp(spec), spec.model_dump_json(), *told)
        if key not in self._known:
            self._remember(key, self._figures(recipe))
        return dict(self._known[key])

    def preview(self, recipe: Recipe, count: int = 5) -> list[Seen]:
        """The first examples as the model will see them. Raises EngineError."""
        guard.recipe(self._owner, recipe)
        self._own(recipe.data)
        told = (recipe.method, recipe.base_model, recipe.renderer, recipe.system_prompt, recipe.seed, count)
        key = ("seen", stamp(recipe.data), recipe.data.model_dump_json(), *told)
        if key not in self._known:
            tokenizer = load_tokenizer(models.resolve(recipe.base_model, weights=False))
            render = get_renderer(recipe.renderer, tokenizer)
            loaded = data.load_data(recipe, skills=False)
            seen = [one for example in loaded.train[:count] for one in seen_of(example, loaded.shape, render, tokenizer)]
            self._remember(key, seen)
        return list(self._known[key])

    def _figures(self, recipe: Recipe) -> dict[str, Any]:
        spec, shape = recipe.data, knowledge.shape(recipe.method)
        # First, since it calls a data set by its name where something is wrong with it.
        loaded = data.load_data(recipe)
        path, layout, mapping = data.source(spec, shape)
        tokenizer = load_tokenizer(models.resolve(recipe.base_model, weights=False))
        limit = recipe.training.max_length
        with suppress(EngineError):
            there = self._context(recipe.endpoint, recipe.base_model)
            limit = min(filter(None, (limit, there)), default=None)
        report = data.check(path, layout, mapping, tokenizer, recipe.renderer, limit, shape, spec.transforms)
        epoch = order(recipe, loaded.train, [0] * len(loaded.train)).rows
        tokens, examples = report["tokens"], max(1, report["examples"])
        file = Path(path).name
        if spec.dataset:
            # What is read is what was kept; people know the file that it came from.
            kept = self._library.get(spec.dataset)
            report |= {"format": kept.format, "columns": kept.stats.get("columns", {}), "rows": kept.stats["rows"]}
            report["problems"] = self._library.problems(kept.id)["problems"] + report["problems"]
            file = kept.file
        return {
            "file": file,
            "shape": loaded.shape,
            "notes": loaded.notes,
            "format": report["format"],
            "columns": report["columns"],
            "rows": report["rows"],
            "problems": report["problems"],
            "train": len(loaded.train),
            "epoch": epoch,
            "held_out": len(loaded.held_out),
            "good": sum(example.good is True for example in loaded.train),
            "expected": sum(bool(example.answer) for example in loaded.train),
            "replay": loaded.replay_count,
            "skills": len(loaded.skills),
            "tokens": tokens["total"],
            "mean": tokens["total"] / examples,
            "answer_mean": tokens["answers"] / examples,
            **{name: tokens[name] for name in ("median", "longest", "max_length", "truncated", "without_any_answer")},
        }

    def _config(self, base_model: str) -> dict[str, Any]:
        return json.loads((models.resolve(base_model, weights=False) / "config.json").read_text(encoding="utf-8"))

    def _refused(self, recipe: Recipe) -> list[Concern]:
        """What a server elsewhere would say to it."""
        try:
            fits(recipe, self._context(recipe.endpoint, recipe.base_model))
        except RecipeError as error:
            return [Concern("stop", _sentence(error.message), error.next_step, error.where.removeprefix("recipe "))]
        except EngineError as error:
            return [Concern("stop", _sentence(error.message), error.next_step, "endpoint")]
        return []

    def _context(self, endpoint: str, base_model: str) -> int | None:
        """The most tokens at once, as a server elsewhere lists them. Raises EngineError."""
        if endpoints.kind(endpoint, self._owner).weights:
            return None
        return remote.chosen(endpoint, base_model, self._owner, self._offers(endpoint)).context

    def _offers(self, endpoint: str) -> list[remote.Offer]:
        """The models of a server elsewhere; asked again after some seconds. Raises EngineError."""
        where = remote.address(endpoint, self._owner)
        key = ("offers", where.url, hash(where.key(self._owner)), int(time.monotonic() / _ASKED_AGAIN_S))
        if key not in self._known:
            self._remember(key, remote.offers(endpoint, self._owner))
        return self._known[key]

    def _speed(self, recipe: Recipe, model: estimates.ModelSize | None) -> tuple[float | None, str]:
        """Tokens a second, and where that is from: this machine's earlier runs, else the table."""
        finished = self._store.jobs(self._owner, states=(states.DONE, states.STOPPED), search=recipe.base_model, limit=50)
        like = (recipe.base_model, recipe.endpoint)
        same = [job for job in finished if (job.base_model, job.endpoint) == like and job.training_seconds > 1]
        # Other methods take longer for a token, by a factor that is reckoned with: measured is what plain examples take.
        plain = [job for job in same if job.method == "sft" and not job.recipe.then and job.recipe.full == recipe.full]
        measured = [job.tokens / job.training_seconds for job in plain]
        if measured:
            return median(measured), f"the median of {len(measured)} earlier run{'s' * (len(measured) > 1)} of this model here"
        if model is None or not endpoints.kind(recipe.endpoint, self._owner).weights:
            return None, ""
        cores = system.usable_cpus()
        speed = estimates.table_speed(model.parameters, cores, knowledge.speeds())
        return speed, f"from a table, for {model.parameters / 1e6:,.1f} million parameters on {cores} CPU cores"

    def _own(self, spec: DataSpec) -> None:
        """Raises NotFound for a data set that is somebody else's."""
        for part in (spec, *spec.mix):
            if part.dataset:
                self._library.usable(part.dataset)

    def _remember(self, key: tuple, value: Any) -> None:
        while len(self._known) >= 32:
            del self._known[next(iter(self._known))]
        self._known[key] = value


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")


def _get(values: dict[str, Any], field: str) -> Any:
    for name in field.split("."):
        values = values[name]
    return values


def _set(values: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    part, _, leaf = field.rpartition(".")
    return {**values, part: {**values.get(part, {}), leaf: value}} if part else {**values, leaf: value}
