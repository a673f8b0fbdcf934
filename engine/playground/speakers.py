"""Who can be talked to: base models, tuned models, and any checkpoint that a run saved. Knows the store; nothing of servers.

A speaker has one name that stands in addresses and is kept with a conversation: `base:nano`, a tuned model's id, or
`JOB@STEP` for the checkpoint of a run after so many updates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from engine import knowledge
from engine.errors import NotFound, RecipeError
from engine.store import Checkpoint, Job, Model, Store

BASE = "base:"
_RUNS, _PROMPTS = 20, 4
_ADVICE = "Choose one of the list."


@dataclass(frozen=True)
class Speaker:
    """One that answers. `path` is where its weights are (empty for a bare base model), the rest how it was trained to be spoken to."""

    ref: str
    name: str
    kind: Literal["base", "model", "checkpoint"]
    base_model: str
    endpoint: str = "local"
    path: str = ""
    renderer: str = "auto"
    system_prompt: str = ""
    stop: tuple[str, ...] = ()
    job_id: str | None = None

    @property
    def single(self) -> bool:
        """Whether it has only ever seen one question and one answer, so that a longer conversation would throw it off."""
        return self.base_model == "nano"


def bases(store: Store, owner: str) -> list[str]:
    """The base models that are known here: nano, and those that this person's runs and models stand on."""
    return list(_bases(store, owner))


def _bases(store: Store, owner: str) -> dict[str, str]:
    """{base model: who answers for it}: this machine where it has done so, or could at once; else where it was trained."""
    used = [*store.models(owner), *store.jobs(owner, limit=200)]
    places: dict[str, str] = {"nano": "local"} if find_spec("torch") or not any(one.base_model == "nano" for one in used) else {}
    for one in used:
        if one.endpoint == "local" or one.base_model not in places:
            places[one.base_model] = one.endpoint
    return dict(sorted(places.items(), key=lambda item: item[0] != "nano"))


def find(store: Store, owner: str, ref: str) -> Speaker:
    """By its name in addresses; a model's or run's own name is understood too. Raises NotFound."""
    if ref.startswith(BASE):
        name = ref.removeprefix(BASE)
        known = _bases(store, owner)
        if name not in known:
            raise NotFound(f"no base model called {name[:120]!r} is known here", "Choose one of the list, or train with it first.")
        return _base(name, known[name])
    job_id, at, step = ref.rpartition("@")
    if at and step.isdecimal():
        return _checkpoint_of(store, owner, job_id, int(step))
    try:
        return _tuned(store.model(ref, owner))
    except NotFound:
        pass
    try:
        found = store.models(owner, job_id=store.find_job(ref, owner).id)
    except NotFound:
        found = []
    if not found:
        raise NotFound(f"there is no model called {ref[:120]!r}", _ADVICE)
    return _tuned(found[0])


def listed(store: Store, owner: str) -> list[Speaker]:
    """Tuned models, newest first; base models; then the other checkpoints of the latest runs."""
    models = [_tuned(model) for model in store.models(owner)]
    known = {speaker.path for speaker in models}
    rest = [speaker for job in store.jobs(owner, limit=_RUNS) for speaker in _checkpoints(store, owner, job) if speaker.path not in known]
    return [*models, *(_base(*known) for known in _bases(store, owner).items()), *rest]


def prompts(store: Store, owner: str, speaker: Speaker) -> list[str]:
    """What is worth asking: the demo's own prompts, or those that the run was watched on."""
    demos = knowledge.demos().values()
    if speaker.job_id is None:
        fitting = [demo for demo in demos if speaker.kind == "base" and demo["recipe"].get("base_model") == speaker.base_model]
        return list(fitting[0]["try"])[:_PROMPTS] if fitting else []
    try:
        job = store.find_job(speaker.job_id, owner)
        if job.recipe.data.demo:
            return list(knowledge.demo(job.recipe.data.demo)["try"])[:_PROMPTS]
        asked = dict.fromkeys(sample.prompt for sample in store.samples(job.id, owner=owner))
    except (NotFound, RecipeError):
        return []
    return [prompt for prompt in asked if len(prompt) <= 200][:_PROMPTS]


def _base(name: str, endpoint: str) -> Speaker:
    return Speaker(BASE + name, name, "base", name, endpoint)


def _tuned(model: Model) -> Speaker:
    return Speaker(
        ref=model.id,
        name=model.name,
        kind="model",
        base_model=model.base_model,
        endpoint=model.endpoint,
        path=model.sampler_path,
        renderer=model.renderer,
        system_prompt=model.system_prompt,
        stop=tuple(model.stop),
        job_id=model.job_id,
    )


def _checkpoint_of(store: Store, owner: str, job_id: str, step: int) -> Speaker:
    job = store.find_job(job_id, owner)
    for speaker in _checkpoints(store, owner, job):
        if speaker.ref == f"{job.id}@{step}":
            return speaker
    raise NotFound(f"{job.name} has no checkpoint for chats at step {step}", _ADVICE, where=f"job {job.id}")


def _checkpoints(store: Store, owner: str, job: Job) -> Iterator[Speaker]:
    """The newest one of each step, latest step first."""
    latest: dict[int, Checkpoint] = {found.step: found for found in store.checkpoints(job.id, "sampler_weights", owner)}
    try:
        recipe = job.recipe
    except RecipeError:
        # Written by another version: without its system prompt and stops it can't be spoken to as it was trained.
        return
    for step, found in sorted(latest.items(), reverse=True):
        yield Speaker(
            ref=f"{job.id}@{step}",
            name=f"{job.name}, step {step:,}",
            kind="checkpoint",
            base_model=recipe.base_model,
            endpoint=recipe.endpoint,
            path=found.path,
            renderer=found.renderer,
            system_prompt=recipe.system_prompt,
            stop=recipe.stop,
            job_id=job.id,
        )
