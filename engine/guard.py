"""Holds what an owner asks for against their policy: recipes, data, models, room. Everything that isn't allowed raises NotAllowed.

Called wherever the engine is about to look at something, never by a page alone. Knows no screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from engine import endpoints, keys, models, paths, policy
from engine.amounts import size
from engine.endpoints import backups, remote
from engine.endpoints.fitting import fits
from engine.errors import EndpointError, KeyNeeded, NotAllowed, RecipeError
from engine.recipe import DataSpec, Recipe, RewardPart, written
from engine.starts import folder_of
from engine.store import Store

# Kinds of reward that run what people bring: their code, or tests in their data.
OWN_CODE = ("code_tests", "python")
_UPLOAD = "Add the file to your library (Datasets) and choose it there."


def data(owner: str, spec: DataSpec) -> None:
    """A file of the machine is somebody's own."""
    for name in ("path", "held_out_path"):
        if getattr(spec, name):
            file(owner, f"data.{name}")
    if any(mixed.path for mixed in spec.mix):
        file(owner, "data.mix")


def file(owner: str, what: str) -> None:
    """Reads a file by its path: not where others' files lie beside it."""
    if not policy.of(owner).local_paths:
        raise NotAllowed("files of this machine can't be named here, for others use it too", _UPLOAD, where=what)


def whole(owner: str) -> None:
    """Looks at all of the data directory."""
    if policy.of(owner).shared:
        raise NotAllowed("the data directory holds what is others' too", "Ask whoever runs this server.")


def model(owner: str, base_model: str, endpoint: str = "local") -> None:
    """A base model by name; no folders, and nothing that this machine would have to download whole."""
    if policy.of(owner).local_paths or base_model == "nano":
        return
    if not models.is_hub_id(base_model):
        raise NotAllowed("folders of this machine can't be named here, for others use it too", "Use nano.", where="recipe base_model")
    if endpoint == "local" and models.at_hand(base_model) is None:
        advice = "Use nano, or another place to train."
        raise NotAllowed(f"{base_model} isn't on this machine, and visitors can't have it downloaded", advice, where="recipe base_model")


def recipe(owner: str, asked: Recipe) -> None:
    """Its model, and of every stage the data, what its answers are scored by, and who teaches."""
    model(owner, asked.base_model, asked.endpoint)
    for stage in written(asked):
        data(owner, stage.data)
        reward(owner, stage.reward.parts)
        reward(owner, stage.evaluation.judge, "recipe evaluation.judge")
        learning(owner, stage)


def learning(owner: str, asked: Recipe) -> None:
    """No teachers on servers of people's own or in folders, and no losses of their own, where others share the machine."""
    if asked.method == "own_loss" and policy.of(owner).shared:
        advice = "Choose another method, or train on your own machine."
        raise NotAllowed("programs of one's own can't be run here, for others use the machine too", advice, where="recipe own_loss.code")
    if asked.method == "distill" and asked.distill.teacher_url:
        elsewhere(owner, "recipe distill.teacher_url")
    elif asked.method == "distill" and "/" in asked.distill.teacher and "://" not in asked.distill.teacher:
        model(owner, asked.distill.teacher)


def reward(owner: str, parts: Sequence[RewardPart], field: str = "recipe reward.parts") -> None:
    """No programs of people's own, and no servers of theirs, where others share the machine."""
    for number, part in enumerate(parts):
        where = f"{field}.{number}"
        if part.kind in OWN_CODE and policy.of(owner).shared:
            advice = "Choose another kind of reward, or train on your own machine."
            raise NotAllowed("programs of one's own can't be run here, for others use the machine too", advice, where=f"{where}.kind")
        if part.url:
            elsewhere(owner, f"{where}.url")
        elif "/" in part.model and "://" not in part.model:
            model(owner, part.model)


def elsewhere(owner: str, what: str) -> None:
    """Has this machine ask a server that somebody named: whoever shares it could reach what only the machine can."""
    if policy.of(owner).shared:
        raise NotAllowed("servers can't be named here, for others use this machine too", "Take a model of yours.", where=what)


def key(owner: str, endpoint: str) -> None:
    """What the endpoint needs is there. Raises KeyNeeded, and RecipeError for an unknown endpoint."""
    need = endpoints.kind(endpoint, owner).key
    if need is not None and keys.find(owner, need) is None:
        raise KeyNeeded(f"the key for {need.title} isn't there", f"Give it in the settings; you get one at {need.get_one}.")


def able(owner: str, asked: Recipe) -> None:
    """The endpoint can do what is asked. Raises RecipeError and EndpointError."""
    place = endpoints.kind(asked.endpoint, owner)
    if asked.full and not place.full:
        raise RecipeError(f"{place.title} trains adapters (LoRA) only", "Switch off full.", where="recipe full")
    if place.weights and find_spec("torch") is None:
        advice = "Choose another place to train, or install Thinker whole: python thinker.py."
        raise EndpointError("this machine can't train: PyTorch isn't installed", advice, where="recipe endpoint")


def offered(owner: str, asked: Recipe) -> None:
    """Whoever trains it has the model. Raises EngineError."""
    fits(asked, remote.offer(asked.endpoint, asked.base_model, owner).context)


def previews(owner: str, asked: Recipe) -> None:
    """Where previews are answered can be had, has the model, and can read what the run saves. Raises EngineError."""
    name, where = asked.evaluation.preview_endpoint, "recipe evaluation.preview_endpoint"
    if not name or not asked.evaluation.previews or name == asked.endpoint:
        return
    place, own = endpoints.kind(name, owner), endpoints.kind(asked.endpoint, owner)
    key(owner, name)
    if not place.weights:
        remote.offer(name, asked.base_model, owner)
    if endpoints.storage(asked.endpoint, owner) != endpoints.storage(name, owner):
        advice = "Leave preview_endpoint empty, so that previews are answered where the run is."
        raise RecipeError(
            f"what is saved at {own.title} can't be read at {place.title}: they keep their checkpoints apart", advice, where=where
        )


def turn(store: Store, owner: str) -> None:
    """One more run at a time: a look ahead, before something is prepared. The store holds to it when the run is made."""
    store.require_turn(owner, policy.of(owner).most_jobs)


def room(store: Store, owner: str, more: int = 0) -> None:
    """`more` bytes beside what the owner has here already."""
    most = policy.of(owner).most_disk
    if most is not None and (taken := used(store, owner)) + more > most:
        said = f"your data sets and models take {size(taken)} of the {size(most)} that each has here"
        raise NotAllowed(said, "Delete some that you don't need any more.")


def used(store: Store, owner: str) -> int:
    """Bytes of the owner's data sets and of all that their runs saved."""
    folders = [paths.home() / "datasets" / found.id for found in store.datasets(owner)]
    copies = 0
    for job in store.jobs(owner, limit=10_000):
        copies += backups.size(job.id)
        folders += filter(None, (folder_of(point.path) for point in store.checkpoints(job.id, owner=owner)))
    return sum(_bytes(folder) for folder in dict.fromkeys(folders)) + copies


def _bytes(folder: Path) -> int:
    return sum(found.stat().st_size for found in folder.glob("*") if found.is_file())
