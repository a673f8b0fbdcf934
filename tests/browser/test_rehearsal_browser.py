"""A rehearsal in a real browser: from the Wizard's review to the stamp, which a change takes away, at three widths."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.test_training_browser import READY, Dashboard, browser, dashboard, fits, open_tab  # noqa: F401

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


def test_from_the_review_to_the_stamp(browser: Browser, dashboard: Dashboard) -> None:  # noqa: F811
    trouble: list[str] = []
    page = open_tab(browser, trouble)
    page.goto(f"{dashboard.url}/wizard")
    page.get_by_role("button", name="Start the demo").click(timeout=30_000)
    expect(page.get_by_text("Rehearse it first?")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Rehearse", exact=False).last.click()
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
    for width in (1440, 1024, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_selector(READY)
        assert fits(page), width
    page.set_viewport_size({"width": 1440, "height": 900})
    page.get_by_role("button", name="Settings", exact=False).last.click()
    rate = page.get_by_role("spinbutton", name="How big each update is").first
    rate.fill("0.004")
    rate.press("Enter")
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("Rehearse it first?")).to_be_visible(timeout=30_000)
    assert not trouble, "\n".join(trouble)
