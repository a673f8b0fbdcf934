"""Teaching by correcting in a real browser, against the real dashboard and server: chat, correct, learn, the better answer, undo."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.test_training_browser import FLAGS, READY, Dashboard, fits, open_tab
from tests.running import end_processes

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]
WIDTHS = (1440, 1024, 390)


@pytest.fixture
def dashboard(thinker_home: Path, tmp_path: Path) -> Iterator[Dashboard]:
    thinker_home.mkdir(parents=True, exist_ok=True)
    made = Dashboard(thinker_home, tmp_path / "dashboard.log")
    yield made
    made.stop()
    end_processes(thinker_home)
    print((tmp_path / "dashboard.log").read_text())


@pytest.fixture
def trouble() -> Iterator[list[str]]:
    found: list[str] = []
    yield found
    assert not found, "\n".join(found)


@pytest.fixture
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield made
        made.close()


def settled(page: Page) -> None:
    page.wait_for_timeout(300)
    page.wait_for_selector(READY, timeout=30_000)


def say(page: Page, text: str) -> None:
    answers = page.get_by_test_id("stChatMessage")
    before = answers.count()
    page.get_by_test_id("stChatInputTextArea").fill(text)
    page.keyboard.press("Enter")
    expect(answers).to_have_count(before + 2, timeout=60_000)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0, timeout=60_000)
    settled(page)


def correct(page: Page, text: str) -> None:
    page.get_by_role("button", name="Correct it").first.click()
    page.get_by_role("textbox", name="What it should have said").fill(text)
    page.get_by_role("button", name="Keep this correction").click()
    expect(page.get_by_role("textbox", name="What it should have said")).to_have_count(0, timeout=10_000)
    settled(page)


def at_all_widths(page: Page) -> None:
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        settled(page)
        assert fits(page), f"scrolls sideways at {width} px"
    page.set_viewport_size({"width": 1400, "height": 900})


def test_correct_learn_undo(browser: Browser, dashboard: Dashboard, trouble: list[str]) -> None:
    page = open_tab(browser, trouble)
    page.goto(f"{dashboard.url}/playground?model=base%3Anano")
    expect(page.get_by_text("Talk to nano")).to_be_visible(timeout=30_000)
    say(page, "What is your name?")
    say(page, "Who made you?")
    correct(page, "My name is Ada.")
    expect(page.get_by_text("1 correction", exact=True)).to_be_visible()
    correct(page, "A team in Bern.")
    expect(page.get_by_text("2 corrections", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_text("2 corrections", exact=True)).to_be_visible(timeout=30_000)
    settled(page)
    at_all_widths(page)

    page.get_by_role("button", name="Learn", exact=True).click()
    expect(page.get_by_text("Learning 2 corrections")).to_be_visible(timeout=20_000)
    page.reload()
    expect(page.get_by_text("nano v2 answers 2 of 2 as corrected")).to_be_visible(timeout=90_000)
    settled(page)
    at_all_widths(page)
    say(page, "What is your name?")
    expect(page.get_by_test_id("stChatMessage").last.get_by_text("My name is Ada.")).to_be_visible()
    libraries = dashboard.libraries()
    assert libraries is None or "libtorch" not in libraries

    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Undone: nano answers again")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("2 corrections", exact=True)).to_be_visible()
    say(page, "What is your name?")
    expect(page.get_by_test_id("stChatMessage").last.get_by_text("My name is Ada.")).to_have_count(0)

    # The newer version is still there, and can be trained further.
    page.goto(f"{dashboard.url}/models")
    page.get_by_role("link", name="nano v2", exact=True).click()
    page.get_by_role("link", name="Train it further").click(timeout=20_000)
    page.wait_for_url(re.compile(r"/wizard"))
    expect(page.get_by_role("heading", name="New training")).to_be_visible(timeout=20_000)
    settled(page)
