"""Two people at one server, in a real browser: each sees their own, after F5 and a restart too; a spoilt cookie leads to nobody's.

The server listens on loopback and is asked by another name, as a proxy would have it: that makes visitors of all who come so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from engine import Engine
from tests.browser.driving import READY, WIDTHS, Dashboard, fits, launched
from tests.fakes.proxy import Proxy

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]
NAME = "thinker.test"


@pytest.fixture
def script() -> str:
    return "app/serve.py"


@pytest.fixture
def dashboard(thinker_home: Path, tmp_path: Path, script: str) -> Iterator[Dashboard]:
    with Dashboard(thinker_home, tmp_path / "dashboard.log", script) as made:
        yield made


@pytest.fixture
def browser(chromium: str) -> Iterator[Browser]:
    with launched(chromium, f"--host-resolver-rules=MAP {NAME} 127.0.0.1") as made:
        yield made


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "mine_alone.jsonl"
    file.write_text("".join(f'{{"prompt": "Shout {n}", "completion": "{n}!"}}\n' for n in range(20)))
    return file


def tab(context: BrowserContext, trouble: list[str]) -> Page:
    page = context.new_page()
    page.on("pageerror", lambda error: trouble.append(f"page error: {error}"))
    return page


def visit(page: Page, dashboard: Dashboard, path: str = "datasets", host: str = NAME) -> None:
    page.goto(f"http://{host}:{dashboard.port}/{path}")
    page.wait_for_timeout(500)
    page.wait_for_selector(READY, timeout=30_000)


def upload(page: Page, file: Path) -> str:
    """-> the data set's id."""
    page.locator("input[type=file]").first.set_input_files(file)
    expect(page.get_by_role("link", name=re.compile("mine_alone")).first).to_be_visible(timeout=20_000)
    page.get_by_role("link", name=re.compile("mine_alone")).first.click()
    page.wait_for_url(re.compile(r"set=[0-9a-f]{12}"))
    return page.url.partition("set=")[2][:12]


def cookie(context: BrowserContext) -> dict:
    return next(found for found in context.cookies() if found["name"] == "thinker_visitor")


def test_each_visitor_has_their_own(browser: Browser, dashboard: Dashboard, rows: Path, thinker_home: Path, trouble: list[str]) -> None:
    ann, bob = browser.new_context(), browser.new_context()
    anns, bobs = tab(ann, trouble), tab(bob, trouble)
    visit(anns, dashboard)
    expect(anns.get_by_text("You are a visitor here")).to_be_visible()
    expect(anns.get_by_text("finds it again for 30 days")).to_be_visible()
    kept = cookie(ann)
    assert (kept["httpOnly"], kept["sameSite"], kept["secure"]) == (True, "Lax", False)
    assert (thinker_home / "visitors.key").stat().st_mode & 0o077 == 0
    assert anns.evaluate("document.cookie").find("thinker_visitor") < 0
    dataset = upload(anns, rows)

    visit(bobs, dashboard)
    assert cookie(bob)["value"] != kept["value"]
    expect(bobs.get_by_text("mine_alone")).to_have_count(0)
    visit(bobs, dashboard, f"datasets?set={dataset}")
    expect(bobs.get_by_text(re.compile("there is no data set", re.IGNORECASE)).first).to_be_visible()
    expect(bobs.get_by_text("Shout 1")).to_have_count(0)

    # The same person after F5, in a second tab and after a restart of the dashboard.
    anns.reload()
    anns.wait_for_selector(READY)
    expect(anns.get_by_text("mine_alone").first).to_be_visible()
    dashboard.stop()
    dashboard.start()
    second = tab(ann, trouble)
    visit(second, dashboard, f"datasets?set={dataset}")
    expect(second.get_by_text("mine_alone").first).to_be_visible()
    assert cookie(ann)["value"] == kept["value"]

    # A cookie that was tampered with makes a new visitor, who gets a cookie that counts.
    spoilt = kept["value"][:-1] + ("0" if kept["value"][-1] != "0" else "1")
    ann.add_cookies([{**kept, "value": spoilt}])
    visit(second, dashboard)
    expect(second.get_by_text("You are a visitor here")).to_be_visible()
    expect(second.get_by_text("mine_alone")).to_have_count(0)
    assert cookie(ann)["value"] not in (spoilt, kept["value"])

    # Whoever sits at the machine is somebody else again, and is told nothing of visitors.
    mine = tab(browser.new_context(), trouble)
    visit(mine, dashboard, host="127.0.0.1")
    expect(mine.get_by_text("mine_alone")).to_have_count(0)
    expect(mine.get_by_text("You are a visitor")).to_have_count(0)
    with Engine() as engine, engine.store.read() as connection:
        owners = {row[0] for row in connection.exec_driver_sql("SELECT owner FROM datasets")}
        assert len(owners) == 1 and all(owner.startswith("visitor-") for owner in owners)


@pytest.mark.parametrize("script", ["app/main.py"])
def test_without_cookies_a_visitor_lasts_as_long_as_the_tab(browser: Browser, dashboard: Dashboard, rows: Path, trouble: list[str]) -> None:
    context = browser.new_context()
    page = tab(context, trouble)
    visit(page, dashboard)
    expect(page.get_by_text("once this tab is closed or reloaded")).to_be_visible()
    assert not [found for found in context.cookies() if found["name"] == "thinker_visitor"]
    upload(page, rows)
    page.reload()
    page.wait_for_selector(READY)
    page.wait_for_timeout(500)
    visit(page, dashboard)
    expect(page.get_by_text("mine_alone")).to_have_count(0)


@pytest.mark.parametrize(
    ("setting", "origin"),
    [("STREAMLIT_SERVER_ENABLE_CORS=false", False), ("STREAMLIT_BROWSER_SERVER_ADDRESS=thinker.test", True), ("THINKER_SHARED=1", True)],
)
def test_a_proxy_that_hides_makes_nobody_the_machines_own_person(
    setting: str, origin: bool, browser: Browser, thinker_home: Path, tmp_path: Path, trouble: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*setting.split("="))
    with Dashboard(thinker_home, tmp_path / "dashboard.log") as made:
        with Proxy(made.port, origin=origin) as proxy:
            page = tab(browser.new_context(), trouble)
            page.goto(f"http://{NAME}:{proxy.port}/datasets")
            expect(page.get_by_text("You are a visitor here")).to_be_visible(timeout=30_000)
            expect(page.get_by_text("finds it again for 30 days")).to_be_visible()


def test_unless_it_is_set_up_for_one_a_proxy_gets_nowhere(browser: Browser, dashboard: Dashboard, trouble: list[str]) -> None:
    """Streamlit refuses sessions that come from elsewhere than the host that they name."""
    with Proxy(dashboard.port) as proxy:
        page = tab(browser.new_context(), trouble)
        # It asks, is refused, and asks again.
        with page.expect_websocket(timeout=60_000):
            page.goto(f"http://{NAME}:{proxy.port}/datasets")
        with page.expect_websocket(timeout=60_000):
            pass
        expect(page.get_by_role("heading", name="Datasets")).to_have_count(0)


def test_pages_fit_with_the_note(browser: Browser, dashboard: Dashboard, trouble: list[str]) -> None:
    page = tab(browser.new_context(), trouble)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        visit(page, dashboard, "wizard")
        assert fits(page)
