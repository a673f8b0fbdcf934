"""Conversations with the assistant on the real Engine and store: what it proposes, what it says of runs, whose things it sees."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from engine import Engine, Recipe
from engine.assistant import Reply
from engine.errors import NotFound
from engine.jobs import host
from tests.app.conftest import Runs
from tests.assistant.test_meaning import PHRASES
from tests.test_planning import rows


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(host, "ensure_runner", lambda *_: None)
    with Engine() as made:
        yield made


@pytest.fixture
def stranger() -> Iterator[Engine]:
    with Engine(owner="somebody else") as made:
        yield made


class Conversation:
    """Says things, and keeps the state between."""

    def __init__(self, engine: Engine):
        self._engine, self.state = engine, None

    def __call__(self, text: str) -> Reply:
        reply, self.state = self._engine.assistant.answer(text, self.state)
        return reply


@pytest.fixture
def say(engine: Engine) -> Conversation:
    return Conversation(engine)


def kinds(reply: Reply) -> list[str]:
    return [action.kind for action in reply.actions]


def test_every_phrase_is_answered_with_and_without_runs(engine: Engine) -> None:
    phrases = [said.strip() for many in PHRASES.values() for said in many.replace("\n", "|").split("|")]
    for filled in (False, True):
        if filled:
            runs = Runs(engine)
            runs.done("Tutor"), runs.failed("Broken"), runs.paused("Resting"), runs.running("Poet")
            engine.datasets.add("support chats.jsonl", rows(80))
        through = Conversation(engine)
        for said in phrases:
            for reply in (through(said), engine.assistant.answer(said)[0]):
                assert reply.text and Reply.from_dict(json.loads(json.dumps(reply.to_dict()))) == reply, said
                if reply.proposal:
                    Recipe.make(reply.proposal.recipe)
                for choice in reply.choices:
                    assert engine.assistant.answer(choice.say)[0].intent not in ("unknown", "unknown_term", "empty"), choice
    assert len(engine.jobs()) == 4, "nothing was started"


def test_the_demo_is_proposed_whole_and_changed_in_words(engine: Engine, say: Conversation) -> None:
    made = say("one-minute demo").proposal
    assert made and Recipe.make(made.recipe) == engine.demo_recipe("piglatin")
    assert {reason.field for reason in made.reasons} >= {"method", "training.learning_rate", "training.steps", "lora.rank"}
    assert [takes.name for takes in made.takes] == ["time", "memory", "money"]
    changed = say("use 200 steps and a smaller batch").proposal
    assert changed and changed.recipe["training"]["steps"] == 200
    changed = say("smaller batch").proposal
    assert changed and (changed.recipe["training"]["batch_size"], changed.recipe["training"]["steps"]) == (16, 200)
    assert "Recommended: 32" in next(reason.reason for reason in changed.reasons if reason.field == "training.batch_size")
    full = say("full fine-tuning").proposal
    assert full and full.recipe["full"] and full.recipe["training"]["learning_rate"] == 0.001
    refused = say("batch size 0")
    assert refused.proposal is None and "batch" in refused.text
    assert say("how long will it take?").text.startswith("- **Time:** about")
    assert "LoRA rank" not in say("why these settings?").text
    again = say("back to the recommended settings").proposal
    assert again and Recipe.make(again.recipe) == engine.demo_recipe("piglatin")
    assert "press the button" in say("yes").text and engine.jobs() == []
    say("start over")
    assert say("yes").proposal is None


def test_what_was_noted_before_any_goal_holds(say: Conversation) -> None:
    assert say("use 50 steps").text.startswith("Noted. What should")
    for refused in ("use 1e999 steps", "batch size 0", "train a model with a learning rate of 7", "rank 100000"):
        assert say(refused).text.startswith("That can't be"), refused
    say("call it Mine")
    made = say("teach it camelCase").proposal
    assert made and (made.recipe["training"]["steps"], made.recipe["name"], made.recipe["data"]["demo"]) == (50, "Mine", "camelcase")


def test_own_data_is_asked_for_one_thing_at_a_time(engine: Engine, say: Conversation) -> None:
    first = say("I have 500 support questions")
    assert first.proposal is None and "500 are a good start" in first.text and kinds(first) == ["datasets"]
    assert "library is empty" in say("use my latest upload").text
    kept = engine.datasets.add("support chats.jsonl", rows(500))
    asked = say("use my latest upload")
    assert asked.proposal is None and "Which model" in asked.text and "Use nano" in [choice.say for choice in asked.choices]
    made = say("Use nano").proposal
    assert made and made.recipe["data"]["dataset"] == kept.id and made.goal == "answer" and made.sound
    assert made.summary[0].startswith("nano learns from 450 examples")
    offline = say("with Qwen")
    assert offline.proposal is None and "can't be planned" in offline.text and "download" in offline.text
    assert say("use nano").proposal
    named = say("call it *Helper*").proposal
    assert named and named.recipe["name"] == "*Helper*"


def test_what_it_cannot_do_is_said_with_the_nearest_thing(say: Conversation) -> None:
    assert "can't train with ORPO" in say("train with ORPO").text
    explained = say("what is ORPO?")
    assert "can't train this way yet" in explained.text and not explained.proposal
    for wish in ("make pictures", "train on runpod", "export to ollama", "fine-tune gpt-4", "browse the internet", "write me a poem"):
        reply = say(wish)
        assert reply.intent == "limit" and (reply.choices or reply.actions), wish
    lost = say("blarg wibble")
    assert "didn't understand" in lost.text and "how is my run" in lost.text


def test_it_says_how_runs_are(engine: Engine, say: Conversation) -> None:
    assert "no run yet" in say("how is my run?").text
    runs = Runs(engine)
    done, failed = runs.done("Tutor"), runs.failed("Broken")
    assert "no training example has an answer" in say("why did it fail?").text
    running = runs.running("Poet")
    fresh = Conversation(engine)
    status = fresh("how is my run?")
    assert "**Poet** is learning, step 40 of 100, about 15 s left, 5,200 tokens a second" in status.text and "All well" in status.text
    assert [(action.kind, action.about) for action in status.actions] == [(kind, running.id) for kind in ("run", "pause", "stop")]
    assert "15 s" in fresh("how long still?").text
    assert "0 % to **96.5 %**" in fresh("how did tutor go?").text
    assert "Chat with it" in [action.label for action in fresh(f"how is run {done.id}?").actions]
    assert engine.job(running.id).state == "training", "asking changes nothing"
    assert "**Tutor**: right answers went from 0 % to 96.5 % on 400 prompts" in fresh("which is my best model?").text
    runs.done("Tutor two")
    compared = fresh("compare my last two")
    assert "as many right answers" in compared.text and compared.facts[0]["Tutor"] == "right answers 0 % → 96.5 %"
    assert kinds(compared) == ["compare"]
    once_more = fresh(f"train run {failed.id} again with 20 steps").proposal
    assert once_more and once_more.recipe["training"]["steps"] == 20 and once_more.recipe["name"] == "Broken"
    assert kinds(fresh("pause")) == ["pause"] and kinds(fresh("stop it")) == ["stop"]
    assert "what is recommended for nano" in fresh("is my learning rate too high?").text


def test_a_conversation_is_kept_and_its_proposal_becomes_a_run(engine: Engine) -> None:
    assistant = engine.assistant
    talk = assistant.say("  one-minute demo\n please ")
    assert (talk.title, len(talk.turns)) == ("one-minute demo please", 2)
    talk = assistant.say("use 30 steps", talk.id)
    recipe = assistant.recipe(talk.id, 3)
    assert recipe.training.steps == 30 and assistant.started(talk.id) == {}
    job = engine.launch(recipe)
    with Engine() as again:
        talk = again.assistant.note_start(talk.id, 3, job.id)
        assert again.assistant.started(talk.id) == {3: job.id} and talk.turns[-1]["job"] == job.id
    assert engine.job(job.id).recipe == recipe and engine.job(job.id).owner == "local"
    assert "Pig Latin" in assistant.say("how is it?", talk.id).turns[-1]["reply"]["text"]
    assert assistant.say("yes", talk.id).turns[-1]["reply"]["proposal"] is None, "what was started isn't proposed again"
    for turn in (0, 2, 99, -1):
        with pytest.raises(NotFound):
            assistant.recipe(talk.id, turn)
    draft = assistant.to_wizard(talk.id, 3)
    assert (draft.goal, draft.step) == ("demo", 3) and engine.planner.suggest(engine.drafts.get().changes).recipe == recipe
    assistant.delete(talk.id)
    assert assistant.talks() == [] and engine.job(job.id)


def test_two_tabs_that_press_at_once_start_one_run(engine: Engine) -> None:
    talk = engine.assistant.say("one-minute demo")
    gate, made = threading.Barrier(4), []

    def press() -> None:
        with Engine() as tab:
            recipe, token = tab.assistant.recipe(talk.id, 1), tab.assistant.token(talk.id, 1)
            gate.wait(30)
            job = tab.launch(recipe, token=token)
            tab.assistant.note_start(talk.id, 1, job.id)
            made.append(job.id)

    tabs = [threading.Thread(target=press) for _ in range(4)]
    [tab.start() for tab in tabs]
    [tab.join(60) for tab in tabs]
    assert len(made) == 4 and [job.id for job in engine.jobs()] == [made[0]] and set(made) == {made[0]}
    assert engine.assistant.started(talk.id) == {1: made[0]}
    assert [turn["kind"] for turn in engine.assistant.talk(talk.id).turns if turn["role"] == "event"] == ["started"]
    later = engine.assistant.say("use 30 steps", engine.assistant.say("one-minute demo", talk.id).id)
    turn = len(later.turns) - 1
    assert engine.launch(engine.assistant.recipe(talk.id, turn), token=engine.assistant.token(talk.id, turn)).id != made[0]
    with pytest.raises(NotFound):
        engine.assistant.token(talk.id, 0)


def test_what_is_somebody_elses_is_not_found(engine: Engine, stranger: Engine) -> None:
    job, talk = Runs(engine).done("Tutor"), engine.assistant.say("one-minute demo")
    engine.datasets.add("support chats.jsonl", rows(80))
    theirs = stranger.assistant
    for refused in (
        lambda: theirs.talk(talk.id),
        lambda: theirs.say("hello", talk.id),
        lambda: theirs.proposal(talk.id, 1),
        lambda: theirs.recipe(talk.id, 1),
        lambda: theirs.started(talk.id),
        lambda: theirs.token(talk.id, 1),
        lambda: theirs.to_wizard(talk.id, 1),
        lambda: theirs.note_start(talk.id, 1, job.id),
        lambda: theirs.note_start(theirs.say("one-minute demo").id, 1, job.id),
        lambda: theirs.delete(talk.id),
    ):
        with pytest.raises(NotFound):
            refused()
    assert theirs.answer(f"how is run {job.id}?")[0].intent == "no_such_run"
    assert theirs.answer("how is Tutor doing?")[0].intent == "unknown"
    for said in ("compare my last two", "which is my best model?", "list my runs", "which data sets are there?", "use support chats"):
        assert "Tutor" not in str(theirs.answer(said)[0].to_dict()) and "'support chats" not in str(theirs.answer(said)[0].to_dict())
    assert theirs.answer("how is it?", {"run": job.id})[0].text.startswith("There is no run yet")


def test_names_stay_text(engine: Engine, say: Conversation) -> None:
    Runs(engine).running("![x](http://e) :red[a] **b**")
    text = say("how is my run?").text
    assert r"\!\[x\]\(http\://e\) \:red\[a\] \*\*b\*\*" in text


def test_a_key_that_is_told_is_not_kept() -> None:
    with Engine() as engine:
        talk = engine.assistant.say("my key is tml-0123456789abcdef, use it")
        assert "0123456789abcdef" not in repr(talk) and "tml-***" in talk.turns[0]["text"]


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_from_a_sentence_to_a_trained_model() -> None:
    with Engine() as engine:
        talk = engine.assistant.say("teach it camelCase")
        talk = engine.assistant.say("use 20 steps", talk.id)
        recipe = engine.assistant.recipe(talk.id, len(talk.turns) - 1).merged({"evaluation": {"proof": False, "samples_every": 0}})
        job = engine.run_job(recipe)
        engine.assistant.note_start(talk.id, 3, job.id)
        told = engine.assistant.say("how did it go?", talk.id).turns[-1]["reply"]
        assert "is finished, 20 steps" in told["text"] and "chat" in [action["kind"] for action in told["actions"]]
