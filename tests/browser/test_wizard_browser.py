"""The Wizard in a real browser: its steps at three widths, a file of one's own, and the demo from the first click to the run's page."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Browser, Page, expect

from engine import Engine
from tests.browser.driving import Dashboard, fits_everywhere, open_tab

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]
ROWS = "\n".join(json.dumps({"frage": f"say {n}", "antwort": f"it is {n}"}) for n in range(80))


def settled(page: Page, heading: str) -> None:
    """The step is there, and fits at every width."""
    expect(page.get_by_role("heading", name=heading)).to_be_visible(timeout=20_000)
    fits_everywhere(page)


def test_own_data_step_by_step_and_the_demo_to_its_run(browser: Browser, dashboard: Dashboard, trouble: list[str]) -> None:
    page = open_tab(browser, trouble)
    page.goto(f"{dashboard.url}/wizard")
    settled(page, "What should the model learn?")
    page.get_by_role("button", name="Choose: answer questions").click()
    page.get_by_role("button", name="Continue").click()
    settled(page, "What does it learn from?")
    page.locator("input[type=file]").set_input_files({"name": "own.jsonl", "mimeType": "application/json", "buffer": ROWS.encode()})
    expect(page.get_by_text("can't tell how the rows are laid out")).to_be_visible(timeout=20_000)
    page.get_by_role("button", name="Read it so").click()
    expect(page.get_by_text("Every row can be used")).to_be_visible(timeout=20_000)
    page.reload()
    expect(page.get_by_text("Every row can be used")).to_be_visible(timeout=20_000)
    for heading in ("Where should it train?", "How should it learn?", "Ready to start?"):
        page.get_by_role("button", name="Continue").click()
        settled(page, heading)
    page.get_by_role("button", name="Expert form").click()
    settled(page, "Checkpoints")
    page.get_by_role("button", name="Start over").click()

    # The demo: four clicks, nothing typed.
    page.get_by_role("button", name="Start the demo").click()
    settled(page, "Ready to start?")
    page.get_by_test_id("stMain").get_by_role("button", name="Launch").last.click()
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_role("heading", name="What happens next")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("loading model weights").or_(page.get_by_text("learning")).first).to_be_visible(timeout=60_000)
    page.get_by_role("button", name="Watch it learn").click()
    page.wait_for_url(re.compile(r"/training\?job=[0-9a-f]{12}$"), timeout=30_000)
    expect(page.get_by_role("heading", name="Pig Latin", exact=True)).to_be_visible(timeout=20_000)


def test_two_tabs_that_start_one_draft_start_one_run(browser: Browser, dashboard: Dashboard, trouble: list[str]) -> None:
    tabs = [open_tab(browser, trouble) for _ in range(2)]
    for page in tabs:
        page.goto(f"{dashboard.url}/wizard")
        if page is tabs[0]:
            page.get_by_role("button", name="Start the demo").click()
        settled(page, "Ready to start?")
        page.get_by_test_id("stMain").get_by_role("button", name="Launch").last.click()
        expect(page.get_by_role("button", name="Start training")).to_be_visible(timeout=20_000)
    # The click is the page's own, so that neither waits for what the other's brings about.
    for page in tabs:
        page.get_by_role("button", name="Start training").evaluate("button => setTimeout(() => button.click(), 300)")
    for page in tabs:
        expect(page.get_by_role("heading", name="What happens next")).to_be_visible(timeout=20_000)
    addresses = {page.url.partition("?")[2] for page in tabs}
    with Engine() as engine:
        [job] = engine.jobs()
    assert addresses == {f"job={job.id}"}
