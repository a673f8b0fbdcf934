"""What a run goes on from: a tuned model, a run's checkpoint or saved weights by their path; and a recipe that fits it.

Knows the store and what a checkpoint's folder says of itself; loads no weights. What is somebody else's raises NotFound.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine import models, paths, policy
from engine.errors import NotFound, RecipeError
from engine.jobs import states
from engine.recipe import Lora, Recipe
from engine.store import Job, Store
from engine.store.artefacts import read_json

_PATH = re.compile(r"tinker://([A-Za-z0-9][A-Za-z0-9:._-]{0,199})/(weights|sampler_weights)/([A-Za-z0-9][A-Za-z0-9._-]{0,127})")
_LISTED = "The command `models` lists the models that there are; a run's page lists its checkpoints."
_NANO = Recipe().base_model


@dataclass(frozen=True)
class Start:
    """One that can be gone on from. `ref` is its name in recipes; `lora` is its adapter's shape, None where that isn't known."""

    ref: str
    name: str
    path: str
    base_model: str
    endpoint: str = "local"
    sampler_path: str = ""
    renderer: str = "auto"
    system_prompt: str = ""
    stop: tuple[str, ...] = ()
    full: bool = False
    lora: dict[str, Any] | None = field(default=None)
    question: str = ""
    """What a reward model is asked about answers."""


def find(store: Store, owner: str, ref: str) -> Start:
    """A tuned model by id or name, `JOB@STEP`, or a tinker:// path. Raises NotFound, and RecipeError for what can't be trained further."""
    if ref.startswith("tinker://"):
        return _by_path(store, owner, ref)
    job_id, at, step = ref.rpartition("@")
    if at and step.isdecimal():
        return _checkpoint(store, owner, job_id, int(step))
    model = store.model(ref, owner)
    if not model.weights_path:
        raise RecipeError(
            f"{model.name} was kept for use only, not for training it further", "Train its run again.", where="recipe start.checkpoint"
        )
    told = (model.endpoint, model.sampler_path, model.renderer, model.system_prompt, tuple(model.stop))
    recipe = _recipe(store, owner, model.job_id)
    shape = _shape(model.weights_path, recipe)
    question = recipe.reward_model.question if recipe and recipe.method == "reward_model" else ""
    return Start(model.id, model.name, model.weights_path, model.base_model, *told, *shape, question)


def named(store: Store, owner: str, changes: dict[str, Any]) -> Start | None:
    """What a recipe's plain values go on from, if anything. Raises NotFound and RecipeError."""
    start = changes.get("start") or {}
    ref = start if isinstance(start, str) else start.get("checkpoint")
    return find(store, owner, ref) if ref else None


def complete(store: Store, owner: str, changes: dict[str, Any]) -> dict[str, Any]:
    """What a person chose, and what follows of it from what is gone on from: base model, adapter, and how it is spoken to."""
    found = named(store, owner, changes)
    if found is None:
        return changes
    follows: dict[str, Any] = {"base_model": found.base_model, "endpoint": found.endpoint, "full": found.full, "stop": list(found.stop)}
    follows |= {"renderer": found.renderer, "system_prompt": found.system_prompt}
    if found.lora:
        follows["lora"] = {**found.lora, **changes.get("lora", {})}
    return {**follows, **changes, **({"lora": follows["lora"]} if found.lora else {})}


def settle(store: Store, owner: str, recipe: Recipe) -> Recipe:
    """The recipe with everything that its start decides filled in. Raises NotFound, and RecipeError where the two clash."""
    if not recipe.start.checkpoint:
        return recipe
    found = find(store, owner, recipe.start.checkpoint)
    changes: dict[str, Any] = {"start": {"checkpoint": found.ref}, "base_model": found.base_model}
    if recipe.base_model not in (_NANO, found.base_model) and not _same_folder(recipe.base_model, found.base_model):
        raise _clash("base_model", found, f"stands on {found.base_model}", recipe.base_model)
    if recipe.endpoint != found.endpoint:
        raise _clash("endpoint", found, f"lies with the endpoint {found.endpoint}", recipe.endpoint)
    if recipe.full != found.full:
        kinds = {True: "all weights (full)", False: "an adapter (LoRA)"}
        advice = f"Leave out full, or set it to {str(found.full).lower()}."
        if found.full:
            advice += " To train an adapter on it, give its downloaded folder as base_model instead."
        raise RecipeError(f"{found.name} is {kinds[found.full]}, and the recipe trains {kinds[recipe.full]}", advice, where="recipe full")
    if not found.full and found.lora:
        usual = Lora().model_dump()
        for name, value in recipe.lora.model_dump().items():
            if value not in (usual[name], found.lora[name]):
                raise _clash(f"lora.{name}", found, f"has {name} {found.lora[name]}", value)
        changes["lora"] = found.lora
    if recipe.renderer == "auto":
        changes["renderer"] = found.renderer
    return recipe.merged(changes)


def going_on_from(store: Store, owner: str, path: str) -> Job | None:
    """A run of the owner's that isn't over and begins with what is saved at that path, however its recipe calls it."""
    for job in store.jobs(owner, states=tuple(set(states.STATES) - states.FINAL), limit=1000):
        ref = (json.loads(job.recipe_json).get("start") or {}).get("checkpoint", "")
        with suppress(NotFound, RecipeError):
            if ref and find(store, owner, ref).path == path:
                return job
    return None


def folder_of(path: str) -> Path | None:
    """Where the files of a checkpoint lie; None if they aren't there. As the server lays them out, colons written as dots."""
    place = place_of(path)
    return place if place is not None and place.is_dir() else None


def place_of(path: str) -> Path | None:
    """Where the files of a checkpoint of this machine's server would lie, whether they do or not; None for what is no such path."""
    known = _PATH.fullmatch(path)
    return paths.home() / "checkpoints" / known[1].replace(":", ".") / known[2] / known[3] if known else None


def _by_path(store: Store, owner: str, path: str) -> Start:
    where = "recipe start.checkpoint"
    known = _PATH.fullmatch(path)
    if known is None:
        raise RecipeError(f"{path[:200]!r} is no path of saved weights", "It has the form tinker://RUN/weights/NAME.", where=where)
    if known[2] != "weights":
        raise RecipeError(
            "these weights were saved for use only (sampler_weights)", "Give the path with /weights/ of the same checkpoint.", where=where
        )
    holders = store.weights_of(path)
    mine = [job_id for holder, job_id in holders if holder == owner]
    about = _about(path)
    # What nobody's run or model holds anybody may name, as long as the machine is theirs alone.
    if (holders and not mine) or (not holders and (not about or policy.of(owner).shared)):
        raise NotFound(f"there is no checkpoint {path}", _LISTED, where=where)
    recipe = _recipe(store, owner, next(filter(None, mine), None))
    told: dict[str, Any] = {"renderer": (about.get("user_metadata") or {}).get("renderer", "auto")}
    if recipe:
        told = {"endpoint": recipe.endpoint, "system_prompt": recipe.system_prompt, "stop": recipe.stop, **told}
    base_model = recipe.base_model if recipe else about.get("base_model", _NANO)
    full, lora = _shape(path, recipe)
    return Start(path, f"the checkpoint {known[3]}", path, base_model, full=full, lora=lora, **told)


def _checkpoint(store: Store, owner: str, job_id: str, step: int) -> Start:
    job = store.find_job(job_id, owner)
    saved = {c.kind: c for c in store.checkpoints(job.id, owner=owner) if c.step == step}
    if "weights" not in saved:
        steps = sorted({c.step for c in store.checkpoints(job.id, "weights", owner)})
        advice = f"There are: {', '.join(map(str, steps))}." if steps else "It saves some on its way, and one at the end."
        raise NotFound(f"{job.name} has no checkpoint at step {step} to go on from", advice, where=f"job {job.id}")
    recipe, used = job.recipe, saved.get("sampler_weights")
    told = (recipe.endpoint, used.path if used else "", saved["weights"].renderer, recipe.system_prompt, recipe.stop)
    shape = _shape(saved["weights"].path, recipe)
    return Start(f"{job.id}@{step}", _called(job, step), saved["weights"].path, recipe.base_model, *told, *shape)


def _called(job: Job, step: int) -> str:
    return f"{job.name}, step {step:,}"


def _shape(path: str, recipe: Recipe | None) -> tuple[bool, dict[str, Any] | None]:
    """(full, adapter): what the folder says where it lies here, else what its recipe said."""
    about = _about(path)
    if about:
        full = bool(about.get("full"))
        return full, None if full else {name: about[name] for name in Lora.model_fields}
    if recipe is not None:
        return recipe.full, None if recipe.full else recipe.lora.model_dump()
    return False, None


def _about(path: str) -> dict[str, Any]:
    """What the server noted of the checkpoint; empty where it doesn't lie here."""
    folder = folder_of(path)
    return (read_json(folder / "checkpoint.json") if folder else None) or {}


def _recipe(store: Store, owner: str, job_id: str | None) -> Recipe | None:
    try:
        return store.find_job(job_id, owner).recipe if job_id else None
    except (NotFound, RecipeError):
        return None


def _same_folder(one: str, other: str) -> bool:
    if models.is_hub_id(one) or models.is_hub_id(other):
        return False
    return models.resolve(one, weights=False).resolve() == models.resolve(other, weights=False).resolve()


def _clash(name: str, found: Start, has: str, given: Any) -> RecipeError:
    advice = f"Leave {name} out: it comes from there. Or start from the base model."
    return RecipeError(f"{found.name} {has}, and the recipe says {given}", advice, where=f"recipe {name}")
