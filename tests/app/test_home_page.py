"""Home in its states: a first visit, put off, while something runs, and when all is at rest; and the tour over the pages."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app import navigation
from engine import Engine
from tests.app.conftest import ERROR, ROOT, Runs, texts


def open_home() -> AppTest:
    return AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60).run()


def buttons(page: AppTest) -> dict[str, object]:
    return {button.label: button for button in page.main.button}


def titles(page: AppTest) -> list[str]:
    return [title.value.replace("\\", "") for title in page.title]


def test_a_first_visit_is_welcomed_and_led_into_the_demo(engine: Engine) -> None:
    page = open_home()
    assert not page.exception and titles(page) == ["Welcome to Thinker"]
    assert list(buttons(page)) == ["Start the one-minute demo", "Show me around", "Not now"]
    shown = texts(page)
    assert "Processor" in shown and "parameters" in shown and "● ready" in shown
    page.button(key="demo").click().run()
    assert not page.exception and titles(page) == ["New training"]
    draft = engine.drafts.get()
    assert draft.goal == "demo" and draft.data() == {"demo": "piglatin"} and "launch" in [button.key for button in page.button]
    # Whoever comes back without having launched it finds the way on, not the welcome.
    page = open_home()
    assert titles(page) == ["Home"] and "Go on" in buttons(page)


def test_not_now_is_remembered(engine: Engine) -> None:
    open_home().button(key="not-now").click().run()
    assert engine.settings.get("tour") == "skipped"
    page = open_home()
    assert titles(page) == ["Home"] and "Start the demo" in buttons(page)
    page.button(key="next-demo-piglatin").click().run()
    assert titles(page) == ["New training"] and engine.drafts.get().data() == {"demo": "piglatin"}


def test_the_tour_goes_from_page_to_page_and_is_remembered(engine: Engine) -> None:
    page = open_home()
    page.button(key="tour").click().run()
    for number, title in enumerate(("Settings", "Datasets", "New training", "Training", "Playground")):
        assert not page.exception and titles(page) == [title]
        assert f"step {number + 1} of 6" in texts(page)
        # Another tab, or F5, finds it there.
        assert f"step {number + 1} of 6" in texts(open_home())
        page.button(key="tour-next").click().run()
    assert titles(page) == ["Home"]
    assert "step 6 of 6" in texts(page)
    page.button(key="tour-back").click().run()
    assert titles(page) == ["Playground"]
    page.button(key="tour-next").click().run()
    page.button(key="tour-finish").click().run()
    assert engine.settings.get("tour") == "done" and "of 6" not in texts(page)


def test_off_the_path_the_tour_waits_and_leads_back(engine: Engine) -> None:
    engine.settings.set("tour", "on")
    engine.settings.set("tour_step", 2)
    page = open_home()
    assert "step 3 of 6: Wizard" in texts(page)
    page.button(key="tour-there").click().run()
    assert titles(page) == ["New training"]
    page.button(key="tour-skip").click().run()
    assert engine.settings.get("tour") == "skipped" and "of 6" not in texts(page)


def test_what_runs_what_finished_and_what_is_next(engine: Engine, runs: Runs) -> None:
    runs.done("Tutor"), runs.failed("Broken"), runs.running("Busy <one>")
    page = open_home()
    shown = texts(page)
    assert not page.exception and titles(page) == ["Home"]
    assert "Watch “Busy <one>”" in shown and "● learning" in shown and "better by 96 points" in shown
    assert "0 % → 96.5 % right on 400 new prompts" in shown and ERROR["message"][1:] in shown
    labels = [label.replace("\\", "") for label in buttons(page)]
    assert labels == ["Watch it", "See why “Broken” failed", "Talk to “Tutor”", "Train on your own data"]


@pytest.mark.parametrize(("made", "label"), [("paused", "Resume"), ("failed", "See what went wrong"), ("done", "Chat")])
def test_the_one_button_fits_the_state(runs: Runs, engine: Engine, made: str, label: str) -> None:
    job = getattr(runs, made)("Tutor")
    page = open_home()
    assert next(iter(buttons(page))) == label
    buttons(page)[label].click().run()  # type: ignore[attr-defined]
    assert not page.exception
    wanted = {"model": job.id} if made == "done" else {"job": job.id}
    assert dict(page.query_params) == wanted
    assert engine.job(job.id).state == ("queued" if made == "paused" else job.state)


def test_a_draft_and_own_data_are_offered(engine: Engine, runs: Runs) -> None:
    engine.settings.set("tour", "done")
    kept = engine.datasets.add("faq.jsonl", b"\n".join(b'{"prompt": "say %d", "completion": "%d"}' % (n, n) for n in range(40)))
    page = open_home()
    assert "Nothing has learned from its 40 examples yet" in texts(page)
    buttons(page)["Train on it"].click().run()  # type: ignore[attr-defined]
    assert not page.exception and engine.drafts.get().data() == {"dataset": kept.id}
    page = open_home()
    buttons(page)["Go on"].click().run()  # type: ignore[attr-defined]
    assert titles(page) == ["New training"]


def test_a_run_that_comes_to_rest_ends_the_timer(engine: Engine, runs: Runs) -> None:
    job = runs.running("Busy")
    page = open_home()
    assert "Running" in [element.value for element in page.header]
    engine.store.transition(job.id, "failed", attempt=job.attempt, error=ERROR)
    page.run()
    assert not page.exception and "Running" not in [element.value for element in page.header]


def test_home_is_the_first_page_and_has_an_address() -> None:
    assert navigation.PAGES[0] is navigation.HOME and navigation.entry("home") is navigation.HOME
    assert Path(navigation.HOME.path).exists()
