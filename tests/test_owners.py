"""Nobody reaches what is somebody else's: every public method of Engine and of its areas, found by looking at them.

Whatever takes an id is called by a stranger with the ids of real things: NotFound, and nothing has changed. Whatever takes none is
called too, and what it gives back holds nothing of the other's. A new parameter that isn't known here fails: say which it is.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from engine import Engine, Recipe, paths
from engine.areas import Areas
from engine.data.shelf import Row
from engine.drafts import Draft
from engine.errors import EngineError, NotFound
from engine.jobs import logs
from engine.playground import Answer, Settings
from engine.recipe import DataSpec
from engine.store import Job, schema
from engine.store.artefacts import write_json_atomic

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("nothing_starts")]
OWNER, STRANGER, MARK = "local", "stranger", "xyzzy"

# Parameters that name one thing of somebody's, by their name alone or as area.method.parameter.
IDS = {"job_id", "job_ids", "model_id", "dataset_id", "conversation_id", "turn_id", "talk_id", "ref", "preset", "engine.model.name"}
IDS |= {"profile", "rehearsal_id", "engine.chat.name", "correction_id", "lesson_id", "speaker_ref"}
# Recipes, and what becomes part of one: they may name a data set.
CARRIERS = {"recipe", "changes", "spec"}
# What can be said freely: texts, names that are given, names of what everybody has, records (which only their owner is given).
_FREE = """
budget folder jobs judge key label listed_as needs_key prices public store_key tinker_path url
after after_id after_step along answer answers asking base_model by conversation conversations count curve curves
draft endpoint estimates field filters
format goes_on good group job known last lesson limit mapping max_length max_tokens meaning messages method metric model most
name notes number offset on_start options path prompt row say search seconds setting settings shape side source speaker start state stop
store now
pinned samplers step
system_prompt text title told token top transforms turn turns value values who
"""
FREE = set(_FREE.split()) | {"rows", "tries", "url", "step", "pinned", "samplers"}
# They end the Engine, or carry a run in this process, which `launch` stands for.
LEFT_OUT = {"engine.close", "engine.run", "engine.run_job"}
# Without a name it talks to the newest model that `models` lists, by way of a server.
NO_LISTS = {"engine.chat"}
# Of the whole data directory, which an owner sees who has it alone: tests/test_policy.py has the others.
OF_THE_MACHINE = {"upkeep.diagnostics", "upkeep.folder", "upkeep.tally"}
# Presets keep no data; a draft is what its owner reads: what it names is asked for then.
CARRY_NOTHING = {"presets.save.recipe"}


@dataclass
class Things:
    """What the owner has. `ids` by the name of a parameter."""

    engine: Engine
    job: Job
    ids: dict[str, Any] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)


def areas(engine: Engine) -> dict[str, Any]:
    return {"engine": engine} | {name: getattr(engine, name) for name, value in vars(Areas).items() if is_area(value)}


def is_area(value: Any) -> bool:
    return isinstance(value, functools.cached_property)


@functools.cache
def methods() -> dict[str, inspect.Signature]:
    """Of Engine and its areas, by area.method."""
    with Engine() as made:
        found = {}
        for area, facade in areas(made).items():
            for name, function in inspect.getmembers(type(facade), inspect.isfunction):
                if not name.startswith("_"):
                    found[f"{area}.{name}"] = inspect.signature(function)
    return {name: signature for name, signature in found.items() if name not in LEFT_OUT}


def parameters(name: str, signature: inspect.Signature) -> Iterator[tuple[str, inspect.Parameter]]:
    """(area.method.parameter, it)."""
    for parameter in list(signature.parameters.values())[1:]:
        yield f"{name}.{parameter.name}", parameter


def kind(place: str, parameter: inspect.Parameter) -> str:
    if place in IDS or parameter.name in IDS:
        return "id"
    return "carrier" if parameter.name in CARRIERS else "free" if parameter.name in FREE else ""


@functools.cache
def every(wanted: str) -> list[tuple[str, str]]:
    """(area.method, parameter) of a kind."""
    return [(name, p.name) for name, signature in methods().items() for place, p in parameters(name, signature) if kind(place, p) == wanted]


@pytest.fixture
def theirs() -> Iterator[Things]:
    """One of each thing, marked: a finished run with its numbers, log and files, a model, a data set, a chat, a talk, a preset, a draft."""
    with Engine(OWNER) as engine:
        yield make_things(engine)


def make_things(engine: Engine) -> Things:
    store, owner = engine.store, engine.owner
    mark = f"{MARK}-{owner}"
    rows = "".join(json.dumps({"prompt": f"{mark} {n}", "completion": f"answer {n}"}) + "\n" for n in range(20))
    dataset = engine.datasets.add(f"{mark}.jsonl", rows.encode())
    changes = {"name": f"{mark} run", "system_prompt": mark}
    job = store.create_job(Recipe.make({**changes, "data": {"dataset": dataset.id}, "training": {"steps": 5}}), owner)
    claimed = store.claim_job("test", lease_s=3600, job_id=job.id)
    assert claimed is not None
    store.transition(job.id, "training", attempt=claimed.attempt)
    folder = paths.folder("checkpoints", "0a1b.train.0", "sampler_weights", job.id)
    (folder / "adapter_config.json").write_text("{}")
    path = f"tinker://0a1b:train:0/sampler_weights/{job.id}"
    point = {"step": 5, "kind": "sampler_weights", "path": path, "reason": "end", "loop_state": {}, "renderer": "auto"}
    store.record(
        job.id,
        claimed.attempt,
        metrics=[{"step": step, "name": "train_loss", "value": 1.0} for step in range(1, 6)],
        samples=[{"step": 5, "position": 0, "prompt": mark, "expected": mark, "answer": mark, "correct": True}],
        checkpoints=[point, {**point, "kind": "weights"}],
        progress={"step": 5, "total_steps": 5, "tokens": 100, "training_seconds": 1.0},
    )
    store.set_fields(job.id, claimed.attempt, result={"seconds": 1.0, "tokens": 100, "steps": 5, "checkpoint": path})
    known = {"base_model": "nano", "endpoint": "local", "renderer": "auto", "system_prompt": mark}
    model = store.add_model(f"{mark} model", job_id=job.id, sampler_path=path, owner=owner, **known)
    done = store.transition(job.id, "done", attempt=claimed.attempt)
    logs.log("info", mark, job_id=job.id)
    write_json_atomic(job.folder / "data.json", {"name": mark})
    chat = engine.playground.begin(mark, [engine.playground.speaker(model.id)], Settings())
    turn = engine.playground.keep(chat.id, mark, [])
    told = {"turn_id": turn.id, "side": 0, "speaker": model.id, "messages": [{"role": "user", "content": mark}], "answer": mark}
    correction = store.save_correction(chat.id, {**told, "correction": f"{mark}!"}, owner)
    lesson = store.begin_lesson(chat.id, model.id, [], owner)
    answer = Answer(engine.playground.speaker(model.id), text=mark, finish="stop")
    engine.ratings.rate(chat.id, engine.playground.keep(chat.id, mark, [answer]).id, 0, True)
    talk = store.add_talk(owner, mark)
    preset = engine.presets.save(mark, job.recipe)
    profile = engine.profiles.save(f"{mark} profile", system_prompt=mark)
    rehearsal = store.begin_rehearsal(job.recipe, "digest", "files", owner)
    store.tell_rehearsal(rehearsal.id, report={"model": mark, "checks": []}, state="passed")
    engine.drafts.save(Draft(goal=mark, changes={"data": {"dataset": dataset.id}}))
    ids = {"job_id": job.id, "job_ids": [job.id], "model_id": model.id, "dataset_id": dataset.id, "conversation_id": chat.id}
    ids |= {"turn_id": turn.id, "talk_id": talk.id, "ref": f"{job.id}@5", "preset": preset.id, "engine.model.name": model.name}
    ids |= {"profile": profile.name, "rehearsal_id": rehearsal.id}
    ids |= {"engine.chat.name": model.name, "correction_id": correction.id, "lesson_id": lesson.id, "speaker_ref": model.id}
    return Things(engine, done, ids, [mark, job.id, model.id, dataset.id, chat.id, talk.id, preset.id])


def fill(name: str, parameter: inspect.Parameter, mine: Things) -> Any:
    """Something that fits, of the caller's own."""
    place = f"{name}.{parameter.name}"
    if kind(place, parameter) == "id":
        return mine.ids.get(place, mine.ids.get(parameter.name))
    recipe = mine.job.recipe
    values = {"recipe": recipe, "changes": {}, "spec": recipe.data, "job": mine.job, "draft": Draft(), "settings": Settings(), "count": 1}
    values |= {"who": [], "messages": [], "turns": [], "conversations": [], "conversation": None, "answers": [], "after": {}, "curves": {}}
    values |= {"source": b'{"prompt": "a", "completion": "b"}\n', "speaker": mine.engine.playground.speaker("base:nano"), "side": 0}
    values |= {"model": mine.engine.models()[0], "setting": "tour", "value": "done", "field": "seed", "state": "done", "known": None}
    values |= {"row": Row(0, 1, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "task")}
    values |= {"turn": 0, "seconds": 1.0, "lesson": mine.engine.store.lesson(mine.ids["lesson_id"], mine.engine.owner), "endpoint": "local"}
    return values.get(parameter.name, "something")


def call(engine: Engine, name: str, given: dict[str, Any], mine: Things) -> Any:
    area, method = name.split(".")
    bound = getattr(areas(engine)[area], method)
    needed = {
        p.name: fill(name, p, mine)
        for p in inspect.signature(bound).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    }
    found = bound(**{**needed, **given})
    return list(found) if inspect.isgenerator(found) else found


def everything(owner: str) -> tuple[dict[str, list], dict[str, str]]:
    """All that the database and the data directory hold of one owner's, and of nobody's."""
    with Engine(owner) as engine, engine.store.read() as connection:
        tables = {}
        for table in schema.metadata.sorted_tables:
            rows = [row._asdict() for row in connection.execute(select(table))]
            tables[table.name] = [row for row in rows if row.get("owner", owner) == owner]
    files = {}
    for file in sorted(Path(paths.home()).rglob("*")):
        if file.is_file() and not file.name.startswith("thinker.db"):
            files[str(file.relative_to(paths.home()))] = hashlib.sha256(file.read_bytes()).hexdigest()
    return tables, files


def still_there(before: tuple[dict, dict], after: tuple[dict, dict]) -> bool:
    """A stranger may add what is their own, never change or take away the other's."""
    return before[0] == after[0] and before[1].items() <= after[1].items()


def test_every_parameter_is_known() -> None:
    unknown = [place for name, signature in methods().items() for place, p in parameters(name, signature) if not kind(place, p)]
    assert not unknown, "say in this file whether it names a thing of somebody's (IDS) or is free (FREE)"


def test_ids_are_found_where_they_are() -> None:
    """The looking itself: were it to find nothing, nothing would be tested."""
    found = {f"{name}.{parameter}" for name, parameter in every("id")}
    assert {"engine.job.job_id", "engine.models.job_id", "runs.overlay.job_ids", "travel.ask.job_id"} <= found
    assert {
        "datasets.original.dataset_id",
        "playground.take_back.turn_id",
        "registry.archive.model_id",
        "presets.load.preset",
        "playground.speaker.ref",
    } <= found
    assert len(found) > 50


@pytest.mark.parametrize(("name", "parameter"), every("id"))
def test_what_is_somebody_elses_is_not_found(name: str, parameter: str, theirs: Things) -> None:
    with Engine(STRANGER) as stranger:
        mine = make_things(stranger)
        before = everything(OWNER)
        foreign = theirs.ids.get(f"{name}.{parameter}", theirs.ids.get(parameter))
        assert foreign is not None, f"make one for {parameter} in make_things"
        with pytest.raises(NotFound):
            call(stranger, name, {parameter: foreign}, mine)
        # Whoever has it finds it, so that this wasn't about something else.
        assert still_there(before, everything(OWNER))


@pytest.mark.parametrize(("name", "parameter"), every("carrier"))
def test_a_recipe_leads_to_no_foreign_data(name: str, parameter: str, theirs: Things) -> None:
    spec = {"dataset": theirs.ids["dataset_id"]}
    carried: dict[str, Any] = {"recipe": Recipe.make({"data": spec}), "spec": DataSpec(**spec), "changes": {"data": spec}}
    with Engine(STRANGER) as stranger:
        mine = make_things(stranger)
        before = everything(OWNER)
        try:
            given = call(stranger, name, {parameter: carried[parameter]}, mine)
        except NotFound:
            given = None
        except EngineError as error:
            assert not leaks(error.to_dict(), theirs)
            given = None
        else:
            # What only repeats the id has read nothing; with it nothing can be read.
            assert isinstance(given, Recipe) or f"{name}.{parameter}" in CARRY_NOTHING
        if isinstance(given, Recipe) and given.data.dataset == spec["dataset"]:
            for use in (stranger.launch, stranger.planner.plan):
                with pytest.raises(EngineError):
                    use(given)
        assert still_there(before, everything(OWNER))


def nothing_needed() -> list[str]:
    found = []
    for name, signature in methods().items():
        if name not in NO_LISTS | OF_THE_MACHINE and all(
            p.default is not p.empty or p.kind is p.VAR_KEYWORD for _, p in parameters(name, signature)
        ):
            found.append(name)
    return found


@pytest.mark.parametrize("name", nothing_needed())
@pytest.mark.parametrize("owns_something", [False, True])
def test_lists_show_nothing_of_somebody_else(name: str, owns_something: bool, theirs: Things) -> None:
    with Engine(STRANGER) as stranger:
        mine = make_things(stranger) if owns_something else theirs
        before = everything(OWNER)
        signature = methods()[name]
        for given in ({}, {"search": MARK}) if "search" in signature.parameters else ({},):
            assert not leaks(call(stranger, name, given, mine), theirs)
        assert still_there(before, everything(OWNER))


def leaks(found: Any, things: Things) -> list[str]:
    text = repr(found)
    return [secret for secret in things.texts if secret in text]


def test_marks_would_be_seen(theirs: Things) -> None:
    """The owner's own lists hold them."""
    engine = theirs.engine
    lists: list[Callable[[], Any]] = [engine.jobs, engine.models, engine.datasets.find, engine.presets.list]
    lists.append(engine.playground.conversations)
    assert all(leaks(listed(), theirs) for listed in lists)
    assert leaks(engine.runs.cards(), theirs) and leaks(engine.playground.speakers(), theirs) and leaks(engine.drafts.get(), theirs)


def test_talks_are_their_owners(theirs: Things) -> None:
    store, talk = theirs.engine.store, theirs.ids["talk_id"]
    assert store.talks(STRANGER) == [] and store.talk(talk, OWNER).title
    with pytest.raises(NotFound):
        store.talk(talk, STRANGER)
    with pytest.raises(NotFound):
        store.delete_talk(talk, STRANGER)
    assert store.talk(talk, OWNER)
