"""Keys in the settings, the place that needs one in the Wizard, and a run that waits for one: on the screen; a real server answers."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from engine import Engine, keys, policy
from tests.app.conftest import ROOT, Runs, open_page, texts
from tests.server.harness import KEY, RunningServer

SETTINGS = str(ROOT / "pages" / "settings.py")
WIZARD = str(ROOT / "pages" / "wizard.py")


def give(test: AppTest, value: str, store: bool = False) -> AppTest:
    test.text_input(key="key-tinker").set_value(value)
    if store:
        test.checkbox(key="key-store-tinker").check()
    return next(button for button in test.button if button.label == "Use this key").click().run()


def in_state(test: AppTest) -> str:
    return repr(test.session_state._state.filtered_state)


def test_none_yet() -> None:
    test = open_page(SETTINGS)
    assert "none yet" in texts(test) and "tml-" in texts(test) and not test.exception
    assert not [button for button in test.button if button.label in ("Try it", "Forget it")]
    assert test.text_input(key="key-tinker").proto.type == test.text_input(key="key-tinker").proto.PASSWORD


def test_given_tried_and_taken_back(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_BASE_URL", server.url)
    test = give(open_page(SETTINGS), KEY)
    assert "holds it in memory" in texts(test) and KEY not in texts(test) and KEY not in in_state(test)
    test.button(key="key-try-tinker").click().run()
    assert "1 model to train" in texts(test)
    test.button(key="key-forget-tinker").click().run()
    assert "none yet" in texts(test) and not keys.held()


def test_what_cant_be_a_key_is_told() -> None:
    test = give(open_page(SETTINGS), "sk-from-elsewhere")
    assert "begin with tml-" in texts(test) and "sk-from-elsewhere" not in texts(test) and "none yet" in texts(test)


def test_a_bad_one_and_a_server_that_is_away(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    test = give(open_page(SETTINGS), "tml-this-isnt-the-right-one")
    test.button(key="key-try-tinker").click().run()
    assert "can't be reached" in texts(test)
    monkeypatch.setenv("TINKER_BASE_URL", server.url)
    test.button(key="key-try-tinker").click().run()
    assert "refused the key" in texts(test) and "tml-this" not in texts(test)


def test_remembered_on_this_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    test = give(open_page(SETTINGS), KEY, store=True)
    keys.unhold("local", "tinker")
    assert "only you can read" in texts(test.run())
    monkeypatch.setattr("app.identity._cookie", lambda: "")
    monkeypatch.setattr("app.identity._owner", lambda: f"{policy.VISITOR}0a")
    shared = open_page(SETTINGS)
    assert "none yet" in texts(shared) and not [box for box in shared.checkbox if box.key == "key-store-tinker"]
    said = texts(shared)
    assert "kept in memory only" in said and "Diagnostics" not in [header.value for header in shared.header]


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINKER_API_KEY", KEY)
    test = open_page(SETTINGS)
    assert "TINKER_API_KEY" in texts(test) and not [button for button in test.button if button.label == "Forget it"]


def test_a_run_that_waits_says_so_and_goes_on(engine: Engine, runs: Runs) -> None:
    job = runs.running()
    runs.saved(job, 40, "schedule")
    error = {"kind": "KeyNeeded", "message": "the key for Tinker isn't there", "next_step": "Give it again in the settings.", "where": ""}
    with engine.store.write() as connection:
        connection.exec_driver_sql("UPDATE jobs SET endpoint = 'tinker' WHERE id = ?", (job.id,))
    engine.store.transition(job.id, "needs_key", attempt=job.attempt, error=error)
    test = open_page(job=job.id)
    assert "waiting for a key" in texts(test) and "key for Tinker" in texts(test) and test.button(key="resume")
    assert engine.runs.counts()["paused"] == 1
    test.button(key="resume").click().run()
    assert engine.job(job.id).state == "needs_key" and "isn't there" in texts(test)
    test = give(open_page(SETTINGS), KEY)
    assert engine.job(job.id).state == "queued"


def test_where_it_trains_is_asked_live(engine: Engine, server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.drafts.update(goal="answer", step=2, changes={"data": {"demo": "piglatin"}})
    test = open_page(WIZARD)
    assert "Tinker" in texts(test) and "missing" in texts(test)
    monkeypatch.setenv("TINKER_BASE_URL", server.url)
    engine.keys.give("tinker", KEY)
    test = open_page(WIZARD)
    assert "takes the key and offers 1 model" in texts(test)
    test.button(key="place-tinker").click().run()
    assert engine.drafts.get().changes["endpoint"] == "tinker"
    engine.drafts.update(step=3)
    test = open_page(WIZARD)
    chosen = next(box for box in test.selectbox if box.label == "The model to start from")
    assert (chosen.options, chosen.value) == (["nano"], "nano") and not [radio for radio in test.radio if radio.label == "What is trained"]
