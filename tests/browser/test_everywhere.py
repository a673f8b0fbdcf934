"""Every page, with nothing and with some of everything there: no sideways scrolling, nothing on the console, axe-core content."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from app import navigation
from tests.browser.driving import WIDTHS, Dashboard, fits, open_tab, settled, violations
from tests.browser.furnished import Furniture, furnish
from tests.running import end_processes

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture
def furniture(thinker_home: Path, tmp_path: Path) -> Iterator[Furniture]:
    yield furnish(tmp_path, steps=20)
    end_processes(thinker_home)


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
