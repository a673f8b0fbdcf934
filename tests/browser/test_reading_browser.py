"""What is to be read can be read: a page begins at its beginning on a phone, and what stands over a slider is bright enough."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from engine import Engine, platforms
from engine.playground import Settings
from tests.app.conftest import Runs
from tests.browser.driving import READY, Dashboard, fits, open_tab

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(200)]
AA = 4.5


def scrolled(page: Page) -> list[float]:
    """How far each part of the page is scrolled, of those that are at all."""
    return page.evaluate("[...document.querySelectorAll('*')].map(e => e.scrollTop).filter(top => top > 0)")


def contrast(text: Locator) -> float:
    """Of a text's colour against the page's, by WCAG 2.2."""
    color = text.evaluate("e => getComputedStyle(e).color")
    ground = text.page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
    light, dark = sorted((_luminance(color), _luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(color: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_pages_with_an_input_begin_at_their_beginning(browser: Browser, dashboard: Dashboard, trouble: list[str]) -> None:
    with Engine() as engine:
        engine.settings.set("tour_step", 4)
        engine.settings.set("tour", "on")
    page = open_tab(browser, trouble, width=390)
    page.goto(f"{dashboard.url}/playground")
    expect(page.get_by_text("Tour, step 5 of 6: Playground")).to_be_in_viewport(timeout=20_000)
    page.wait_for_selector(READY)
    page.wait_for_timeout(1500)
    assert scrolled(page) == [] and fits(page)
    expect(page.get_by_role("button", name="Next")).to_be_in_viewport()
    page.goto(f"{dashboard.url}/assistant")
    expect(page.get_by_role("heading", name="Assistant")).to_be_in_viewport(timeout=20_000)
    page.wait_for_timeout(1500)
    assert scrolled(page) == [] and fits(page)

    # A conversation has its input below and is read at its end.
    page.get_by_test_id("stChatInputTextArea").fill("what is LoRA?")
    page.keyboard.press("Enter")
    expect(page.get_by_text("Read on in the guide")).to_be_in_viewport(timeout=20_000)
    expect(page.get_by_test_id("stBottom").get_by_test_id("stChatInputTextArea")).to_be_visible()
    assert fits(page)


def test_what_stands_over_sliders_is_bright_enough(browser: Browser, dashboard: Dashboard, thinker_home: Path, trouble: list[str]) -> None:
    with Engine() as engine:
        runs = Runs(engine)
        job = runs.running("Poet")
        runs.go_on(job, 41, 60)
    page = open_tab(browser, trouble)
    # No runner may find a run whose runner isn't there, and begin it anew.
    held = (thinker_home / "runner.lock").open("ab")
    assert platforms.lock_file(held)
    page.goto(f"{dashboard.url}/training?job={job.id}")
    value = page.get_by_test_id("stSlider").get_by_text("60 (now)").first
    expect(value).to_be_visible(timeout=20_000)
    assert contrast(value) >= AA
    page.goto(f"{dashboard.url}/playground")
    page.get_by_role("button", name="Settings").click()
    settings = Settings()
    for shown in (f"{settings.temperature:.2f}", f"{settings.top_p:.2f}"):
        value = page.get_by_test_id("stSlider").get_by_text(shown).first
        expect(value).to_be_visible(timeout=20_000)
        assert contrast(value) >= AA, shown
    held.close()
