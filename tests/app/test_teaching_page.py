"""Correcting in the Playground in its states: an answer open, the tray, a lesson under way, learned, undone, failed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from streamlit.testing.v1 import AppTest

from engine import Engine, endpoints, paths
from engine.store import Job
from tests.app.conftest import ROOT, Runs, texts
from tests.app.test_playground_page import open_page, said, say
from tests.fakes.openai_server import SayingServer
from tests.running import until


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SayingServer]:
    made = SayingServer()
    monkeypatch.setattr(endpoints, "start", lambda *_: made)
    yield made
    made.close()


def press(page: AppTest, label: str) -> AppTest:
    next(button for button in page.button if button.label == label).click().run()
    assert not page.exception
    return page


def labels(page: AppTest) -> list[str]:
    return [button.label for button in page.button]


def correct(page: AppTest, text: str) -> AppTest:
    press(page, "Correct it")
    next(area for area in page.text_area if area.label == "What it should have said").set_value(text)
    return press(page, "Keep this correction")


def learning(engine: Engine, page: AppTest) -> Job:
    """Until the lesson has a run."""
    chat = page.query_params["chat"]
    until(lambda: engine.teaching.lessons(chat)[-1].job_id)
    return engine.job(engine.teaching.lessons(chat)[-1].job_id)


def finish(engine: Engine, job: Job) -> None:
    """As a runner would."""
    store = engine.store
    claimed = store.claim_job("test", lease_s=3600, job_id=job.id)
    assert claimed is not None
    store.transition(job.id, "training", attempt=claimed.attempt)
    store.set_fields(job.id, claimed.attempt, stage="learning")
    known = {"base_model": "nano", "endpoint": "local", "renderer": "chat_template", "weights_path": "tinker://made/weights/1"}
    store.add_model(job.name, job_id=job.id, sampler_path="tinker://made/sampler_weights/1", **known)
    store.transition(job.id, "done", attempt=claimed.attempt)


def test_an_answer_is_corrected_in_place_and_kept(engine: Engine) -> None:
    page = press(say(open_page(), "one"), "Correct it")
    assert "Correct it" not in labels(page)
    assert page.text_area[-1].value == "echo: one", "to be edited, not written anew"
    press(page, "Cancel")
    assert said(page) == ["one", "echo: one"]
    correct(page, "uno")
    assert "1 correction" in texts(page) and ":green-badge[" in texts(page) and "uno" in texts(page)
    say(page, "two")
    correct(page, "due")
    again = open_page(chat=page.query_params["chat"])
    assert "2 corrections" in texts(again), "after F5 or a restart"
    press(again, "Edit")
    assert again.text_area[-1].value == "uno"
    again.text_area[-1].set_value("ein")
    press(again, "Keep this correction")
    press(again, "Remove")
    assert "1 correction" in texts(again) and "due" in texts(again) and "ein" not in texts(again)
    assert [one.correction for one in engine.teaching.tray(page.query_params["chat"])] == ["due"]


def test_what_is_no_correction_is_told(engine: Engine) -> None:
    page = correct(say(open_page(), "one"), "echo: one")
    assert "that is what it said" in " ".join(warning.value for warning in page.warning)
    assert not engine.teaching.tray(page.query_params["chat"])


def test_a_lesson_from_its_beginning_to_its_undoing(engine: Engine, server: SayingServer) -> None:
    page = correct(say(open_page(model="base:nano"), "one"), "uno")
    press(page, "Learn")
    job = learning(engine, page)
    page.run()
    assert "Learning 1 correction" in texts(page) and "Learn" not in labels(page)
    asked = [body["messages"][-1]["content"] for body in server.bodies if not body.get("stream")]
    assert len(asked) > 100 and "one" not in asked, "its other answers are the anchor"
    server.say = lambda body: "uno"
    finish(engine, job)
    chat = page.query_params["chat"]
    until(lambda: engine.teaching.look(engine.teaching.lessons(chat)[-1].id)[0].state == "learned")
    page.run()
    assert not page.exception
    assert "nano v2 answers 1 of 1 as corrected" in texts(page) and ":green-badge[as corrected]" in texts(page)
    assert page.selectbox[0].value == engine.model("nano v2").id, "the talk goes on with it"
    assert "corrected and learned" in texts(page) and "1 correction**" not in texts(page)
    say(page, "three")
    assert "nano v2 answers 1 of 1" in texts(page) and ":green-badge[as corrected]" not in texts(page), "one line will do by then"
    press(page, "Undo")
    assert page.selectbox[0].value == "base:nano" and "Undone: nano answers again" in texts(page)
    assert "1 correction**" in texts(page)
    press(page, "Delete nano v2 for good")
    assert not engine.models() and "Undone" not in texts(page)


def test_the_models_page_says_what_it_was_taught(engine: Engine, server: SayingServer) -> None:
    page = press(correct(say(open_page(model="base:nano"), "one"), "uno"), "Learn")
    server.say = lambda body: "uno" if body["messages"][-1]["content"] == "one" else "echo"
    finish(engine, learning(engine, page))
    chat = page.query_params["chat"]
    until(lambda: engine.teaching.look(engine.teaching.lessons(chat)[-1].id)[0].state == "learned")
    until(lambda: (engine.model("nano v2").proof or {}).get("skills", {}).get("after") is not None)
    shown = open_models(model=engine.model("nano v2").id)
    assert not shown.exception and "Nothing was proven" not in texts(shown)
    assert "What it was taught" in texts(shown) and "answers 1 of 1 corrected prompts as taught**, none before" in texts(shown)
    assert "Corrections, as taught `1 of 1` 0 of 1 before" in texts(
        shown
    ) and "General skills on 100 tasks from before: 0 % → 0 %" in texts(shown)
    [row] = next(table.value for table in shown.dataframe if "taught" in table.value).to_dict("records")
    assert (row["prompt"], row["before"], row["now"], row["taught"], row["as taught"]) == ("one", "echo: one", "uno", "uno", "yes")
    assert "answers 1 of 1 corrected prompts as taught" in texts(open_models())
    # One of an older version, to which nothing was noted, and one whose skills can't be measured.
    engine.store.set_proof("nano v2", None)
    older = open_models(model=engine.model("nano v2").id)
    assert not older.exception and "answers 1 of 1 corrected prompts" in texts(older) and "weren't measured" in texts(older)


def test_what_it_did_not_learn_waits(engine: Engine, server: SayingServer) -> None:
    page = press(correct(say(open_page(), "one"), "uno"), "Learn")
    finish(engine, learning(engine, page))
    chat = page.query_params["chat"]
    until(lambda: engine.teaching.look(engine.teaching.lessons(chat)[-1].id)[0].state == "learned")
    page.run()
    assert "nano v2 answers 0 of 1 as corrected" in texts(page) and ":orange-badge[not yet]" in texts(page)
    assert "1 correction**" in texts(page) and "Learn" in labels(page)


def test_a_lesson_that_fails_is_told_and_can_be_begun_again(engine: Engine, server: SayingServer) -> None:
    page = correct(say(open_page(), "one"), "uno")
    server.refuse = 500, {"error": {"message": "out of memory"}}
    press(page, "Learn")
    chat = page.query_params["chat"]
    until(lambda: engine.teaching.lessons(chat)[-1].state == "failed")
    page.run()
    assert not page.exception and "Out of memory" in texts(page) and "Learn" in labels(page)
    server.refuse = None
    press(page, "Learn")
    learning(engine, page)


def test_a_model_without_weights_to_go_on_from_can_not_learn(engine: Engine, runs: Runs) -> None:
    runs.done("Tutor")
    page = correct(say(open_page(), "one"), "uno")
    assert next(button for button in page.button if button.label == "Learn").disabled
    assert "Tutor can't learn more" in texts(page)


def test_corrections_become_a_data_set(engine: Engine) -> None:
    page = press(correct(say(open_page(), "one"), "uno"), "Save as data set")
    assert [toast.value for toast in page.toast] == ["Corrections of one is in Datasets"]
    assert [found.name for found in engine.datasets.find()] == ["Corrections of one"]


def test_train_it_further(engine: Engine, runs: Runs) -> None:
    runs.done("Tutor")
    known = {"base_model": "nano", "endpoint": "local", "renderer": "chat_template", "sampler_path": "tinker://made/sampler_weights/2"}
    model = engine.store.add_model("Tutor two", job_id=None, weights_path="tinker://made/weights/2", parent=engine.models()[0].id, **known)
    for kind in ("weights", "sampler_weights"):
        (paths.home() / "checkpoints" / "made" / kind / "2").mkdir(parents=True)
    page = open_models(model=model.id)
    assert not page.exception
    assert "Train it further" in [link.label for link in page.get("page_link")]
    assert "Goes on from Tutor" in [link.label for link in page.get("page_link")]
    parent = open_models(model=engine.model("Tutor").id)
    shown = [link.label for link in parent.get("page_link")]
    assert "Tutor two went on from it" in shown and "Train it further" not in shown, "its weights to go on from weren't kept"
    wizard = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
    wizard.switch_page(str(ROOT / "pages" / "wizard.py"))
    wizard.query_params["start"] = model.id
    wizard.run()
    assert not wizard.exception and engine.drafts.get().changes["start"] == {"checkpoint": model.id}
    engine.drafts.change("data.demo", "piglatin")
    engine.drafts.update(step=3)
    wizard.run()
    assert not wizard.exception
    box = next(box for box in wizard.selectbox if box.label.startswith("Go on from"))
    assert box.value == model.id and "come from there" in texts(wizard)
    box.set_value("").run()
    assert not wizard.exception and "start" not in engine.drafts.get().changes


def open_models(**query: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
    test.switch_page(str(ROOT / "pages" / "models.py"))
    for name, value in query.items():
        test.query_params[name] = value
    return test.run()
