"""The Assistant in a real browser: from a click to a run that learns, F5, a cold link, and what fits at three widths."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Browser, Error, Locator, Page, expect

from tests.browser.driving import Dashboard, fits_everywhere, open_tab, settled, violations

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


def say(page: Page, text: str) -> None:
    page.get_by_test_id("stChatInputTextArea").fill(text)
    page.keyboard.press("Enter")


def well(page: Page) -> None:
    """It fits, and axe-core has nothing to say."""
    fits_everywhere(page)
    assert not violations(page)


def conversations(page: Page, wanted: Locator) -> None:
    """Opens the list, once more where the page was just being drawn anew and closed it again."""
    for _ in range(4):
        button = page.get_by_role("button", name="Conversations")
        # While a page makes room for another, the one before is still there.
        expect(button).to_have_count(1, timeout=20_000)
        button.click()
        try:
            expect(wanted).to_be_visible(timeout=4000)
        except AssertionError:
            settled(page)
        else:
            settled(page)
            if wanted.is_visible():
                return
    raise AssertionError("the list of conversations doesn't stay open")


def test_from_a_sentence_to_a_run(browser: Browser, dashboard: Dashboard, trouble: list[str]) -> None:
    page = open_tab(browser, trouble)
    page.goto(f"{dashboard.url}/assistant")
    expect(page.get_by_text("Say what you want in plain English")).to_be_visible(timeout=30_000)
    well(page)

    say(page, "what can this computer do?")
    expect(page.get_by_text("CPU cores")).to_be_visible(timeout=20_000)
    page.wait_for_url(re.compile(r"/assistant\?talk=[0-9a-f]{12}$"))
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    well(page)
    page.get_by_role("button", name="Show me the one-minute demo").click()
    expect(page.get_by_role("button", name="Start training")).to_be_visible(timeout=30_000)
    say(page, "use 40 stpes")
    expect(page.get_by_text("in 40 updates of 32")).to_be_visible(timeout=20_000)
    well(page)

    address = page.url
    page.reload()
    expect(page.get_by_text("in 40 updates of 32")).to_be_visible(timeout=20_000)
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_text(re.compile(r"\bStarted$")).last).to_be_visible(timeout=20_000)
    expect(page.get_by_role("button", name="Start training")).to_have_count(0)
    # Live, without a click: it is being tested or learns, then it is done.
    expect(page.get_by_text(re.compile(r"^● (learning|being tested)$")).first).to_be_visible(timeout=90_000)
    well(page)
    expect(page.get_by_text(re.compile(r"right on 400 new prompts"))).to_be_visible(timeout=120_000)
    expect(page.get_by_role("link", name="Chat with it")).to_be_visible()
    say(page, "how did it go?")
    expect(page.get_by_text("On 400 prompts it had never seen")).to_be_visible(timeout=20_000)

    # A cold link in another browser, the list of conversations, a new one, and the end of this one.
    page.context.close()
    page = open_tab(browser, trouble, width=390)
    page.goto(address)
    expect(page.get_by_text("On 400 prompts it had never seen")).to_be_visible(timeout=30_000)
    settled(page)
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_text("Say what you want in plain English")).to_be_visible(timeout=20_000)
    conversations(page, page.get_by_role("link", name="what can this computer do?"))
    page.get_by_role("link", name="what can this computer do?").click()
    expect(page.get_by_text("On 400 prompts it had never seen")).to_be_visible(timeout=20_000)
    settled(page)
    # The list may have stayed open across the link, or be about to close.
    page.reload()
    expect(page.get_by_text("On 400 prompts it had never seen")).to_be_visible(timeout=20_000)
    settled(page)
    for _ in range(4):
        # What opens while the page still grows may come to stand beside it; opened again it stands where it should.
        conversations(page, page.get_by_text("Delete it for good"))
        try:
            page.get_by_text("Delete it for good").click(timeout=5_000)
            break
        except Error:
            page.keyboard.press("Escape")
            settled(page)
    settled(page)
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_text("Say what you want in plain English")).to_be_visible(timeout=20_000)
