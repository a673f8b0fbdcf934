"""Where others use the machine too: no files or folders by path, no paths shown, and a limit for each. On one's own nothing changes."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Recipe, guard, models, paths, policy
from engine.data.shelf import Row
from engine.errors import DataError, EngineError, NotAllowed
from engine.jobs import logs
from engine.jobs.runner import Runner
from engine.recipe import DataSpec
from tests.test_owners import OF_THE_MACHINE, call, every, kind, make_things, methods, parameters

pytestmark = pytest.mark.usefixtures("nothing_starts")
VISITOR = f"{policy.VISITOR}0a1b"


@pytest.fixture
def visitor() -> Iterator[Engine]:
    with Engine(VISITOR) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"p{n}", "completion": f"c{n}"}) + "\n" for n in range(20)))
    return path


def test_the_owners_name_says_it() -> None:
    assert [policy.of(name).shared for name in ("local", "ann", "visitor", "person-1", "visitor-1")] == [False, False, False, True, True]


NAMED_BY_PATH = ("path", "source", "base_model")


def by_path() -> list[tuple[str, str]]:
    """(area.method, parameter) for all that could name a file or folder, and recipes that could."""
    found = [(name, p.name) for name, signature in methods().items() for _, p in parameters(name, signature) if p.name in NAMED_BY_PATH]
    return [*found, *every("carrier")]


HARMLESS = {"presets.save.recipe", "runs.again.changes", "engine.demo_recipe.changes", "rewards.columns.changes"}


@pytest.mark.parametrize(("name", "parameter"), by_path())
def test_nothing_of_the_machine_can_be_named(name: str, parameter: str, visitor: Engine, file: Path) -> None:
    mine = make_things(visitor)
    carried = [{"path": str(file)}, {"dataset": mine.ids["dataset_id"], "held_out_path": str(file)}]
    tries: list[Any] = {
        "path": [file],
        "source": [file],
        "base_model": [str(models.nano_folder()), "./engine", "~"],
        "recipe": [Recipe.make({"data": spec}) for spec in carried] + [mine.job.recipe.merged({"base_model": str(models.nano_folder())})],
        "changes": [{"data": carried[0]}, {"data": {"demo": "piglatin"}, "base_model": str(models.nano_folder())}],
        "spec": [DataSpec(**spec) for spec in carried],
    }[parameter]
    for value in tries:
        try:
            found = call(visitor, name, {parameter: value}, mine)
        except EngineError:
            # Where the rest of what is given fits, NotAllowed; else it came no further than that.
            continue
        # What only repeats the wish has read nothing; carrying it out isn't allowed.
        assert found is None or f"{name}.{parameter}" in HARMLESS, (name, value)
        if isinstance(found, Recipe):
            with pytest.raises(EngineError):
                visitor.launch(found)


def test_it_is_said_why(visitor: Engine, file: Path) -> None:
    for use in (visitor.launch, visitor.planner.plan, visitor.planner.preview):
        with pytest.raises(NotAllowed, match="files of this machine"):
            use(Recipe.make({"data": {"path": str(file)}}))
    for ask in (visitor.file_recipe, visitor.check_data):
        with pytest.raises(NotAllowed, match="files of this machine"):
            ask(file)
    with pytest.raises(NotAllowed, match="folders of this machine"):
        visitor.planner.suggest({"data": {"demo": "piglatin"}, "base_model": str(models.nano_folder())})
    with pytest.raises(NotAllowed, match="folders of this machine"):
        visitor.datasets.seen(Row(0, 1, [], "task"), base_model=str(models.nano_folder()))


def test_ones_own_machine_has_no_such_limits(file: Path) -> None:
    with Engine() as engine:
        assert engine.file_recipe(file).data.path == str(file)
        assert engine.launch(engine.file_recipe(file)).id and engine.check_data(file)["examples"] == 20
        assert engine.datasets.add(file.name, file).examples == 20 and not engine.policy.hidden_fields


@pytest.mark.parametrize("name", sorted(OF_THE_MACHINE))
def test_the_whole_data_directory_is_nobodys(name: str, visitor: Engine) -> None:
    with pytest.raises(NotAllowed, match="others' too"):
        call(visitor, name, {}, make_things(visitor))


def test_no_default_names_a_folder(visitor: Engine) -> None:
    with pytest.raises(NotAllowed, match="folders of this machine"):
        visitor.defaults.set("base_model", str(models.nano_folder()))


def test_no_model_is_downloaded_for_visitors(visitor: Engine) -> None:
    with pytest.raises(NotAllowed, match="isn't on this machine"):
        visitor.launch(visitor.demo_recipe("piglatin", {"base_model": "Qwen/Qwen3-0.6B"}))


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ({"kind": "python", "code": "def reward(prompt, answer, expected, row): return 1"}, "programs of one's own"),
        ({"kind": "judge", "rubric": "Good.", "model": "m", "url": "http://127.0.0.1:1/v1"}, "servers can't be named"),
    ],
)
def test_who_judges_a_visitors_proof_is_held_to_the_same(visitor: Engine, judge: dict[str, Any], said: str) -> None:
    with pytest.raises(NotAllowed, match=said) as caught:
        visitor.launch(visitor.demo_recipe("piglatin", {"evaluation": {"judge": [judge]}}))
    assert caught.value.where.startswith("recipe evaluation.judge.0")


def test_so_many_runs_at_a_time(visitor: Engine) -> None:
    recipe = visitor.demo_recipe("piglatin")
    most = visitor.policy.most_jobs or 0
    made = [visitor.launch(recipe) for _ in range(most)]
    with pytest.raises(NotAllowed, match="the most at a time"):
        visitor.launch(recipe)
    visitor.stop(made[0].id)
    made.append(visitor.launch(recipe))
    with pytest.raises(NotAllowed, match="the most at a time"):
        visitor.resume(made[0].id)
    with Engine(f"{policy.VISITOR}other") as other:
        assert other.launch(recipe)


def test_so_large_a_file(visitor: Engine) -> None:
    row = json.dumps({"prompt": "p" * 500, "completion": "c" * 500}) + "\n"
    with pytest.raises(DataError, match="over 20 MB"):
        visitor.datasets.add("large.jsonl", (row * (visitor.policy.most_upload // len(row) + 2)).encode())
    assert visitor.datasets.find() == []


def test_so_much_room(visitor: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = make_things(visitor)
    taken = guard.used(visitor.store, VISITOR)
    path = visitor.models()[0].sampler_path
    folder = paths.home() / "checkpoints" / path.removeprefix("tinker://").replace(":", ".")
    (folder / "adapter_model.safetensors").write_bytes(b"x" * 5000)
    assert guard.used(visitor.store, VISITOR) == taken + 5000
    monkeypatch.setattr(policy, "SHARED", policy.Policy(shared=True, most_disk=taken + 5000))
    with pytest.raises(NotAllowed, match="Delete some"):
        visitor.datasets.add("more.jsonl", b'{"prompt": "a", "completion": "b"}\n' * 50)
    assert len(visitor.datasets.find()) == 1 and mine.job


def test_the_machines_folders_arent_told(visitor: Engine) -> None:
    said = f"{paths.home()}/jobs/1/log.jsonl and {models.nano_folder()}"
    assert visitor.policy.told({"where": [said]}) == {"where": ["DATA/jobs/1/log.jsonl and THINKER/engine/models/nano"]}
    assert policy.ALONE.told(said) == said
    job = visitor.launch(visitor.demo_recipe("piglatin"))
    logs.log("error", said, job_id=job.id)
    assert str(paths.home()) not in str(visitor.log(job.id))

    def fails(run: Any) -> str:
        raise ValueError(f"no such file: {said}")

    ended = Runner(visitor.store, fails).run_one(job.id)
    assert ended.state == "failed" and str(paths.home()) not in str(ended.error) and "DATA" in str(ended.error)


def test_a_lessons_own_file_isnt_told(visitor: Engine) -> None:
    mine = make_things(visitor)
    file = paths.folder("lessons", "0a1b") / "corrections.jsonl"
    file.write_text('{"messages": []}\n')
    job = visitor.store.create_job(Recipe.make({"name": "nano v2", "data": {"path": str(file)}}), VISITOR)
    known = {"base_model": "nano", "endpoint": "local", "renderer": "auto", "sampler_path": visitor.models()[0].sampler_path}
    model = visitor.store.add_model("nano v2", job_id=job.id, owner=VISITOR, **known)
    about, shared = visitor.registry.about(model.id), visitor.runs.shared(job.id)
    shown = [repr(about.changes), repr(shared), repr(visitor.runs.differences([job.id, mine.job.id]))]
    with zipfile.ZipFile(io.BytesIO(visitor.registry.archive(model.id))) as packed:
        shown += [packed.read(name).decode() for name in packed.namelist() if name.endswith((".yaml", ".md"))]
    assert not [text for text in shown if str(paths.home()) in text] and "DATA/lessons" in shown[0]
    assert str(paths.home()) not in repr(visitor.assistant.answer(f"compare run {job.id} and run {mine.job.id}")[0].to_dict())


def test_what_could_name_a_path_was_found() -> None:
    assert {("engine.check_data", "path"), ("datasets.seen", "base_model"), ("planner.figures", "recipe")} <= set(by_path())
    assert kind("engine.check_data.path", next(p for place, p in parameters("x", methods()["engine.check_data"]))) == "free"
