"""Every page, with nothing and with some of everything there: no sideways scrolling, nothing on the console, axe-core content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from app import navigation
from tests.browser.furnished import Furniture, furnish
from tests.browser.test_training_browser import FLAGS, READY, Dashboard, fits, open_tab
from tests.running import end_processes

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(420)]

WIDTHS = (1440, 1024, 390)
# Streamlit's own, which no page can change: the rule, and what the element looks like. Its field for files is said to be a mere
# picture though it can be told from others by name, and a block of code that is wider than a phone can't be reached by keyboard.
NOT_OURS = {"presentation-role-conflict": "stFileUploaderDropzone", "scrollable-region-focusable": "<pre"}


@pytest.fixture
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield made
        made.close()


@pytest.fixture
def furniture(thinker_home: Path, tmp_path: Path) -> Iterator[Furniture]:
    yield furnish(tmp_path, steps=20)
    end_processes(thinker_home)


@pytest.fixture
def dashboard(thinker_home: Path, tmp_path: Path) -> Iterator[Dashboard]:
    thinker_home.mkdir(parents=True, exist_ok=True)
    made = Dashboard(thinker_home, tmp_path / "dashboard.log")
    yield made
    made.stop()
    print((tmp_path / "dashboard.log").read_text())


def settled(page: Page) -> None:
    page.wait_for_timeout(600)
    page.wait_for_selector(READY, timeout=30_000)
    page.wait_for_timeout(400)


def violations(page: Page) -> list[str]:
    """What axe-core finds, but for what is Streamlit's."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:200]} {node['failureSummary'][:200]}"
        for rule in found
        for node in rule["nodes"]
        if not (rule["id"] in NOT_OURS and NOT_OURS[rule["id"]] in node["html"])
    ]


def look(browser: Browser, dashboard: Dashboard, addresses: list[str]) -> list[str]:
    """What is wrong anywhere."""
    wrong: list[str] = []
    for address in addresses:
        trouble: list[str] = []
        page = open_tab(browser, trouble)
        page.goto(f"{dashboard.url}/{address}")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            settled(page)
            if not fits(page):
                wrong.append(f"{address} scrolls sideways at {width} px")
            if page.get_by_test_id("stException").count():
                wrong.append(f"{address}: {page.get_by_test_id('stException').first.inner_text()}")
            if width != 1024:
                wrong += [f"{address} at {width} px: {violation}" for violation in violations(page)]
        wrong += [f"{address}: {text}" for text in trouble]
        page.context.close()
    return wrong


def test_every_page_with_nothing_there(browser: Browser, dashboard: Dashboard) -> None:
    assert not look(browser, dashboard, [entry.url_path for entry in navigation.PAGES])


def test_every_page_with_some_of_everything(browser: Browser, furniture: Furniture, dashboard: Dashboard) -> None:
    assert not look(browser, dashboard, [*(entry.url_path for entry in navigation.PAGES), *furniture.addresses().values()])
