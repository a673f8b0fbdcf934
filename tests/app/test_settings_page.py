"""The Settings page: each section with the real store behind it, and one that fails leaving the others be."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from app import shortcuts
from engine import Engine, health, paths, upkeep
from engine.errors import StorageError
from tests.app.conftest import ROOT, Runs, open_page, texts
from tests.fakes.judge_server import JudgeServer

SETTINGS = str(ROOT / "pages" / "settings.py")


def field(page: AppTest, name: str) -> object:
    found = [widget for widget in (*page.number_input, *page.text_input) if str(widget.key).startswith(f"default-{name}-")]
    assert len(found) == 1
    return found[0]


def test_all_sections_are_there(engine: Engine, runs: Runs) -> None:
    runs.done("Tutor")
    page = open_page(SETTINGS)
    shown = texts(page)
    assert not page.exception
    for title in (
        "Where things are kept",
        "What new trainings start from",
        "The tour",
        "Keyboard",
        "What is stored about you",
        "Diagnostics",
    ):
        assert title in shown
    assert upkeep.shown(str(paths.home())) in shown and "Database: runs, curves, chats, settings" in shown
    assert "1 run, 1 model." in shown
    for key, what, _ in shortcuts.listed():
        assert f"`{key}` {what}" in shown


def test_a_big_folder_is_counted_while_the_page_lives(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.components.settings._AT_ONCE", -1.0)
    monkeypatch.setattr("app.components.settings._EACH", -1.0)
    page = open_page(SETTINGS)
    assert "Still counting" in texts(page) and "so far" in texts(page)
    monkeypatch.setattr("app.components.settings._EACH", 5.0)
    page.run()
    assert not page.exception and "Still counting" not in texts(page)
    before = next(metric.value for metric in page.metric if metric.label == "In the folder")
    (paths.folder("datasets") / "big").write_bytes(b"x" * 10**7)
    page.button(key="count-again").click().run()
    assert next(metric.value for metric in page.metric if metric.label == "In the folder") != before
    assert "Data sets, and what lessons were made of: `10 MB`" in texts(page)


def test_defaults_are_kept_and_put_back(engine: Engine) -> None:
    page = open_page(SETTINGS)
    field(page, "training.batch_size").set_value(4).run()  # type: ignore[attr-defined]
    assert not page.exception and engine.defaults.get() == {"training.batch_size": 4}
    again = open_page(SETTINGS)
    assert field(again, "training.batch_size").value == 4  # type: ignore[attr-defined]
    again.button(key="defaults-reset").click().run()
    assert engine.defaults.get() == {} and field(again, "training.batch_size").value is None  # type: ignore[attr-defined]


def test_a_default_that_cannot_be_is_refused_in_words(engine: Engine) -> None:
    page = open_page(SETTINGS)
    field(page, "base_model").set_value("./no/such/model").run()  # type: ignore[attr-defined]
    assert not page.exception and "no such model folder" in page.warning[0].value
    assert engine.defaults.get() == {} and field(page, "base_model").value == "nano"  # type: ignore[attr-defined]
    field(page, "training.max_length").set_value(2).run()  # type: ignore[attr-defined]
    assert not page.exception and page.warning and engine.defaults.get() == {}


def test_the_tour_begins_anew(engine: Engine) -> None:
    engine.settings.set("tour", "done")
    engine.settings.set("tour_step", 5)
    page = open_page(SETTINGS)
    assert "You have seen all of it" in texts(page)
    page.button(key="tour-begin").click().run()
    assert "step 1 of 6: Settings" in texts(page) and engine.settings.get("tour") == "on"


def test_diagnostics_are_gathered_when_asked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_gpu", lambda: ("GPU", None, "none; the CPU trains", ""))
    page = open_page(SETTINGS)
    assert "database at" not in texts(page)
    page.button(key="gather").click().run()
    assert not page.exception and "database at sqlite" in texts(page) and "Last lines of the log" in texts(page)


def test_a_section_that_fails_leaves_the_others_be(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: object) -> int:
        raise StorageError("the disk can't be asked", "See to it.")

    monkeypatch.setattr(upkeep.Upkeep, "free", refuse)
    page = open_page(SETTINGS)
    assert not page.exception and "The disk can't be asked" in page.error[0].value
    assert "Diagnostics" in texts(page)


def test_servers_of_judges_are_named_looked_at_and_forgotten(engine: Engine) -> None:
    with JudgeServer(lambda body, number: "7", models=("wise",), key="sk-judge") as server:
        page = open_page(SETTINGS)
        page.text_input(key="judge-name").set_value("My judge")
        page.text_input(key="judge-url").set_value(server.url)
        page.text_input(key="judge-key").set_value("sk-judge")
        next(button for button in page.button if "judge-form" in str(button.key)).click().run()
        assert not page.exception and [one.name for one in engine.judges.all()] == ["My judge"]
        assert "sk-judge" not in texts(page) and all(one.value != "sk-judge" for one in page.text_input)
        page.button(key=f"judge-{server.url}-look").click().run()
        assert not page.exception and engine.judges.models(server.url) == ("wise",)
        assert "wise" in texts(page) and any("offers 1 model" in toast.value for toast in page.toast)
        page.button(key=f"judge-{server.url}-forget").click().run()
        assert not page.exception and engine.judges.all() == []
