"""One attempt at a run: its stages, how far it has got, and what has to be kept with each checkpoint so that the next one goes on.

Steps are counted over all stages; a stage's own step is what comes after where it began. Knows no method from another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from engine.data.examples import DataSet
from engine.endpoints.client import Client
from engine.knowledge import pricing
from engine.recipe import Recipe
from engine.rendering import Rendered, Renderer
from engine.training.desk import Desk
from engine.training.hardness import rank
from engine.training.meter import Meter
from engine.training.methods import Method
from engine.training.watch import Watch

if TYPE_CHECKING:
    from engine.jobs.run import JobRun


@dataclass
class StageWork:
    """A stage made ready: its data is read, its examples are rendered. `begins` is the stage whose weights it goes on from
    (-1: the start), `answers` are the held-out rows' right answers as tokens; `limit` is the most tokens of a row."""

    recipe: Recipe
    begins: int
    data: DataSet
    method: Method
    total: int
    answers: list[Rendered]
    limit: int


@dataclass
class Attempt:
    """`looked` is the step at which the held-out numbers were last seen to; `left` says what each finished stage left behind:
    {stage: {weights_path, sampler_path, step}}; `spare` says where second copies lie at an endpoint elsewhere: {step: path}.
    `last_bytes` is what the last checkpoint took."""

    run: JobRun
    client: Client
    renderer: Renderer
    stages: list[StageWork]
    stage: int = 0
    began: int = 0
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    saved_step: int = -1
    saved_stage: int = -1
    looked: int = -1
    saved_at: float = field(default_factory=time.monotonic)
    sampler_path: str = ""
    weights_path: str = ""
    watch: Watch = field(default_factory=Watch)
    best: dict[str, Any] = field(default_factory=dict)
    left: dict[int, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    spare: dict[str, str] = field(default_factory=dict)
    last_bytes: int = 0
    preview_client: Client | None = None
    desk: Desk = field(init=False)
    meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        recipe = self.run.recipe
        price = pricing.find(recipe.endpoint, recipe.base_model)
        self.meter = Meter(self.client.counted, price, recipe.budget, self.run.folder)

    @property
    def work(self) -> StageWork:
        """The present stage."""
        return self.stages[self.stage]

    @property
    def recipe(self) -> Recipe:
        """The present stage's recipe."""
        return self.work.recipe

    @property
    def own_step(self) -> int:
        """Updates done in this stage."""
        return self.step - self.began

    @property
    def total(self) -> int:
        """Updates in the whole run, as far as is known: a stage that ended early counts as it was."""
        return self.began + sum(work.total for work in self.stages[self.stage :])

    @property
    def end(self) -> int:
        """The step at which this stage is over."""
        return self.began + self.work.total

    def state(self) -> dict[str, Any]:
        """What goes along with a checkpoint, JSON-ready."""
        return {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "sampler_path": self.sampler_path,
            "stage": self.stage,
            "began": self.began,
            "watch": self.watch.to_dict(),
            "best": self.best,
            "left": {str(number): paths for number, paths in self.left.items()},
            "counted": dict(self.client.counted),
            "meter": self.meter.state(),
            "asked": self.asked,
            "spare": self.spare,
            "last_bytes": self.last_bytes,
            "watched": {"name": self.work.method.watched, "better": self.work.method.better},
            "looked": self.looked,
            "method": self.work.method.state(),
        }

    def restore(self, step: int, path: str, state: dict[str, Any]) -> None:
        """Takes over where a checkpoint left off."""
        self.step = self.saved_step = step
        self.tokens, self.seconds = int(state["tokens"]), float(state["seconds"])
        self.sampler_path, self.weights_path = state.get("sampler_path", ""), path
        self.stage = self.saved_stage = int(state.get("stage", 0))
        self.began = int(state.get("began", 0))
        self.watch = Watch(**state.get("watch", {}))
        self.best = dict(state.get("best", {}))
        self.left = {int(number): paths for number, paths in state.get("left", {}).items()}
        self.client.counted.update(state.get("counted", {}))
        self.meter.restore(state.get("meter", {}))
        self.looked = int(state.get("looked", -1))
        self.asked = list(state.get("asked", []))
        self.spare = dict(state.get("spare", {}))
        self.last_bytes = int(state.get("last_bytes", 0))
        self.work.method.restore(state.get("method", {}))

    def open(self, training: Any = None) -> None:
        """Sits down to the present stage, with the training client given or one at the stage's start."""
        opening = self._opening()
        self.desk = Desk(
            self.run,
            self.client,
            self.recipe,
            self.renderer,
            number=self.stage,
            began=self.began,
            total=self.work.total,
            open_start=opening,
            open_sampler=self._start_sampler,
            left=self.left,
        )
        self.desk.training = training if training is not None else opening()
        if self.recipe.data.curriculum == "loss":
            rank(self.desk, self.work.method.order, self.work.limit, self.own_step)
        self.work.method.attach(self.desk, self.own_step)

    def next_stage(self) -> None:
        """The present stage is over: notes what it leaves and goes on to the next."""
        self.work.method.close()
        self.stage, self.began = self.stage + 1, self.step
        self.watch, self.best = Watch(), {}

    def _opening(self) -> Callable[[], Any]:
        """How a training client comes to be that stands where this stage begins."""
        if self.work.begins >= 0:
            return partial(self.client.load, self.left[self.work.begins]["weights_path"])
        recipe = self.run.recipe
        if recipe.start.checkpoint:
            start = self.run.start()
            return partial(self.client.resume if recipe.start.optimizer else self.client.load, start.path)
        if recipe.full:
            return partial(self.client.create_full, recipe.base_model)
        lora = recipe.lora
        return partial(self.client.create, recipe.base_model, lora.rank, recipe.seed, lora.train_mlp, lora.train_attn, lora.train_unembed)

    def _start_sampler(self) -> Any:
        """A sampler of the weights that this stage begins with, by a name that lasts."""
        if self.work.begins >= 0:
            return self.client.sampler(path=self.left[self.work.begins]["sampler_path"])
        if not self.run.recipe.start.checkpoint:
            return self.client.sampler(base_model=self.run.recipe.base_model)
        if path := self.run.start().sampler_path:
            return self.client.sampler(path=path)
        saved = self.desk.at_start().save_weights_for_sampler(f"{self.run.job_id}-start-{self.run.attempt}")
        return self.client.sampler(path=self.client.wait(saved, "saving what it started from").path)
