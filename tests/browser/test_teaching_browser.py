"""Teaching by correcting in a real browser, against the real dashboard and server: chat, correct, learn, the better answer, undo."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.driving import Dashboard, fits_everywhere, open_tab, settled

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


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
    fits_everywhere(page)

    page.get_by_role("button", name="Learn", exact=True).click()
    expect(page.get_by_text("Learning 2 corrections")).to_be_visible(timeout=20_000)
    page.reload()
    expect(page.get_by_text("nano v2 answers 2 of 2 as corrected")).to_be_visible(timeout=90_000)
    settled(page)
    fits_everywhere(page)
    say(page, "What is your name?")
    expect(page.get_by_test_id("stChatMessage").last.get_by_text("My name is Ada.")).to_be_visible()
    assert dashboard.is_light

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
