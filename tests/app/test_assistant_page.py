"""The Assistant's page in its states: nothing said, a conversation, a proposal started, runs in every state, what is gone."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from engine import Engine
from tests.app.conftest import ROOT, Runs, open_page, texts

ASSISTANT = str(ROOT / "pages" / "assistant.py")


def labels(page: AppTest) -> list[str]:
    return [button.label.replace("\\", "") for button in page.button]


def press(page: AppTest, label: str) -> AppTest:
    return next(button for button in page.button if button.label.replace("\\", "") == label).click().run()


def say(page: AppTest, text: str) -> AppTest:
    return page.chat_input[0].set_value(text).run()


def test_nothing_said_yet_teaches_and_offers() -> None:
    page = open_page(ASSISTANT)
    assert not page.exception and "Say what you want in plain English" in texts(page)
    assert labels(page)[0] == "Show me the one-minute demo" and "Make it talk like a pirate" in labels(page)


def test_from_a_click_to_a_run_and_back(engine: Engine, nothing_starts: list[str]) -> None:
    page = press(open_page(ASSISTANT), "Show me the one-minute demo")
    talk = engine.assistant.talks()[0]
    assert not page.exception and page.query_params["talk"] == talk.id
    shown = texts(page)
    assert "nano learns from 4,478 examples" in shown and "Time: about" in shown and "LoRA rank: 32" in shown
    page = say(page, "use 60 steps")
    assert "A later proposal took its place" in texts(page) and labels(page).count("Start training") == 1
    assert engine.jobs() == [] and nothing_starts == []
    page = press(page, "Start training")
    (job,) = engine.jobs()
    assert not page.exception and job.recipe.training.steps == 60 and nothing_starts == ["asked"]
    assert "Start training" not in labels(page) and "waiting its turn" in texts(page)
    cold = open_page(ASSISTANT, talk=talk.id)
    assert not cold.exception and "use 60 steps" in str([text.value for text in cold.text]) and "Start training" not in labels(cold)
    assert "How is my run?" in labels(cold)
    page = press(cold, "How is my run?")
    assert "waiting its turn" in texts(page) and {"Pause", "Stop and keep"} <= set(labels(page))
    page = press(page, "Pause")
    assert engine.job(job.id).state == "paused" and "Pause" not in labels(page)


def test_a_proposal_goes_to_the_wizard(engine: Engine) -> None:
    page = press(open_page(ASSISTANT), "Show me the one-minute demo")
    page = press(say(page, "use 60 steps"), "Change in the Wizard")
    assert not page.exception and [title.value for title in page.title] == ["New training"]
    assert engine.drafts.get().changes == {"data": {"demo": "piglatin"}, "training": {"steps": 60}}


@pytest.mark.parametrize("state", ["queued", "running", "paused", "failed", "done"])
def test_runs_in_every_state(engine: Engine, runs: Runs, state: str) -> None:
    getattr(runs, state)("Tutor *x*")
    page = open_page(ASSISTANT)
    for said in ("how is my run?", "is it getting better?", "how long still?", "why did it fail?", "list my runs", "compare my last two"):
        page = say(page, said)
        assert not page.exception and not page.error, said
    assert "Tutor *x*" in texts(page)


def test_tables_links_and_explanations(engine: Engine, runs: Runs) -> None:
    runs.done("Tutor")
    page = say(open_page(ASSISTANT), "which is my best model?")
    assert page.dataframe[0].value["proof"].tolist()[0].endswith("→ 96.5 %")
    page = say(page, "what is LoRA?")
    assert "low-rank adaptation" in texts(page) and "Read on in the guide" in labels(page)
    for said in ("what can this computer do?", "which data sets are there?", "SFT or DPO?", "delete everything", "chat with it", "pause"):
        page = say(page, said)
        assert not page.exception, said


@pytest.mark.parametrize(
    "said", ["<script>alert(1)</script>", "$x$ :red[x] **b** ![p](http://e/x.png)", "🤖" * 300, "a" * 4000, "'; DROP TABLE jobs; --"]
)
def test_whatever_is_said_is_shown_as_it_was(engine: Engine, said: str) -> None:
    page = say(open_page(ASSISTANT), said)
    assert not page.exception and not page.error and page.text[0].value == said


def test_conversations_are_gone_on_with_and_deleted(engine: Engine) -> None:
    first = engine.assistant.say("what is LoRA?")
    second = engine.assistant.say("hello")
    page = open_page(ASSISTANT, talk=second.id)
    assert any("what is LoRA" in str(link.proto.label) for link in page.get("page_link"))
    page.button(key="new-talk").click().run()
    assert "talk" not in page.query_params and "Say what you want" in texts(page)
    page = open_page(ASSISTANT, talk=first.id)
    assert page.button(key="delete-talk").disabled
    page.checkbox[0].check().run()
    page.button(key="delete-talk").click().run()
    assert [talk.id for talk in engine.assistant.talks()] == [second.id] and "talk" not in page.query_params and not page.exception


def test_what_is_gone_or_somebody_elses_says_so(engine: Engine, runs: Runs) -> None:
    with Engine(owner="somebody else") as other:
        theirs = other.assistant.say("hello")
    for talk in ("feedface0000", theirs.id):
        page = open_page(ASSISTANT, talk=talk)
        assert not page.exception and "There is no conversation" in page.error[0].value.replace("\\", "")
    job = runs.failed("Tutor")
    talk = engine.assistant.say("one-minute demo")
    engine.assistant.note_start(talk.id, 1, job.id)
    engine.delete(job.id)
    page = open_page(ASSISTANT, talk=talk.id)
    assert not page.exception and "has been deleted" in texts(page)
