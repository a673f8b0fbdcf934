"""Engine: the front door. Pages, the CLI and the assistant call it; it calls the parts.

Loads neither torch nor the SDK by itself: what trains or samples runs in other processes, or, in the foreground
(`run`, `chat`), is imported when it's asked for. Everything that takes an id belongs to this Engine's owner; what is
somebody else's raises NotFound.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine import data, knowledge, models, paths, system
from engine.errors import EngineError, NotFound, RecipeError, StateError
from engine.jobs import host, logs
from engine.recipe import Recipe
from engine.rendering import load_tokenizer
from engine.store import Checkpoint, Event, Job, Model, Sample, Store
from engine.store.artefacts import remove_job_folder


@dataclass(frozen=True)
class Result:
    """What came of a run. `held_out` and `skills` are {before, after}; `checkpoint` is for sampling."""

    job_id: str
    name: str
    state: str
    held_out: dict[str, Any]
    skills: dict[str, Any]
    seconds: float
    tokens: int
    steps: int
    checkpoint: str
    better: int = 0
    worse: int = 0
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


class Engine:
    """One person's view of one data directory."""

    def __init__(self, owner: str = "local", database_url: str | None = None):
        self.owner = owner
        self.store = Store(database_url)

    # -- making recipes

    def demo_recipe(self, name: str, changes: dict[str, Any] | None = None) -> Recipe:
        """The recipe of a demo, with some fields changed. Raises NotFound."""
        return Recipe.make(knowledge.demo(name)["recipe"]).merged(changes or {})

    def file_recipe(self, path: str | Path, changes: dict[str, Any] | None = None) -> Recipe:
        """A recipe for a data file: what the person chose, and for the rest what suits the model. Raises EngineError."""
        chosen = changes or {}
        base_model = chosen.get("base_model", "nano")
        folder = models.resolve(base_model)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        values: dict[str, Any] = {"data": {"path": str(Path(path).expanduser().resolve())}, "name": Path(path).stem}
        for field, advice in knowledge.recommend(config, base_model).items():
            part, _, leaf = field.rpartition(".")
            place = values.setdefault(part, {}) if part else values
            place.setdefault(leaf, advice["value"])
        recipe = Recipe.make(values).merged(chosen)
        if {"steps", "epochs"} & set(chosen.get("training", {})):
            return recipe
        rows = len(data.load_data(recipe, skills=False).train)
        return recipe.merged({"training": {"steps": knowledge.steps_for(rows, recipe.training.batch_size)["value"]}})

    # -- jobs

    def launch(self, recipe: Recipe) -> Job:
        """Queues the run and returns at once; a runner in the background takes it up. Raises EngineError."""
        self._check(recipe)
        job = self.store.create_job(recipe, self.owner)
        host.ensure_runner()
        return job

    def run(self, recipe: Recipe, on_start: Callable[[Job], None] | None = None) -> Result:
        """Trains in the foreground, with the same code, to the end. Raises the error that ended it, or StateError if it was paused."""
        return self.result(self.run_job(recipe, on_start).id)

    def run_job(self, recipe: Recipe, on_start: Callable[[Job], None] | None = None) -> Job:
        """As `run`, but a job that was paused or stopped meanwhile is given back as it stands."""
        from engine.jobs.runner import Runner

        self._check(recipe)
        job = Runner(self.store, host.resolve()).run_new(recipe, self.owner, on_start)
        if job.error:
            raise EngineError.from_dict(job.error)
        return job

    def jobs(self, **filters: Any) -> list[Job]:
        """Newest first; filters: states, search, limit, offset."""
        return self.store.jobs(self.owner, **filters)

    def job(self, job_id: str) -> Job:
        """By id or the beginning of one. Raises NotFound."""
        return self.store.find_job(job_id, self.owner)

    def result(self, job_id: str) -> Result:
        """Raises StateError for a job that has none yet."""
        job = self.job(job_id)
        found = job.result
        if not found:
            raise StateError(f"{job.name} is {job.state} and has no result yet", "Wait for it to finish.", where=f"job {job.id}")
        empty = {"before": None, "after": None}
        return Result(
            job_id=job.id,
            name=job.name,
            state=job.state,
            held_out=found.get("held_out") or empty,
            skills=found.get("skills") or empty,
            seconds=found["seconds"],
            tokens=found["tokens"],
            steps=found["steps"],
            checkpoint=found["checkpoint"],
            better=found.get("better", 0),
            worse=found.get("worse", 0),
            notes=tuple(found.get("notes", ())),
        )

    def pause(self, job_id: str) -> Job:
        """Within a step; what was learned is saved. Raises StateError."""
        return self.store.set_control(self.job(job_id).id, "pause", self.owner)

    def stop(self, job_id: str) -> Job:
        """Within a step; what was learned is saved and kept. Raises StateError."""
        return self.store.set_control(self.job(job_id).id, "stop", self.owner)

    def resume(self, job_id: str) -> Job:
        """From the last checkpoint. Raises StateError."""
        job = self.store.resume(self.job(job_id).id, self.owner)
        host.ensure_runner()
        return job

    def delete(self, job_id: str) -> None:
        """The job with its curves, log and folder; its models and checkpoints stay. Raises StateError while it runs."""
        job = self.job(job_id)
        self.store.delete_job(job.id, self.owner)
        remove_job_folder(job.id)

    def revive(self) -> None:
        """Sees to it that work which a killed process left lying is taken up again. Call it when a session begins."""
        if self.store.has_work():
            host.ensure_runner()

    def curve(self, job_id: str, name: str, after_step: int = -1) -> list[tuple[int, float]]:
        """(step, value) of one metric: one clean curve, whatever was repeated."""
        return self.store.curve(job_id, name, after_step, self.owner)

    def metric_names(self, job_id: str) -> list[str]:
        """What there are curves of."""
        return self.store.metric_names(job_id, self.owner)

    def latest(self, job_id: str) -> dict[str, float]:
        """The newest value of each metric."""
        return self.store.latest_metrics(job_id, self.owner)

    def samples(self, job_id: str, after_step: int = -1) -> list[Sample]:
        """What the model answered to the fixed prompts."""
        return self.store.samples(job_id, after_step, self.owner)

    def checkpoints(self, job_id: str) -> list[Checkpoint]:
        """Both kinds, oldest first."""
        return self.store.checkpoints(job_id, owner=self.owner)

    def events(self, job_id: str, after_id: int = 0) -> list[Event]:
        """Stages and changes of state, oldest first."""
        return self.store.events(job_id, after_id, self.owner)

    def log(self, job_id: str, last: int = 100) -> list[dict[str, Any]]:
        """The last lines of the job's log."""
        return logs.read_log(self.job(job_id).id, last)

    # -- models and chats

    def models(self) -> list[Model]:
        """Tuned models, newest first."""
        return self.store.models(self.owner)

    def model(self, name: str) -> Model:
        """By name or id; the name of a job finds its model too. Raises NotFound."""
        try:
            return self.store.model(name, self.owner)
        except NotFound:
            found = self.store.models(self.owner, job_id=self.job(name).id)
            if not found:
                raise
            return found[0]

    def chat(self, name: str = "", **settings: Any) -> Any:
        """An open conversation with a tuned model (the newest without a name) or a base model. A context manager."""
        from engine.chat import Chat

        return Chat.open(self, name, **settings)

    # -- looking at things

    def check_data(self, path: str | Path, base_model: str = "nano", **options: Any) -> dict[str, Any]:
        """What a data file holds, and what is wrong with it, row by row. Raises DataError where nothing can be used."""
        return data.check(path, tokenizer=load_tokenizer(models.resolve(base_model)), **options)

    def machine(self) -> system.Machine:
        """This machine's figures."""
        return system.probe(paths.home())

    def close(self) -> None:
        """Lets go of the database."""
        self.store.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, recipe: Recipe) -> None:
        """What can be known to be wrong before anything is started."""
        from engine import endpoints

        if recipe.endpoint not in endpoints.names():
            raise RecipeError(
                f"there is no endpoint {recipe.endpoint!r}", f"Use one of: {', '.join(endpoints.names())}.", where="recipe endpoint"
            )
        if not recipe.data.demo and not recipe.data.path:
            raise RecipeError("the recipe names no data", "Give a demo or a file.", where="recipe data")
        if recipe.data.demo:
            knowledge.demo(recipe.data.demo)
        if recipe.base_model == "nano" or Path(recipe.base_model).expanduser().exists():
            models.resolve(recipe.base_model)

