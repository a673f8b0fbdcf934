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
from typing import TYPE_CHECKING, Any

from engine import abilities, data, guard, knowledge, models, paths, policy, settling, share, starts, system
from engine.abilities import Abilities
from engine.areas import Areas
from engine.endpoints import backups
from engine.errors import EngineError, NotFound, RecipeError, StateError
from engine.jobs import host, logs, states
from engine.recipe import Recipe, written
from engine.rendering import get_renderer, load_tokenizer
from engine.runs import Pace
from engine.store import Checkpoint, Event, Job, Model, Sample, Store
from engine.store.artefacts import remove_job_folder
from engine.training.schedule import order

if TYPE_CHECKING:
    from engine.chat import Chat


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
    win_rate: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


class Engine(Areas):
    """One person's view of one data directory."""

    def __init__(self, owner: str = "local", database_url: str | None = None, *, store: Store | None = None):
        """`store`: one that several Engines share, and that none of them closes."""
        super().__init__(store or Store(database_url), owner)
        self._shares_store = store is not None
        self._rows: dict[tuple, int] = {}

    @property
    def policy(self) -> policy.Policy:
        """What the owner may do here."""
        return policy.of(self.owner)

    # -- making recipes

    def demo_recipe(self, name: str, changes: dict[str, Any] | None = None) -> Recipe:
        """The recipe of a demo, with some fields changed. Raises NotFound."""
        chosen = starts.complete(self.store, self.owner, changes or {})
        recipe = Recipe.make(knowledge.demo_recipe(name))
        method = chosen.get("method", recipe.method)
        return recipe.merged(share.suited(method) if method != recipe.method else {}).merged(chosen)

    def file_recipe(self, path: str | Path, changes: dict[str, Any] | None = None) -> Recipe:
        """A recipe for a data file: what the person chose, and for the rest what suits the model. Raises EngineError."""
        chosen = starts.complete(self.store, self.owner, changes or {})
        base_model = chosen.get("base_model", "nano")
        guard.file(self.owner, "path")
        guard.model(self.owner, base_model)
        folder = models.resolve(base_model)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        values: dict[str, Any] = {"data": {"path": str(Path(path).expanduser().resolve())}, "name": Path(path).stem}
        advised = knowledge.recommend(config, base_model, lora=not chosen.get("full"), method=chosen.get("method", "sft"))
        for field, advice in advised.items():
            part, _, leaf = field.rpartition(".")
            place = values.setdefault(part, {}) if part else values
            place.setdefault(leaf, advice["value"])
        recipe = Recipe.make(values).merged(chosen)
        if {"steps", "epochs"} & set(chosen.get("training", {})):
            return recipe
        steps = knowledge.steps_for(self._training_rows(recipe), recipe.training.batch_size)["value"]
        return recipe.merged({"training": {"steps": steps}})

    def dataset_recipe(self, dataset_id: str, changes: dict[str, Any] | None = None) -> Recipe:
        """The same for a data set of the library, or one that ships. Raises EngineError."""
        chosen = changes or {}
        return self.planner.suggest({**chosen, "data": {**chosen.get("data", {}), **self.datasets.source(dataset_id)}}).recipe

    # -- what is known

    def demos(self) -> dict[str, dict[str, Any]]:
        """Every demo by name: title, task, learns, expect, try, examples, recipe."""
        return knowledge.demos()

    def explain_method(self, name: str) -> dict[str, Any]:
        """What a way of training is: title, term, meaning, use_when, not_when, needs, flow, watch, source. Raises NotFound."""
        return knowledge.method(name)

    def explain_metric(self, name: str) -> dict[str, Any]:
        """What a number means: title, meaning, unit, better, healthy, red_flags. Raises NotFound."""
        return knowledge.metric(name)

    def light(self, state: str) -> states.Light:
        """How a state is called and coloured."""
        return states.LIGHTS[state]

    def place(self, endpoint: str) -> str:
        """What an endpoint is called; its own name for one that this version doesn't know."""
        from engine import endpoints

        return endpoints.kind(endpoint, self.owner).title if endpoint in endpoints.names(self.owner) else endpoint

    # -- jobs

    def launch(self, recipe: Recipe, token: str = "") -> Job:
        """Queues the run and returns at once; a runner in the background takes it up. Raises EngineError.

        `token`: of the proposal or draft that it comes from; launched again, even at the same moment, the first run comes back.
        """
        settled = self._settled(recipe)
        guard.room(self.store, self.owner)
        job = self.store.create_job(settled, self.owner, token=token, most=self.policy.most_jobs)
        host.ensure_runner()
        return job

    def run(self, recipe: Recipe, on_start: Callable[[Job], None] | None = None) -> Result:
        """Trains in the foreground, with the same code, to the end. Raises the error that ended it, or StateError if it was paused."""
        return self.result(self.run_job(recipe, on_start).id)

    def run_job(self, recipe: Recipe, on_start: Callable[[Job], None] | None = None) -> Job:
        """As `run`, but a job that was paused or stopped meanwhile is given back as it stands."""
        from engine.jobs.runner import Runner

        job = Runner(self.store, host.resolve()).run_new(self._settled(recipe), self.owner, on_start)
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
        told = {name: found[name] for name in ("seconds", "tokens", "steps", "checkpoint")}
        told |= {name: found.get(name) or empty for name in ("held_out", "skills")}
        told |= {name: found[name] for name in ("better", "worse", "win_rate") if name in found}
        return Result(job_id=job.id, name=job.name, state=job.state, notes=tuple(found.get("notes", ())), **told)

    def pause(self, job_id: str) -> Job:
        """Within a step; what was learned is saved. Raises StateError."""
        return self.store.set_control(self.job(job_id).id, "pause", self.owner)

    def stop(self, job_id: str) -> Job:
        """Within a step; what was learned is saved and kept as a model. Raises StateError."""
        job = self.store.set_control(self.job(job_id).id, "stop", self.owner)
        if job.state == states.STOPPED:
            self._keep(job)
        return job

    def skip(self, job_id: str) -> Job:
        """Leaves out what the run does just now (an evaluation, samples, the proof) and goes on. Raises StateError where nothing can be."""
        return self.store.set_control(self.job(job_id).id, states.SKIP, self.owner)

    def resume(self, job_id: str, budget: dict[str, Any] | None = None) -> Job:
        """From the last checkpoint; `budget` gives it other limits (max_dollars, max_tokens, max_minutes; None for none).

        Raises StateError, also for a run that is at its limit and gets no higher one, and RecipeError for a limit that can't be.
        """
        job = self.job(job_id)
        guard.key(self.owner, job.endpoint)
        recipe = self.spending.raised(job, budget or {})
        job = self.store.resume(job.id, self.owner, recipe=recipe, most=self.policy.most_jobs)
        host.ensure_runner()
        return job

    def delete(self, job_id: str) -> None:
        """The job with its curves, log and folder; its models and checkpoints stay. Raises StateError while it runs."""
        job = self.job(job_id)
        kept = self.store.models(self.owner, job_id=job.id)
        self.store.delete_job(job.id, self.owner)
        remove_job_folder(job.id)
        if not kept:
            backups.forget_job(job.id)

    def revive(self) -> None:
        """Sees to it that work which a killed process left lying is taken up again. Call it when a session begins."""
        if self.store.has_work():
            host.ensure_runner()

    def requests(self, job: Job) -> frozenset[str]:
        """What can be asked of the job as it stands: pause, stop, skip, resume, delete."""
        return states.requests(job.state, job.skips)

    def moving(self, job: Job) -> bool:
        """Whether the job goes on without anybody's doing: it waits its turn, runs, or was cut off."""
        return states.moving(job.state)

    def pace(self, job: Job) -> Pace:
        """Its speed in training, resumed stretches counted."""
        return self.runs.pace(job)

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
        return self.policy.told(logs.read_log(self.job(job_id).id, last))

    # -- models and chats

    def models(self, job_id: str | None = None) -> list[Model]:
        """Tuned models, newest first; those of one job if asked. Raises NotFound for a job that isn't there and left none."""
        found = self.store.models(self.owner, job_id=job_id)
        if job_id is not None and not found:
            self.store.job(job_id, self.owner)
        return found

    def model(self, name: str) -> Model:
        """By name or id; the name of a job finds its model too. Raises NotFound."""
        advice = "The command `models` lists those that there are."
        try:
            return self.store.model(name, self.owner)
        except NotFound:
            pass
        try:
            job = self.job(name)
        except NotFound:
            raise NotFound(f"there is no model or run called {name!r}", advice) from None
        found = self.store.models(self.owner, job_id=job.id)
        if not found:
            raise NotFound(f"{job.name} has no model: it is {states.LIGHTS[job.state].label}", advice, where=f"job {job.id}")
        return found[0]

    def chat(self, name: str = "", *, base_model: str = "", say: Callable[[str], None] = lambda text: None) -> Chat:
        """An open conversation with a tuned model (the newest without a name) or a bare base model. A context manager.

        `say` is told the stages of getting ready. Raises EngineError.
        """
        from engine.chat import Chat

        if base_model:
            guard.model(self.owner, base_model)
            return Chat.with_base(base_model, say)
        if name:
            return Chat.with_model(self.model(name), say)
        known = self.models()
        if not known:
            raise NotFound("there is no tuned model yet", "Train one first: python thinker.py train --demo piglatin")
        return Chat.with_model(known[0], say)

    # -- looking at things

    def check_data(self, path: str | Path, base_model: str = "nano", **options: Any) -> dict[str, Any]:
        """What a data file holds, and what is wrong with it, row by row. Raises DataError where nothing can be used."""
        guard.file(self.owner, "path")
        return data.check(path, tokenizer=load_tokenizer(models.resolve(base_model)), **options)

    def machine(self) -> system.Machine:
        """This machine's figures."""
        return system.probe(paths.home())

    def abilities(self) -> Abilities:
        """What it can be expected to train."""
        return abilities.look(self.owner)

    def close(self) -> None:
        """Lets go of the database, unless others use it too."""
        if not self._shares_store:
            self.store.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _settled(self, recipe: Recipe) -> Recipe:
        """The recipe with paths that mean the same from any folder. Raises what can be known to be wrong before anything is started."""
        from engine import endpoints

        guard.recipe(self.owner, recipe)
        guard.key(self.owner, recipe.endpoint)
        if not recipe.data.demo and not recipe.data.path and not recipe.data.dataset:
            raise RecipeError("the recipe names no data", "Give a demo, a file or a data set.", where="recipe data")
        if recipe.data.dataset:
            found = self.datasets.usable(recipe.data.dataset)
            recipe = recipe.merged({"name": recipe.name or found.name})
        for stage in written(recipe):
            if stage.data.demo:
                knowledge.demo(stage.data.demo)
            for part in (stage.data, *stage.data.mix):
                if part.dataset:
                    self.datasets.usable(part.dataset)
        recipe = settling.settle(self.store, self.owner, recipe)
        guard.able(self.owner, recipe)
        guard.previews(self.owner, recipe)
        if not endpoints.kind(recipe.endpoint, self.owner).weights:
            guard.offered(self.owner, recipe)
        elif not models.is_hub_id(recipe.base_model):
            folder = models.resolve(recipe.base_model)
            # Any tokenizer has the renderer that "auto" means, and loading it takes half a second.
            if recipe.renderer != "auto" or not (folder / "tokenizer.json").is_file():
                get_renderer(recipe.renderer, load_tokenizer(folder))
        if not recipe.data.demo or recipe.data.mix or recipe.data.curriculum != "none" or recipe.method != "sft":
            self._training_rows(recipe)
        for stage in written(recipe)[1:]:
            self._training_rows(stage)
        return recipe

    def _training_rows(self, recipe: Recipe) -> int:
        """How many rows an epoch learns from. Files are read once while they stay as they are. Raises DataError."""
        spec = recipe.data
        files = [Path(path).expanduser() for path in (spec.path, spec.held_out_path, *(mixed.path for mixed in spec.mix)) if path]
        files += [data.chats_file(name) for name in (spec.dataset, *(mixed.dataset for mixed in spec.mix)) if name]
        stats = [file.stat() for file in files if file.is_file()]
        key = (spec.model_dump_json(), recipe.method, recipe.seed, *((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats))
        if key not in self._rows:
            loaded = data.load_data(recipe, skills=False)
            # A curriculum's column that isn't there is told before anything is started.
            self._rows[key] = order(recipe, loaded.train, [0] * len(loaded.train)).rows
        return self._rows[key]

    def _keep(self, job: Job) -> None:
        """Registers what a run that ended early had learned by its last checkpoint."""
        last = {checkpoint.kind: checkpoint for checkpoint in self.checkpoints(job.id) if checkpoint.step > 0}
        if "sampler_weights" not in last:
            return
        recipe = job.recipe
        self.store.add_model(
            job.name,
            job_id=job.id,
            base_model=recipe.base_model,
            endpoint=recipe.endpoint,
            sampler_path=last["sampler_weights"].path,
            weights_path=last["weights"].path if "weights" in last else "",
            renderer=last["sampler_weights"].renderer,
            system_prompt=recipe.system_prompt,
            stop=recipe.stop,
            parent=recipe.start.checkpoint,
            owner=self.owner,
        )
