"""`engine.runs`: many runs at a glance, compared, and taken as a start for others. Of one owner; somebody else's raise NotFound.

Reads the store and puts together what screens show; trains nothing and draws nothing.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from engine import chapters, knowledge, models, paths, policy, share
from engine.chapters import Chapter, Figure
from engine.errors import EngineError, NotFound, RecipeError
from engine.evaluation import doctor, outcome
from engine.evaluation.curves import Curve
from engine.jobs import logs, states
from engine.recipe import METHODS, Recipe, fields, written
from engine.spending import Spending
from engine.store import Job, Store

FINISHED = (states.DONE, states.STOPPED, states.FAILED)
MOVING = (*sorted(states.ACTIVE), states.QUEUED, states.INTERRUPTED)
GROUPS: dict[str, tuple[str, ...]] = {
    "running": MOVING,
    "paused": (states.PAUSED, states.NEEDS_KEY),
    "finished": (states.DONE,),
    "stopped": (states.STOPPED,),
    "failed": (states.FAILED,),
}


@dataclass(frozen=True)
class Card:
    """One run in a list: the curve that it is judged by in miniature, and that metric's name; its main figures, the last thing that it said
    while it moves, and what it has cost, in words."""

    job: Job
    curve: list[float]
    last_line: str
    metric: str = doctor.LOSSES[0]
    figures: tuple[Figure, ...] = ()
    spent: str = ""


@dataclass(frozen=True)
class Pace:
    """How fast a run is in training, on average so far, and how much training is left at that. None: not known yet."""

    tokens_per_second: float | None
    seconds_left: float | None


@dataclass(frozen=True)
class Shared:
    """The same run in three forms to copy."""

    command: str
    yaml: str
    script: str


class Runs:
    """The runs of one owner."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner
        self._spending = Spending(store, owner)
        self._rates: dict[tuple[str, str], float | None] = {}

    def cards(self, group: str = "", search: str = "", limit: int = 20, offset: int = 0) -> list[Card]:
        """Newest first; `group` is one of GROUPS, or empty for all."""
        wanted = GROUPS.get(group) if group else None
        jobs = self._store.jobs(self._owner, states=wanted, search=search or None, limit=limit, offset=offset)
        return self._cards(jobs)

    def card(self, job_id: str) -> Card:
        """One of them. Raises NotFound."""
        return self._cards([self._job(job_id)])[0]

    def _cards(self, jobs: Sequence[Job]) -> list[Card]:
        mains = {job.id: self._main(job) for job in jobs}
        curves: dict[str, list[float]] = {}
        for metric in {metric for metric, _ in mains.values()}:
            alike = [job_id for job_id, (name, _) in mains.items() if name == metric]
            curves |= self._store.miniatures(alike, metric, owner=self._owner)
        names = sorted({name for _, found in mains.values() for name in found})
        last = self._store.last_values(list(mains), names, self._owner) if mains else {}
        spent = self._spending.of_all(jobs)
        found = []
        for job in jobs:
            metric, wanted = mains[job.id]
            figures = tuple(chapters.figures(wanted, last.get(job.id, {})))
            found.append(Card(job, curves.get(job.id, []), self._last_line(job), metric, figures, spent[job.id].text))
        return found

    def _main(self, job: Job) -> tuple[str, list[str]]:
        """The metric that a run's present stage is drawn by, and those that stand for it."""
        try:
            stages = job.recipe.stages()
        except EngineError:
            return doctor.LOSSES[0], list(doctor.LOSSES)
        if len(stages) == 1:
            recipe = stages[0].recipe
            return chapters.main_curves(recipe)[0], knowledge.figures(recipe.method)
        now = chapters.present(self.chapters(job), job.step)
        return (now.main[0], knowledge.figures(now.method)) if now else (doctor.LOSSES[0], list(doctor.LOSSES))

    def pace(self, job: Job) -> Pace:
        """Its speed in training, resumed stretches counted."""
        if not job.step or job.training_seconds <= 0:
            return Pace(None, None)
        left = job.training_seconds / job.step * max(0, job.total_steps - job.step)
        return Pace(job.tokens / job.training_seconds, left if job.state in (states.PREPARING, states.TRAINING) else None)

    def lately(self, limit: int = 5) -> list[Job]:
        """What came to its end, the latest first."""
        found = self._store.jobs(self._owner, states=FINISHED, limit=10 * limit)
        return sorted(found, key=lambda job: job.finished_at or job.created_at, reverse=True)[:limit]

    def counts(self, search: str = "") -> dict[str, int]:
        """How many runs each of GROUPS has, of those that `search` finds."""
        by_state = self._store.count_jobs(self._owner, search or None)
        return {group: sum(by_state.get(state, 0) for state in members) for group, members in GROUPS.items()}

    def demos_run(self) -> set[str]:
        """The demos by examples alone among the newest runs."""
        recipes = [json.loads(job.recipe_json) for job in self._store.jobs(self._owner, limit=50)]
        return {one.get("data", {}).get("demo", "") for one in recipes if knowledge.methods_of(one) == ("sft",)} - {""}

    def rename(self, job_id: str, name: str) -> Job:
        """The run by another name; a model that came of it keeps its own. Raises RecipeError for a name that can't be."""
        name = " ".join(name.split())
        if not 1 <= len(name) <= 120:
            raise RecipeError("a run's name has 1 to 120 characters", "Give another name.", where="recipe name")
        return self._store.rename_job(self._job(job_id).id, name, self._owner)

    def again(self, job_id: str, changes: dict[str, Any] | None = None) -> Recipe:
        """The recipe of a run, with some fields changed, for another. Raises RecipeError."""
        job = self._job(job_id)
        return job.recipe.merged({"name": job.name, **(changes or {})})

    def shared(self, job_id: str) -> Shared:
        """The run as a command, a recipe file and a script."""
        recipe = self.again(job_id)
        told = policy.of(self._owner).told
        return Shared(told(share.as_command(recipe)), told(recipe.to_yaml()), told(share.as_script(recipe)))

    def recommended_rate(self, base_model: str, method: str = "sft") -> float | None:
        """The learning rate that suits the model and the method; None where nothing is known of it on this machine."""
        if not policy.of(self._owner).local_paths and base_model != "nano" and not models.is_hub_id(base_model):
            return None
        if (base_model, method) not in self._rates:
            self._rates[base_model, method] = _recommended(base_model, method)
        return self._rates[base_model, method]

    def diagnose(self, job: Job, curves: Mapping[str, Curve]) -> list[doctor.Finding]:
        """What the run doctor says of its curves; of a later stage's by what was measured since that began."""
        recipe, began = self._stage(job)
        if began:
            # In training, what was measured at its first step is still the stage's before it.
            curves = {name: curve.since(began + (not name.startswith("held_out_"))) for name, curve in curves.items()}
        found = doctor.examine(
            curves,
            rate=recipe.training.learning_rate,
            recommended=self.recommended_rate(job.base_model, recipe.method),
            moving=job.state in states.ACTIVE,
            alike=not recipe.data.demo,
            main=chapters.main_curves(recipe),
        )
        # What it would change stands in a recipe as the first stage's.
        return [replace(one, changes={}) for one in found] if began else found

    def chapters(self, job: Job) -> list[Chapter]:
        """Its stages, with where each began; see engine.chapters. None for a recipe that this version can't read."""
        return chapters.of_job(job, self._store.checkpoints(job.id, owner=self._owner))

    def present(self, job: Job, known: Sequence[Chapter] = ()) -> Chapter | None:
        """The stage that it is in, or was last in."""
        return chapters.present(known or self.chapters(job), job.step)

    def question(self, job: Job) -> str:
        """What it asks before it goes on, where it paused by itself for that; empty otherwise. To resume is to say yes."""
        if job.state != states.PAUSED:
            return ""
        points = self._store.checkpoints(job.id, owner=self._owner)
        if not points or max(points, key=lambda point: point.id).reason != "asked":
            return ""
        return (job.result or {}).get("asks", "")

    def main_curves(self, job: Job) -> tuple[str, str]:
        """The two metrics that its present stage is first of all judged by: in training and held out."""
        return chapters.main_curves(self._stage(job)[0])

    def figures(self, job: Job) -> list[Figure]:
        """The main figures of its present stage, as they are now."""
        _, names = self._main(job)
        return chapters.figures(names, self._store.last_values([job.id], names, self._owner).get(job.id, {}))

    def rollouts(self, job: Job, last: int = 20) -> list[dict[str, Any]]:
        """The best and the worst answer of each of its last steps that tried answers, the newest first: {step, which, prompt, expected,
        answer, score, parts, note, tokens, cut_off}. Raises NotFound."""
        from engine.training import rollouts

        return rollouts.shown(paths.job_folder(self._job(job.id).id), last)

    def _stage(self, job: Job) -> tuple[Recipe, int]:
        """The recipe of the stage that the run is in, and the step after which that began."""
        stages = job.recipe.stages()
        now = self.present(job) if len(stages) > 1 else None
        return (stages[now.number - 1].recipe, now.begins) if now else (stages[0].recipe, 0)

    def band(self, job: Job, name: str, curve: Curve, known: Sequence[Chapter] = ()) -> doctor.Band | None:
        """The healthy range of one of its metrics in its present stage, where it is known as numbers. `known` are its chapters."""
        now = self.present(job, known)
        return doctor.band(name, curve, self.recommended_rate(job.base_model, now.method if now else job.method))

    def news(self, job_id: str, after: Mapping[str, int]) -> dict[str, list[tuple[int, float]]]:
        """{metric: (step, value) after the step given for it}: every curve of a run, read on from where it was read to."""
        return self._store.curves_since(job_id, after, self._owner)

    def is_axis(self, name: str) -> bool:
        """Whether a metric is what others are drawn over, rather than one to look at."""
        return name in _axes()

    def field_help(self) -> dict[str, str]:
        """{'training.batch_size': what it is, in a sentence}, for every field of a recipe."""
        return {field["name"]: field["help"] for field in fields()}

    def table(self, known: Mapping[str, dict[str, Any]] | None = None, search: str = "") -> list[dict[str, Any]]:
        """Key figures of all runs, newest first. What is `known` of runs that have come to an end is taken over unread.

        id, name, state, method (all of them, in order), model, proof (in words), before, after (right answers), skills, the last value of
        each metric that stands for a method, tokens, seconds, steps, rate, rank, batch, created_at.
        """
        light = self._store.light_jobs(self._owner, search or None)
        settled = {row["id"] for row in light if row["state"] in FINISHED and (known or {}).get(row["id"], {}).get("state") == row["state"]}
        ids = [row["id"] for row in light if row["id"] not in settled]
        full = {job.id: job for job in self._store.jobs_by_id(ids, self._owner)} if ids else {}
        last = self._store.last_values(ids, telling(), self._owner) if ids else {}
        rows = []
        for row in light:
            if row["id"] in settled:
                rows.append({**(known or {})[row["id"]], "name": row["name"]})
            elif row["id"] in full:
                rows.append(_figures(full[row["id"]], last.get(row["id"], {})))
        return rows

    def totals(self) -> dict[str, float]:
        """{runs, finished, tokens, seconds} of all runs."""
        return self._store.totals(self._owner)

    def differences(self, job_ids: Sequence[str]) -> list[dict[str, Any]]:
        """[{field, help, values: {job id: value}}]: only what isn't the same in all of these runs' recipes, names left out."""
        jobs = self._known(job_ids)
        values = {job.id: share.flat(job.recipe) | _of_stages(job.recipe) for job in jobs}
        described = {field["name"]: field["help"] for field in fields() if field["name"] not in ("name", "then")}
        later = sorted({name for flat in values.values() for name in flat} - set(described) - {"name", "then"})
        told = policy.of(self._owner).told
        found = []
        for name in [*described, *later]:
            of_each = {job_id: told(flat.get(name)) for job_id, flat in values.items()}
            if len({json.dumps(value, sort_keys=True) for value in of_each.values()}) > 1:
                plain = name.rpartition(" ")[2]
                found.append({"field": name, "help": described.get(plain, ""), "values": of_each})
        return found

    def overlay(self, job_ids: Sequence[str], metric: str, along: str = "step") -> dict[str, list[tuple[float, float]]]:
        """{job id: [(where, value)]}: one metric of several runs along their steps, `tokens` or `seconds`.

        Runs that counted no tokens or seconds step by step are taken to have gone evenly.
        """
        found: dict[str, list[tuple[float, float]]] = {}
        for job in self._known(job_ids):
            points = self._store.curve(job.id, metric, owner=self._owner)
            if along != "step" and points:
                axis = {0: 0.0, **dict(self._store.curve(job.id, along, owner=self._owner))}
                total = float(job.tokens if along == "tokens" else job.training_seconds)
                each = total / job.step if job.step else 0.0
                found[job.id] = [(axis.get(step, step * each), value) for step, value in points]
            else:
                found[job.id] = [(float(step), value) for step, value in points]
        return found

    def judged_by(self, job_ids: Sequence[str]) -> list[str]:
        """The metrics by which these runs are first of all judged, held-out ones first, those that most of them share before others."""
        counted: dict[str, int] = {}
        for job in self._known(job_ids):
            with suppress(EngineError):
                for name in {name for stage in job.recipe.stages() for name in chapters.main_curves(stage.recipe)}:
                    counted[name] = counted.get(name, 0) + 1
        return sorted(counted, key=lambda name: (-counted[name], not name.startswith("held_out_"), name))

    def better(self, metric: str) -> str:
        """Which way a metric gets better: up, down or neither, which is also said of one that nobody described."""
        try:
            return str(knowledge.metric(metric)["better"])
        except NotFound:
            return "neither"

    def metric_names(self, job_ids: Collection[str]) -> list[str]:
        """What any of these runs has measured; axes left out."""
        names = {name for job in self._known(list(job_ids)) for name in self._store.metric_names(job.id, self._owner)}
        return sorted(names - _axes())

    def _known(self, job_ids: Sequence[str]) -> list[Job]:
        found = {job.id: job for job in self._store.jobs_by_id(job_ids, self._owner)}
        for job_id in job_ids:
            if job_id not in found:
                raise NotFound(f"There is no job {job_id}.", "List the jobs to see which there are.")
        return [found[job_id] for job_id in dict.fromkeys(job_ids)]

    def _job(self, job_id: str) -> Job:
        return self._store.find_job(job_id, self._owner)

    def _last_line(self, job: Job) -> str:
        if job.state not in states.ACTIVE:
            return ""
        lines = logs.read_log(job.id, 1)
        return str(policy.of(self._owner).told(lines[-1].get("text", ""))) if lines else job.stage


@cache
def telling() -> tuple[str, ...]:
    """The metrics that stand for a run on a card or in a table, of any method."""
    return tuple(dict.fromkeys((*doctor.LOSSES, *(name for method in METHODS for name in knowledge.figures(method)))))


def figures_of(row: Mapping[str, Any]) -> list[Figure]:
    """The main figures of a row of `table`, in words."""
    return chapters.figures(telling(), {name: row[name] for name in telling() if row.get(name) is not None})


def _of_stages(recipe: Recipe) -> dict[str, Any]:
    """What later stages say anew: {'stage 2 training.steps': 60}."""
    found = {}
    for number, (said, stage) in enumerate(zip(recipe.then, written(recipe)[1:], strict=True), 2):
        whole = share.flat(stage)
        for part, values in said.items():
            names = [f"{part}.{leaf}" for leaf in values] if isinstance(values, dict) else [part]
            found |= {f"stage {number} {name}": whole[name] for name in names if name in whole}
    return found


@cache
def _axes() -> frozenset[str]:
    return frozenset(name for name, entry in knowledge.metrics().items() if entry.get("axis"))


def _figures(job: Job, last: dict[str, float]) -> dict[str, Any]:
    result = job.result or {}
    held_out, skills = result.get("held_out") or {}, result.get("skills") or {}
    before, after = held_out.get("before") or {}, held_out.get("after") or {}
    methods = job.method
    try:
        recipe = job.recipe
        methods = " → ".join(stage.recipe.method for stage in recipe.stages())
        of_recipe = {"rate": recipe.training.learning_rate, "rank": recipe.lora.rank, "batch": recipe.training.batch_size}
    except EngineError:
        # Written by another version: its figures can be shown all the same.
        of_recipe = {"rate": None, "rank": None, "batch": None}
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "method": methods,
        "model": job.base_model,
        "proof": outcome.short(result),
        "before": before.get("exact_match"),
        "after": after.get("exact_match"),
        "skills": skills.get("after"),
        **{name: last.get(name) for name in telling()},
        "tokens": job.tokens,
        "seconds": job.training_seconds,
        "steps": job.step,
        **of_recipe,
        "created_at": job.created_at,
    }


def _recommended(base_model: str, method: str) -> float | None:
    try:
        if models.is_hub_id(base_model):
            from huggingface_hub import try_to_load_from_cache

            # Looking at a run downloads nothing: a model that was trained here has its files here.
            file = try_to_load_from_cache(base_model, "config.json")
            if not isinstance(file, str):
                return None
            with open(file, encoding="utf-8") as handle:
                config = json.load(handle)
        else:
            config = json.loads((models.resolve(base_model) / "config.json").read_text(encoding="utf-8"))
    except (EngineError, OSError, ValueError):
        return None
    return float(knowledge.recommend(config, base_model, method=method)["training.learning_rate"]["value"])
