"""A rehearsal in a real browser: from the Wizard's review to the stamp, which a change takes away, at three widths."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.driving import Dashboard, fits_everywhere, open_tab

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


def test_from_the_review_to_the_stamp(browser: Browser, dashboard: Dashboard, trouble: list[str]) -> None:
    page = open_tab(browser, trouble)
    page.goto(f"{dashboard.url}/wizard")
    page.get_by_role("button", name="Start the demo").click(timeout=30_000)
    expect(page.get_by_text("Rehearse it first?")).to_be_visible(timeout=30_000)
    page.locator(".st-key-rehearse button").click()
    expect(page.get_by_text("Where it runs")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("✓ rehearsed")).to_be_visible(timeout=120_000)
    page.get_by_text("All that was looked at").click()
    expect(page.get_by_text("Saved, paused and gone on")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("Rows as your own model is shown them")).to_be_visible()
    page.get_by_role("button", name="Rehearse again").click()
    expect(page.get_by_text("● rehearsing")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("✓ rehearsed")).to_be_visible(timeout=120_000)
    page.get_by_text("All that was looked at").click()
    expect(page.get_by_text("Saved, paused and gone on")).to_be_visible(timeout=20_000)
    fits_everywhere(page)
    page.locator(".st-key-step-3").get_by_role("button").click()
    rate = page.get_by_role("spinbutton", name="How big each update is").first
    rate.fill("0.004")
    rate.press("Enter")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("Rehearse it first?")).to_be_visible(timeout=30_000)
