"""Tuned models with all that is known of them: where they come from, what they can do, what they weigh, and taking them away.

Knows the store and the folders that checkpoints lie in; loads no weights.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine import endpoints, lessons, models, policy, share, starts
from engine.amounts import size
from engine.endpoints import backups
from engine.errors import ModelError, NotFound, RecipeError, StateError
from engine.jobs import states
from engine.playground import speakers
from engine.recipe import Recipe, fields
from engine.starts import folder_of
from engine.store import Job, Model, Store
from engine.store.artefacts import read_json

_LEFT_OUT = ("checkpoint.json",)  # the server's own notes
_MOST_ZIPPED = 2 * 1024**3
_NAME, _NOTES = 120, 10_000


@dataclass(frozen=True)
class Change:
    """A recipe field that differs from its default."""

    field: str
    help: str
    value: Any
    default: Any


@dataclass(frozen=True)
class Parent:
    """What a model's run went on from. `model_id` is empty where that is no model of the list, or one that is gone."""

    name: str
    model_id: str = ""
    job_id: str = ""


@dataclass(frozen=True)
class About:
    """A model and where it comes from. `job` and `recipe` are None once its run is deleted; `files` says whether the weights are here;
    `away` is the endpoint elsewhere that keeps them.

    `lesson` is {id, cases, earlier} of the lesson (teaching by correcting) that made it, each case {prompt, correction, before, after,
    was_right, right}; empty for a model of any other run.
    """

    model: Model
    job: Job | None
    recipe: Recipe | None
    data: dict[str, Any]
    changes: list[Change] = field(default_factory=list)
    bytes: int = 0
    files: bool = False
    away: str = ""
    whole: bool = False
    parent: Parent | None = None
    children: list[Model] = field(default_factory=list)
    lesson: dict[str, Any] = field(default_factory=dict)

    @property
    def held_out(self) -> dict[str, Any]:
        """{before, after} on held-out examples; empty where nothing was proven."""
        return (self.model.proof or {}).get("held_out") or {}


@dataclass(frozen=True)
class Base:
    """A base model that is known here. `bytes` is None where its files aren't on this machine."""

    name: str
    kind: str
    context: int | None
    bytes: int | None
    tuned: int


class Registry:
    """One person's models."""

    def __init__(self, store: Store, owner: str):
        self._store, self._owner = store, owner

    def find(self, search: str = "") -> list[Model]:
        """Newest first; those whose name, base model or notes hold every word of `search`, or whose id begins with it."""

        def fits(model: Model, word: str) -> bool:
            # Of an id, at least as much as nobody types by chance.
            return word in f"{model.name} {model.base_model} {model.notes}".lower() or (len(word) >= 4 and model.id.startswith(word))

        wanted = search.lower().split()
        return [model for model in self._store.models(self._owner) if all(fits(model, word) for word in wanted)]

    def about(self, model_id: str) -> About:
        """By name or id. Raises NotFound."""
        model = self._store.model(model_id, self._owner)
        job, recipe = self._origin(model)
        folder = folder_of(model.sampler_path)
        return About(
            model=model,
            job=job,
            recipe=recipe,
            data=(read_json(job.folder / "data.json") if job else None) or {},
            changes=[replace(change, value=policy.of(self._owner).told(change.value)) for change in _changes(recipe)] if recipe else [],
            bytes=sum(_bytes(found) for found in map(folder_of, (model.sampler_path, model.weights_path)) if found),
            files=folder is not None,
            away=self._away(model),
            whole=folder is not None and not (folder / "adapter_config.json").is_file(),
            parent=self._parent(model),
            lesson=(model.proof or {}).get("lesson") or self._lesson(model),
            children=[found for found in self._store.models(self._owner) if found.parent == model.id],
        )

    def bases(self) -> list[Base]:
        """nano, and what this person's runs and models stand on."""
        tuned = [model.base_model for model in self._store.models(self._owner)]
        return [_base(name, tuned.count(name)) for name in speakers.bases(self._store, self._owner)]

    def rename(self, model_id: str, name: str) -> Model:
        """Raises NotFound, and StateError for a name that is taken, empty or too long."""
        name = " ".join(name.split())
        if not name or len(name) > _NAME:
            raise StateError(f"a model's name has 1 to {_NAME} characters", "Write another one.")
        return self._store.rename_model(self._model(model_id).id, name, self._owner)

    def note(self, model_id: str, notes: str) -> Model:
        """Keeps what the person writes of it. Raises NotFound and StateError."""
        if len(notes) > _NOTES:
            raise StateError(f"notes have up to {_NOTES:,} characters, these have {len(notes):,}", "Shorten them.")
        return self._store.set_notes(self._model(model_id).id, notes.strip(), self._owner)

    def delete(self, model_id: str) -> None:
        """The model and its files, for good; its run stays. Raises NotFound, and StateError while its run may still need the files."""
        model = self._model(model_id)
        job = self._origin(model)[0]
        if job is not None and job.state in states.ACTIVE:
            raise StateError(f"the run {job.name} is {states.LIGHTS[job.state].label} and may need the files", "Stop it first.")
        if model.weights_path and (waiting := starts.going_on_from(self._store, self._owner, model.weights_path)):
            said = f"the run {waiting.name} is {states.LIGHTS[waiting.state].label} and goes on from it"
            raise StateError(said, "Wait for its end, or stop it first.")
        self._store.delete_model(model.id, self._owner)
        for path in filter(None, (model.sampler_path, model.weights_path)):
            if self._store.weights_used(path):
                continue
            if job is not None:
                gone = [found.id for found in self._store.checkpoints(job.id, owner=self._owner) if found.path == path]
                for checkpoint_id in gone:
                    self._store.delete_checkpoint(job.id, checkpoint_id, self._owner)
            backups.forget(path)
            if folder := folder_of(path):
                shutil.rmtree(folder, ignore_errors=True)

    def archive(self, model_id: str) -> bytes:
        """A zip of the folder that PEFT (or transformers, for a whole model) loads, with its recipe. Raises NotFound and StateError."""
        about = self.about(model_id)
        folder = folder_of(about.model.sampler_path)
        if folder is None:
            raise NotFound("the files of this model are gone", "Train it again: its recipe is kept with its run.", where=about.model.name)
        if (weight := _bytes(folder)) > _MOST_ZIPPED:
            raise StateError(f"the model weighs {size(weight)}, too much for a zip", "Copy its folder instead.", where=str(folder))
        name, text = self.file_name(about.model), io.BytesIO()
        # Weights don't get smaller by packing.
        with zipfile.ZipFile(text, "w", zipfile.ZIP_STORED) as packed:
            for file in sorted(folder.iterdir()):
                if file.is_file() and file.name not in _LEFT_OUT:
                    packed.write(file, f"{name}/{file.name}")
            packed.writestr(f"{name}/README.md", _read_me(about))
            if about.recipe:
                packed.writestr(f"{name}/recipe.yaml", policy.of(self._owner).told(about.recipe.to_yaml()))
        return text.getvalue()

    def file_name(self, model: Model) -> str:
        """The model's name as a file may be called anywhere."""
        return re.sub(r"[^A-Za-z0-9._-]+", "-", model.name).strip("-.") or model.id

    def _lesson(self, model: Model) -> dict[str, Any]:
        """Of a model to which nothing of it was noted, as long as its chat is there."""
        for found in self._store.lessons(self._owner):
            if found.learned == model.id:
                cases = [lessons.judged(case["messages"], case["answer"], case["after"] or "", case["correction"]) for case in found.cases]
                return {"id": found.id, "cases": cases, "earlier": []}
        return {}

    def _parent(self, model: Model) -> Parent | None:
        """By name, as long as it is there."""
        ref = model.parent
        if not ref:
            return None
        job_id, at, step = ref.rpartition("@")
        try:
            if at:
                job = self._store.find_job(job_id, self._owner)
                return Parent(f"{job.name}, step {int(step):,}", job_id=job.id)
            if not ref.startswith("tinker://"):
                found = self._store.model(ref, self._owner)
                return Parent(found.name, model_id=found.id)
        except NotFound:
            return Parent("a model that is gone")
        return Parent(ref)

    def _away(self, model: Model) -> str:
        try:
            return "" if endpoints.kind(model.endpoint, self._owner).weights else model.endpoint
        except RecipeError:
            # A server that was forgotten, or is another person's.
            return ""

    def _model(self, model_id: str) -> Model:
        return self._store.model(model_id, self._owner)

    def _origin(self, model: Model) -> tuple[Job | None, Recipe | None]:
        if model.job_id is None:
            return None, None
        try:
            job = self._store.find_job(model.job_id, self._owner)
        except NotFound:
            return None, None
        try:
            return job, job.recipe
        except RecipeError:
            return job, None


def _changes(recipe: Recipe) -> list[Change]:
    """Later stages' settings each by itself."""
    found, of_field = [], {known["name"]: known for known in fields()}
    for known in of_field.values():
        value: Any = recipe
        for part in known["name"].split("."):
            value = getattr(value, part)
        if value != known["default"] and known["name"] not in ("name", "then"):
            found.append(Change(known["name"], known["help"], value, known["default"]))
    for name, value in share.of_stages(recipe).items():
        known = of_field[name.rpartition(" ")[2]]
        found.append(Change(name, known["help"], value, known["default"]))
    return found


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*") if file.is_file())


def _base(name: str, tuned: int) -> Base:
    # Looking at a hub id would download it.
    if models.is_hub_id(name):
        return Base(name, "from the Hugging Face hub", None, None, tuned)
    try:
        folder = models.resolve(name)
        context = models.context_length(folder)
    except (ModelError, OSError, json.JSONDecodeError):
        return Base(name, "a folder that is gone or can't be read", None, None, tuned)
    return Base(name, "ships with Thinker" if name == "nano" else "a local folder", context, _bytes(folder), tuned)


def _read_me(about: About) -> str:
    model = about.model
    loading = (
        'from transformers import AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained("THIS_FOLDER")'
        if about.whole
        else "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
        f'base = AutoModelForCausalLM.from_pretrained("{model.base_model}")\nmodel = PeftModel.from_pretrained(base, "THIS_FOLDER")'
    )
    lines = [f"# {model.name}", "", f"Trained with Thinker on the base model `{model.base_model}`."]
    if model.base_model == "nano" and not about.whole:
        lines += ["", "nano ships with Thinker: give its folder, engine/models/nano, where the base model is named below."]
    lines += ["", "```python", loading, "```", "", f"Conversations were written in the form `{model.renderer}` (renderer)."]
    if model.system_prompt:
        lines += ["", "It was trained with this system prompt:", "", *(f"> {line}" for line in model.system_prompt.splitlines())]
    if model.stop:
        lines += ["", f"Answers end at: {', '.join(map(repr, model.stop))}."]
    return "\n".join([*lines, ""])
