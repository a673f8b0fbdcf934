"""What comes next, rule by rule; and the same from a real store, for its owner alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from engine import Engine, knowledge
from engine.drafts import Draft
from engine.jobs import states
from engine.next_steps import FORTNIGHT, next_steps, shortcoming
from engine.store import Job, LibrarySet

NOW = 2_000_000_000.0
DEMOS = {"piglatin": {"title": "Teach it Pig Latin"}, "caesar": {"title": "Teach it a secret code"}}


def run(state: str, name: str = "Tutor", age: float = 600.0, **values: Any) -> Job:
    """A run that began `age` seconds ago."""
    known: dict[str, Any] = dict.fromkeys(Job.__dataclass_fields__)
    recipe = json.dumps({"name": name, "data": {"demo": "piglatin"}})
    known |= {"id": f"{name}-{age:g}", "owner": "local", "name": name, "recipe_json": recipe, "state": state, "step": 40, "attempt": 1}
    return Job(**{**known, "total_steps": 100, "created_at": NOW - age, **values})


def proof(before: float, after: float, skills: tuple[float | None, float | None] = (0.9, 0.88), perplexity: float = 1.0) -> dict[str, Any]:
    sides = {"before": {"exact_match": before, "perplexity": 1.0}, "after": {"exact_match": after, "perplexity": perplexity}}
    return {"held_out": sides, "skills": dict(zip(("before", "after"), skills, strict=True))}


def data(name: str, state: str = "ready", **stats: int) -> LibrarySet:
    stats = {"examples": 1204, **stats}
    return LibrarySet(name, "local", name, f"{name}.csv", 1, "", "csv", {}, state, stats, None, NOW)


def kinds(*jobs: Job, **more: Any) -> list[tuple[str, str]]:
    return [(step.kind, step.about) for step in next_steps(jobs, DEMOS, NOW, **more)]


def test_at_the_very_beginning_the_demo_then_own_data() -> None:
    assert kinds() == [("demo", "piglatin"), ("own", "")]
    assert next_steps([], {}, NOW)[0].kind == "own"


def test_the_order_of_things() -> None:
    moving, failed, paused = run(states.TRAINING, "a"), run(states.FAILED, "b"), run(states.PAUSED, "c")
    weak, done = run(states.DONE, "d", result=proof(0.5, 0.4)), run(states.DONE, "e", result=proof(0, 0.9))
    found = kinds(done, weak, paused, failed, moving, draft=Draft(goal="style", reached=2), untouched=[data("faq")])
    wanted = ["watch", "look", "resume", "draft", "improve", "chat", "train_on", "own", "demo"]
    assert [kind for kind, _ in found] == wanted
    assert found[0][1] == moving.id and found[-3][1] == "faq" and found[-1][1] == "caesar"


def test_what_moves_comes_before_what_waits_and_a_long_wait_is_explained() -> None:
    waiting, learning = run(states.QUEUED, "b"), run(states.TRAINING, "a")
    first, second, *_ = next_steps([waiting, learning], DEMOS, NOW)
    assert first.about == learning.id and first.reason.startswith("It is learning: see")
    assert second.title == "See what “b” waits for" and second.reason == "It begins after “a”."
    (alone, *_) = next_steps([waiting], DEMOS, NOW)
    assert "more than a minute" in alone.reason
    (fresh, *_) = next_steps([run(states.QUEUED, "b", age=5, total_steps=0)], DEMOS, NOW)
    assert fresh.title == "Watch “b”" and fresh.reason == "It is waiting its turn."


def test_a_failure_says_why_and_what_to_do_unless_a_later_run_stands_in_for_it() -> None:
    error = {"message": "the disk is full", "next_step": "Make room."}
    failed = run(states.FAILED, age=900, error=error)
    assert next_steps([failed], DEMOS, NOW)[0].reason == "The disk is full. Make room."
    advised = next_steps([failed], DEMOS, NOW, advice={failed.id: "Loss jumped. Lower the rate."})
    assert advised[0].reason == "The disk is full. Loss jumped. Lower the rate."
    for later in (states.DONE, states.TRAINING):
        assert ("look", failed.id) not in kinds(run(later, age=60), failed)
    assert ("look", failed.id) in kinds(run(states.DONE, "another", age=60), failed)
    assert ("look", failed.id) in kinds(failed, run(states.DONE, age=2000))
    again = run(states.FAILED, age=60)
    assert kinds(again, failed)[:2] == [("look", again.id), ("look", failed.id)]


def test_a_paused_run_goes_on() -> None:
    (step, *_) = next_steps([run(states.PAUSED)], DEMOS, NOW)
    assert step.kind == "resume" and "step 40 of 100" in step.reason


def test_what_was_begun_is_finished() -> None:
    (step, *_) = next_steps([], DEMOS, NOW, draft=Draft(goal="style", step=1, reached=3))
    assert step.kind == "draft" and step.reason == "“Follow a style or a form” is put together as far as step 4 of 5."
    assert "draft" not in dict(kinds(draft=Draft()))


@pytest.mark.parametrize(
    ("result", "word"),
    [
        (None, ""),
        ({"held_out": {"before": None, "after": None}}, ""),
        (proof(0.0, 0.9), ""),
        (proof(0.5, 0.5), "isn't better"),
        (proof(0.0, 0.0, perplexity=0.5), ""),
        (proof(0.0, 0.9, (0.9, 0.5)), "forgot"),
        (proof(0.0, 0.9, (None, None)), ""),
    ],
)
def test_what_convinces(result: dict[str, Any] | None, word: str) -> None:
    assert word in shortcoming(result) and bool(word) == bool(shortcoming(result))


def test_a_finished_run_is_talked_to_once() -> None:
    done = run(states.DONE, result=proof(0, 0.9))
    assert kinds(done)[0] == ("chat", done.id)
    assert kinds(done, talked_to={done.id})[0][0] == "own"
    older = run(states.DONE, age=5000, result=proof(0, 0.8))
    assert [kind for kind, _ in kinds(done, older)].count("chat") == 1


def test_what_does_not_convince_is_made_better_with_the_doctors_word() -> None:
    weak = run(states.DONE, result=proof(0.5, 0.4))
    assert kinds(weak)[0] == ("improve", weak.id) and ("chat", weak.id) not in kinds(weak)
    assert next_steps([weak], DEMOS, NOW, advice={weak.id: "Lower the rate."})[0].reason == "Lower the rate."


def test_data_that_nothing_has_learned_from() -> None:
    sets = [data("faq"), data("chats", "check", problems=1), data("odd", "unmapped")]
    use, check, unclear = next_steps([run(states.STOPPED)], DEMOS, NOW, untouched=sets)[:3]
    assert use.kind == "train_on" and "1,204 examples" in use.reason
    assert check.kind == unclear.kind == "check" and "1 row of it can't" in check.reason and unclear.title == "Say what is what in “odd”"


def test_what_is_older_than_a_fortnight_rests() -> None:
    old = FORTNIGHT + 60
    rested = [run(state, state, age=old, result=proof(0, 0.9)) for state in (states.FAILED, states.PAUSED, states.DONE)]
    assert kinds(*rested) == [("own", ""), ("demo", "caesar")]
    assert kinds(run(states.TRAINING, age=old))[0][0] == "watch"
    late = run(states.DONE, age=old, finished_at=NOW - 60, result=proof(0, 0.9))
    assert kinds(late)[0] == ("chat", late.id)


def test_a_run_of_another_version_does_no_harm() -> None:
    assert kinds(run(states.DONE, recipe_json='{"what": 1}'))[-1] == ("demo", "piglatin")


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


def test_from_the_store(engine: Engine) -> None:
    assert [step.kind for step in engine.next_steps.find()] == ["demo", "own"]
    store = engine.store
    job = store.create_job(engine.demo_recipe("piglatin", {"name": "Tutor"}))
    claimed = store.claim_job("test", lease_s=3600, job_id=job.id)
    assert claimed is not None
    rows = [{"step": step, "name": "train_loss", "value": float("nan") if step > 30 else 1.0} for step in range(1, 40)]
    store.record(job.id, claimed.attempt, metrics=rows, progress={"step": 39, "total_steps": 100})
    store.transition(job.id, "failed", attempt=claimed.attempt, error={"kind": "EngineError", "message": "stopped", "next_step": ""})
    engine.drafts.update(goal="style", step=1)
    kept = engine.datasets.add("faq.jsonl", b"\n".join(b'{"prompt": "say %d", "completion": "%d"}' % (n, n) for n in range(40)))
    found = engine.next_steps.find()
    assert [step.kind for step in found] == ["look", "draft", "train_on", "own", "demo"]
    assert "stopped being a number at step 31" in found[0].reason and found[2].about == kept.id
    store.create_job(engine.demo_recipe("piglatin").merged({"data": {"demo": "", "dataset": kept.id}}))
    assert "train_on" not in [step.kind for step in engine.next_steps.find()]
    with Engine("other") as other:
        assert [step.kind for step in other.next_steps.find()] == ["demo", "own"]


def test_a_chat_counts_by_model_and_by_checkpoint(engine: Engine) -> None:
    store, ids = engine.store, []
    for name in ("a", "b"):
        job = store.create_job(engine.demo_recipe("piglatin", {"name": name}))
        claimed = store.claim_job("test", lease_s=3600, job_id=job.id)
        assert claimed is not None
        for state in ("training", "evaluating"):
            store.transition(job.id, state, attempt=claimed.attempt)
        store.set_fields(job.id, claimed.attempt, result=proof(0, 0.9))
        store.transition(job.id, "done", attempt=claimed.attempt)
        ids.append(job.id)
    model = store.add_model("a", job_id=ids[0], base_model="nano", endpoint="local", sampler_path="p", renderer="auto")
    assert [step.about for step in engine.next_steps.find() if step.kind == "chat"] == ids[::-1]
    store.begin_conversation("hi", {"speakers": [model.id]})
    store.begin_conversation("hi", {"speakers": [f"{ids[1]}@10"]})
    assert "chat" not in [step.kind for step in engine.next_steps.find()]
    assert set(knowledge.demos())
