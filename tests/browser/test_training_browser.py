"""The newcomer's first run, in a real browser, against the real dashboard: nothing is made up, the model learns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.driving import READY, Dashboard, fits, open_tab

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(420)]


def step_of(page: Page) -> int:
    found = re.search(r"Step ([\d,]+) of", page.locator(".stProgress").inner_text())
    return int(found[1].replace(",", "")) if found else 0


def test_a_newcomer_teaches_a_model_and_sees_the_proof(browser: Browser, dashboard: Dashboard, trouble: list[str]) -> None:
    page = open_tab(browser, trouble)
    page.goto(f"{dashboard.url}/training")
    page.get_by_role("button", name="Teach it Pig Latin (one-minute demo)").click()
    page.wait_for_url(re.compile(r"/training\?job=[0-9a-f]{12}$"), timeout=20_000)
    address = page.url

    # Live, without a touch: steps are counted, the loss is drawn, the model speaks.
    expect(page.get_by_text("● learning")).to_be_visible(timeout=90_000)
    page.wait_for_function("/Step ([1-9]\\d*) of 100/.test(document.querySelector('.stProgress')?.innerText)", timeout=60_000)
    first = step_of(page)
    expect(page.get_by_test_id("stVegaLiteChart").first.locator("canvas, svg").first).to_be_visible(timeout=20_000)
    expect(page.get_by_text("expected").first).to_be_visible(timeout=20_000)
    page.wait_for_function(
        f"Number(document.querySelector('.stProgress')?.innerText.match(/Step (\\d+)/)?.[1]) > {first + 2}", timeout=30_000
    )
    assert dashboard.is_light

    # A link that is opened cold, on a phone, shows the same run.
    phone = open_tab(browser, trouble, width=390)
    phone.goto(address)
    expect(phone.get_by_role("heading", name="Pig Latin", exact=True)).to_be_visible(timeout=20_000)
    phone.wait_for_selector(READY)
    assert fits(phone)
    phone.context.close()

    # F5 keeps the run.
    page.reload()
    expect(page.get_by_role("heading", name="Pig Latin", exact=True)).to_be_visible(timeout=20_000)
    assert page.url == address

    expect(page.get_by_role("heading", name="The proof")).to_be_visible(timeout=180_000)
    expect(page.get_by_text("● finished")).to_be_visible()
    sentence = page.get_by_text("prompts it had never seen").inner_text()
    before, after = re.search(r"([\d.]+) % → ([\d.]+) %", sentence).groups()
    assert float(before) < 5 and float(after) > 90, sentence
    expect(page.get_by_text('python thinker.py chat --model "Pig Latin"')).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Metrics (CSV)").click()
    assert len(Path(download.value.path()).read_text().splitlines()) == 102

    # The dashboard is killed under a second run: the run doesn't mind, and the next dashboard finds it.
    page.get_by_role("link", name="All runs").click()
    page.get_by_role("button", name="Teach it Pig Latin again").click()
    expect(page.get_by_text("● learning")).to_be_visible(timeout=90_000)
    path = page.url.removeprefix(dashboard.url)
    page.context.close()
    dashboard.kill()
    dashboard.start()
    page = open_tab(browser, trouble)
    page.goto(dashboard.url + path)
    page.wait_for_function("Number(document.querySelector('.stProgress')?.innerText.match(/Step (\\d+)/)?.[1]) >= 5", timeout=60_000)

    # It is paused, goes on from there, and is stopped and kept.
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("● paused")).to_be_visible(timeout=30_000)
    paused_at = step_of(page)
    assert 5 <= paused_at < 100
    expect(page.get_by_text("when it was paused")).to_be_visible()
    # A key does what the button does.
    page.keyboard.press("k")
    expect(page.get_by_text("● learning")).to_be_visible(timeout=60_000)
    page.wait_for_function(
        f"Number(document.querySelector('.stProgress')?.innerText.match(/Step (\\d+)/)?.[1]) > {paused_at}", timeout=60_000
    )
    page.get_by_role("button", name="Stop and keep").click()
    expect(page.get_by_text("● stopped early")).to_be_visible(timeout=30_000)

    # Deleting asks first.
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("heading", name="Training", exact=True)).to_be_visible(timeout=20_000)
    expect(page.get_by_text("● finished")).to_have_count(1)
