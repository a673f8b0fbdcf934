"""What holds for every test in a browser: a busy machine is given time. And a browser, a dashboard, what went wrong in them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.driving import Dashboard, launched
from tests.running import end_processes

expect.set_options(timeout=20_000)


@pytest.fixture
def browser(chromium: str) -> Iterator[Browser]:
    with launched(chromium) as made:
        yield made


@pytest.fixture
def dashboard(thinker_home: Path, tmp_path: Path) -> Iterator[Dashboard]:
    with Dashboard(thinker_home, tmp_path / "dashboard.log") as made:
        yield made
    end_processes(thinker_home)


@pytest.fixture
def trouble() -> Iterator[list[str]]:
    """What went wrong in the tabs; nothing may. Name it last: it is looked at first, while all that it speaks of still runs."""
    found: list[str] = []
    yield found
    assert not found, "\n".join(found)
