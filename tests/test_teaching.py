"""Teaching by correcting, for real: nano answers as corrected afterwards, keeps what it knew, and can be taken back."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine, lessons
from engine.data import demos, read_examples
from engine.errors import NotFound, StateError
from engine.jobs import host
from engine.playground import Settings
from engine.store import Conversation, Lesson
from tests.running import end_processes, until

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow, pytest.mark.usefixtures("quick_heirs")]
NANO = "base:nano"
WANTED = {"What is your name?": "My name is Ada.", "Who made you?": "A team in Bern.", "Reverse: stone": "stone, turned round"}
KEPT = 0.04  # of the general skills may be lost at most


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("teaching") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_WAIT_POLICY", "passive")
        yield made
    end_processes(made)


@pytest.fixture
def engine(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("THINKER_HOME", str(home))
    with Engine() as made:
        yield made


def chat(engine: Engine, ref: str, *prompts: str) -> Conversation:
    playground, settings = engine.playground, Settings(remember=False)
    who = [playground.speaker(ref)]
    conversation = playground.begin(prompts[0], who, settings)
    for prompt in prompts:
        asking = playground.ask(who, [playground.messages([], 0, prompt, settings)], settings)
        exchange = playground.exchange(conversation.id, prompt, asking)
        asking.wait()
        exchange.settle()
    return conversation


def corrected(engine: Engine, ref: str = NANO, wanted: dict[str, str] = WANTED) -> Conversation:
    conversation = chat(engine, ref, *wanted)
    for turn in engine.playground.turns(conversation.id):
        engine.teaching.correct(conversation.id, turn.id, 0, wanted[turn.prompt])
    return conversation


def says(engine: Engine, ref: str, prompts: list[str]) -> list[str]:
    speaker = engine.playground.speaker(ref)
    endpoint = engine.playground._servers.opening(speaker).join()
    return lessons.own_answers(endpoint, speaker, [[{"role": "user", "content": prompt}] for prompt in prompts], 64)


def skills(engine: Engine, ref: str) -> float:
    tested = read_examples(demos.SKILLS_FILE, "messages").examples[:200]
    said = says(engine, ref, [example.prompt[-1]["content"] for example in tested])
    return sum(text.strip() == example.answer for text, example in zip(said, tested, strict=True)) / len(tested)


@pytest.fixture(scope="module")
def taught(home: Path) -> Lesson:
    """A lesson to the bare nano."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THINKER_HOME", str(home))
        with Engine() as made:
            conversation = corrected(made)
            return made.teaching.wait(made.teaching.learn(conversation.id, NANO).id)


def test_it_answers_as_corrected_and_keeps_the_rest(taught: Lesson, engine: Engine) -> None:
    assert (taught.state, taught.error, taught.taught) == ("learned", None, NANO)
    model = engine.model(taught.learned)
    assert model.name == "nano v2" and model.parent == ""
    assert says(engine, taught.learned, list(WANTED)) == list(WANTED.values())
    cases = engine.teaching.cases(taught)
    assert [(case.prompt, case.after, case.right) for case in cases] == [(prompt, text, True) for prompt, text in WANTED.items()]
    assert all(case.answer != case.correction for case in cases)
    before, after = skills(engine, NANO), skills(engine, taught.learned)
    assert before > 0.9 and after >= before - KEPT
    assert engine.playground.conversation(taught.conversation_id).setup["speakers"] == [taught.learned]
    assert engine.teaching.tray(taught.conversation_id) == []


def test_its_model_says_what_it_was_taught_and_what_that_cost(taught: Lesson, engine: Engine) -> None:
    about = until(lambda: (found := engine.registry.about(taught.learned)) and found.model.proof["skills"]["after"] and found, 60)
    assert [(case["prompt"], case["after"], case["was_right"], case["right"]) for case in about.lesson["cases"]] == [
        (prompt, text, False, True) for prompt, text in WANTED.items()
    ]
    assert about.lesson["id"] == taught.id and about.lesson["earlier"] == [] and not about.held_out["after"]
    tested = read_examples(demos.SKILLS_FILE, "messages").examples[: lessons.SKILLS]
    for side, ref in (("before", NANO), ("after", taught.learned)):
        said = says(engine, ref, [example.prompt[-1]["content"] for example in tested])
        share = sum(text.strip() == example.answer for text, example in zip(said, tested, strict=True)) / len(tested)
        assert about.model.proof["skills"][side] == pytest.approx(share, abs=0.011), side
    assert about.model.proof["skills_detail"]["after"]["count"] == lessons.SKILLS


def test_the_next_lesson_goes_on_and_undo_goes_back(taught: Lesson, engine: Engine) -> None:
    teaching, wanted = engine.teaching, {"What is your favourite colour?": "Blue, of course."}
    first = corrected(engine, taught.learned, wanted)
    second = teaching.wait(teaching.learn(first.id, taught.learned).id)
    assert second.state == "learned" and engine.model(second.learned).parent == taught.learned
    assert engine.model(second.learned).name == "nano v3"
    assert says(engine, second.learned, [*wanted, *WANTED]) == [*wanted.values(), *WANTED.values()], "the lesson before is kept"
    proof = until(lambda: (found := engine.model(second.learned).proof) and found["skills"]["after"] and found, 60)
    earlier = proof["lesson"]["earlier"]
    assert {(one["prompt"], one["after"], one["right"]) for one in earlier} == {(*pair, True) for pair in WANTED.items()}
    undone = teaching.undo(second.id)
    assert undone.state == "undone" and engine.playground.conversation(first.id).setup["speakers"] == [taught.learned]
    assert [one.correction for one in teaching.tray(first.id)] == list(wanted.values()), "they wait again"
    assert engine.model(second.learned), "nothing is deleted"
    with pytest.raises(StateError, match="newest"):
        teaching.undo(second.id)


def test_a_kill_in_mid_run_only_delays_it(taught: Lesson, engine: Engine) -> None:
    conversation = corrected(engine, NANO, {"Hello": "Good morning to you."})
    lesson = engine.teaching.learn(conversation.id, NANO)
    until(lambda: (job := engine.teaching.look(lesson.id)[1].job) and job.step >= 2, 60)
    os.kill(until(host.runner_info)["pid"], signal.SIGKILL)
    ended = engine.teaching.wait(lesson.id)
    assert ended.state == "learned" and engine.job(ended.job_id).attempt > 1


def test_corrections_become_a_data_set_and_pairs(taught: Lesson, engine: Engine) -> None:
    teaching = engine.teaching
    made = teaching.save_as_dataset(taught.conversation_id)
    assert made.name == "Corrections of What is your name?" and made.examples == len(WANTED) and made.state == "ready"
    assert [row.messages[-1]["content"] for row in engine.datasets.rows(made.id)] == list(WANTED.values())
    lines = [json.loads(line) for line in engine.datasets.original(made.id)[1].decode().splitlines()]
    pairs = teaching.pairs(taught.conversation_id)
    assert [pair["chosen"] for pair in pairs] == list(WANTED.values())
    assert [pair["rejected"] for pair in pairs] == [line["rejected"] for line in lines]
    assert pairs[0]["prompt"] == [{"role": "user", "content": "What is your name?"}]


def test_what_can_not_be_taught_is_said(taught: Lesson, engine: Engine) -> None:
    teaching = engine.teaching
    conversation = chat(engine, NANO, "Reverse: tea")
    turn = engine.playground.turns(conversation.id)[0]
    for text, said in (("  ", "needs a text"), (turn.answers[0]["text"], "what it said"), ("x" * 20_001, "20,000")):
        with pytest.raises(StateError, match=said):
            teaching.correct(conversation.id, turn.id, 0, text)
    for place in ((turn.id + 1000, 0), (turn.id, 1)):
        with pytest.raises(NotFound):
            teaching.correct(conversation.id, *place, "x")
    with pytest.raises(StateError, match="nothing to learn"):
        teaching.learn(conversation.id, NANO)
    with pytest.raises(StateError, match="nothing corrected"):
        teaching.save_as_dataset(conversation.id)
    one = teaching.correct(conversation.id, turn.id, 0, "no tea")
    again = teaching.correct(conversation.id, turn.id, 0, "tea?")
    assert again.id == one.id and [found.correction for found in teaching.tray(conversation.id)] == ["tea?"]
    teaching.remove(one.id)
    assert teaching.tray(conversation.id) == []


def test_a_lesson_whose_run_is_gone_or_failed_is_told(taught: Lesson, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    teaching = engine.teaching
    conversation = corrected(engine, NANO, {"Reverse: pie": "not this time"})
    monkeypatch.setattr(lessons, "own_answers", lambda *_: (_ for _ in ()).throw(StateError("no answer", "Try again.")))
    failed = teaching.wait(teaching.learn(conversation.id, NANO).id)
    assert failed.state == "failed" and failed.error and failed.error["message"] == "no answer"
    assert len(teaching.tray(conversation.id)) == 1, "nothing is lost"


def test_it_is_ones_own(taught: Lesson, engine: Engine, home: Path) -> None:
    conversation = corrected(engine, NANO, {"Reverse: cup": "mine"})
    told = engine.teaching.tray(conversation.id)[0]
    with Engine("somebody else") as other:
        teaching = other.teaching
        for call in (
            lambda: teaching.correct(conversation.id, told.turn_id, 0, "x"),
            lambda: teaching.tray(conversation.id),
            lambda: teaching.corrections(conversation.id),
            lambda: teaching.remove(told.id),
            lambda: teaching.pairs(conversation.id),
            lambda: teaching.save_as_dataset(conversation.id),
            lambda: teaching.learn(conversation.id, NANO),
            lambda: teaching.lessons(conversation.id),
            lambda: teaching.look(taught.id),
            lambda: teaching.undo(taught.id),
        ):
            with pytest.raises(NotFound):
                call()
    engine.playground.delete(conversation.id)
    with pytest.raises(NotFound):
        engine.teaching.remove(told.id)


def test_versions_are_counted() -> None:
    assert lessons.next_version("Tutor", set()) == "Tutor v2"
    assert lessons.next_version("Tutor v2", {"Tutor v3"}) == "Tutor v4"
