"""The models that a run will ask besides training its own: judges, reward models and teachers. Each gets one question, wherever it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine import guard, models, starts
from engine.endpoints import kind, remote
from engine.errors import NotFound, RecipeError
from engine.recipe import OF_STAGE, Recipe, RewardPart
from engine.rehearsing.report import Found, Report
from engine.rendering import load_tokenizer
from engine.store import Store
from engine.training.rewards import ASKING
from engine.training.rewards.asking import Asker

_QUESTION = "Answer with the word ok."
_LONGEST = 8


@dataclass(frozen=True)
class Other:
    """A model that the recipe names. `role`: judge, reward model or teacher; `field`: where it is named."""

    role: str
    name: str
    url: str
    field: str
    stage: int
    question: str = ""


def named(recipe: Recipe) -> Iterator[Other]:
    """All that there are, those apart that an earlier stage of the same run trains."""
    yield from _of_parts(recipe.evaluation.judge, "evaluation.judge", 1)
    for number, stage in enumerate(recipe.stages(), 1):
        one = stage.recipe
        if one.method == "rl":
            yield from _of_parts(one.reward.parts, "reward.parts", number)
        if one.method == "distill" and (one.distill.teacher or one.distill.teacher_url) and not one.distill.teacher.startswith(OF_STAGE):
            yield Other("teacher", one.distill.teacher, one.distill.teacher_url, "recipe distill.teacher", number)


def _of_parts(parts: Sequence[RewardPart], field: str, stage: int) -> Iterator[Other]:
    for place, part in enumerate(parts):
        if part.kind in ASKING and not part.model.startswith(OF_STAGE):
            yield Other(part.kind.replace("_", " "), part.model, part.url, f"recipe {field}.{place}.model", stage, part.question)


def ask(report: Report, store: Store, owner: str, recipe: Recipe) -> bool:
    """Each of them, once. -> whether all answered."""
    asker, fine = Asker(store, owner, recipe.endpoint), True
    for place, other in enumerate(dict.fromkeys(named(recipe))):
        name = f"{other.role}{place}"
        fine &= report.look(name, f"The {other.role} answers", lambda other=other: _one(asker, store, owner, recipe, other), other.stage)
    return fine


def base_of(store: Store, owner: str, name: str) -> str | None:
    """What a model named so stands on: a tuned model's base, or itself. None where there is no such model."""
    try:
        return starts.find(store, owner, name).base_model
    except NotFound:
        return name if name == "nano" or models.is_hub_id(name) or models.at_hand(name) is not None else None


def _one(asker: Asker, store: Store, owner: str, recipe: Recipe, other: Other) -> Found:
    if other.url:
        said = asker.ask(other.name, other.url, [[{"role": "user", "content": _QUESTION}]], max_tokens=_LONGEST)[0]
        return Found(f"{other.name} at {other.url} says: {said.strip()[:60] or 'nothing'}")
    base = base_of(store, owner, other.name)
    if base is None:
        raise NotFound(f"there is no model called {other.name!r}", "Give its name as the list of models has it.", where=other.field)
    same = _shares_tokens(recipe, other, base)
    tuned = base != other.name
    if other.role == "reward model":
        talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello! How can I help?"}]
        score = asker.odds(other.name, [talk], other.question)[0]
        return Found(f"{other.name} scores an answer with {score:+.2f} (log-odds of yes)")
    if not tuned and other.name != "nano":
        return _base(owner, recipe, other, same)
    said = asker.ask(other.name, "", [[{"role": "user", "content": _QUESTION}]], max_tokens=_LONGEST)[0]
    return Found(f"{other.name} says: {said.strip()[:60] or 'nothing'}{same}")


def _base(owner: str, recipe: Recipe, other: Other, same: str) -> Found:
    """A bare base model: where the run is, it is asked there; loading a large one for a question would take as long as the run's start."""
    place = kind(recipe.endpoint, owner)
    if not place.weights:
        guard.key(owner, recipe.endpoint)
        if other.name not in (known := [offer.name for offer in remote.offers(recipe.endpoint, owner) if offer.sampleable]):
            raise remote.missing(remote.address(recipe.endpoint, owner), other.name, known)
        return Found(f"{place.title} has {other.name}{same}")
    if models.at_hand(other.name) is None:
        advice = "It is downloaded when the run starts; see that there is a network and room for it."
        return Found(f"the weights of {other.name} aren't on this machine yet{same}", "care", advice, other.field)
    return Found(f"{other.name} is on this machine{same}")


def _shares_tokens(recipe: Recipe, other: Other, base: str) -> str:
    """A teacher that judges the student's tokens has to write with the same ones. Raises RecipeError."""
    spec = recipe.stages()[other.stage - 1].recipe.distill
    if other.role != "teacher" or spec.kind != "on_policy" or base == recipe.base_model:
        return ""
    one, two = (load_tokenizer(models.resolve(name, weights=False)).get_vocab() for name in (recipe.base_model, base))
    if one != two:
        raise RecipeError(
            "the teacher has another tokenizer than the student, so it can't say how likely the student's tokens are",
            "Choose a teacher of the same family, or learn its answers instead (kind: answers).",
            where=other.field,
        )
    return ", with the student's tokens"
