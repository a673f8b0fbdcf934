"""Home in a real browser: the newcomer's whole route to a chat with the model that they have just trained; the tour, keys, settings."""

from __future__ import annotations

import re
import time

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.browser.driving import Dashboard, fits_everywhere, open_tab, settled

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(420)]
UNSEEN = {"Pig Latin: keyboard": "eyboard-kay", "Pig Latin: window": "indow-way", "Pig Latin: garden": "arden-gay"}


def test_from_the_first_visit_to_a_chat_in_few_clicks(browser: Browser, dashboard: Dashboard, trouble: list[str]) -> None:
    clicks = 0

    def click(what: Locator, timeout: int = 20_000) -> None:
        nonlocal clicks
        what.click(timeout=timeout)
        clicks += 1

    page = open_tab(browser, trouble)
    began = time.monotonic()
    page.goto(dashboard.url)
    click(page.get_by_role("button", name="Start the one-minute demo"))
    expect(page.get_by_text("Estimates: right within a factor")).to_be_visible(timeout=20_000)
    click(page.get_by_test_id("stMain").get_by_role("button", name="Launch").last)
    click(page.get_by_role("button", name="Start training"))
    click(page.get_by_role("button", name="Watch it learn"))
    click(page.get_by_role("link", name="Chat with it"), timeout=180_000)
    click(page.get_by_role("button", name="Pig Latin: hello"))
    expect(page.get_by_text("ello-hay")).to_be_visible(timeout=60_000)
    took = time.monotonic() - began
    assert clicks <= 8 and took < 180, f"{clicks} clicks, {took:.0f} s"
    for prompt, answer in UNSEEN.items():
        settled(page)
        page.get_by_test_id("stChatInputTextArea").fill(prompt)
        page.keyboard.press("Enter")
        expect(page.get_by_text(answer, exact=True)).to_be_visible(timeout=20_000)

    # Home says what came of it, and no longer asks for the chat.
    page.goto(f"{dashboard.url}/home")
    expect(page.get_by_text(re.compile(r"better by \d+ points"))).to_be_visible(timeout=20_000)
    expect(page.get_by_role("heading", name="Train on your own data")).to_be_visible()
    fits_everywhere(page)
    assert dashboard.is_light


def test_the_tour_the_keys_and_settings(browser: Browser, dashboard: Dashboard, trouble: list[str]) -> None:
    page = open_tab(browser, trouble)
    page.goto(dashboard.url)
    expect(page.get_by_role("heading", name="Welcome to Thinker")).to_be_visible(timeout=20_000)
    fits_everywhere(page)
    page.get_by_role("button", name="Show me around").click()
    stops = [
        ("settings", "Settings"),
        ("datasets", "Datasets"),
        ("wizard", "Wizard"),
        ("training", "Training"),
        ("playground", "Playground"),
    ]
    for number, (path, title) in enumerate(stops):
        page.wait_for_url(re.compile(f"/{path}$"), timeout=20_000)
        expect(page.get_by_text(f"Tour, step {number + 1} of 6: {title}")).to_be_visible(timeout=20_000)
        if number in (0, 3):
            page.reload()
            expect(page.get_by_text(f"Tour, step {number + 1} of 6: {title}")).to_be_visible(timeout=20_000)
            fits_everywhere(page)
        page.get_by_role("button", name="Next").click()
    other = open_tab(browser, trouble)
    other.goto(f"{dashboard.url}/models")
    expect(other.get_by_text("Tour, step 6 of 6: Done")).to_be_visible(timeout=20_000)
    other.get_by_role("button", name="Go on there").click()
    other.get_by_role("button", name="Finish").click()
    expect(other.get_by_text("Tour, step")).to_have_count(0, timeout=20_000)
    other.context.close()

    # Keys move between pages, and rest while somebody types.
    page.goto(f"{dashboard.url}/home")
    settled(page)
    page.keyboard.press("n")
    page.wait_for_url(re.compile("/wizard$"), timeout=20_000)
    settled(page)
    page.keyboard.press("p")
    page.wait_for_url(re.compile("/playground$"), timeout=20_000)
    settled(page)
    page.get_by_test_id("stChatInputTextArea").click()
    page.keyboard.type("no napping")
    settled(page)
    assert page.url.endswith("/playground") and page.get_by_test_id("stChatInputTextArea").input_value() == "no napping"

    # Settings: a default survives F5; diagnostics can be read.
    page.goto(f"{dashboard.url}/settings")
    field = page.get_by_label("How many examples at once (batch size)", exact=True)
    field.fill("4")
    field.press("Enter")
    settled(page)
    page.reload()
    expect(field).to_have_value("4", timeout=20_000)
    page.get_by_role("button", name="Gather").click()
    expect(page.get_by_text("Last lines of the log")).to_be_visible(timeout=90_000)
    fits_everywhere(page)
