"""A server by URL in a real browser: named in the settings, chosen in the Wizard, paid for by the token, stopped at a limit, gone on with
more; and what lies there afterwards, fetched and deleted. Everything is real: a second server, a runner, a price."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, expect

from engine import Engine
from tests.browser.driving import READY, Dashboard, fits_everywhere, open_tab
from tests.running import files_with, until
from tests.server.harness import KEY, RunningServer

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    made = RunningServer(tmp_path / "lab")
    yield made
    made.stop()


def choose(page: Page, box: str, text: str) -> None:
    """Typed into a select box, as people do where the list is long."""
    field = page.locator(f"{box} input")
    expect(field).to_be_visible(timeout=20_000)
    option = page.get_by_test_id("stSelectboxVirtualDropdown").or_(page.get_by_role("listbox")).get_by_text(text).first
    # A page that is just being redrawn closes what was opened.
    for _ in range(6):
        page.wait_for_selector(READY)
        field.fill("")
        field.press_sequentially(text)
        field.press("ArrowDown")
        with suppress(AssertionError, Error):
            expect(option).to_be_visible(timeout=4_000)
            option.click(timeout=4_000)
            return
        page.keyboard.press("Escape")
    raise AssertionError(f"{text} can't be chosen")


def test_from_naming_a_server_to_clearing_it_up(
    browser: Browser,
    dashboard: Dashboard,
    server: RunningServer,
    thinker_home: Path,
    trouble: list[str],
) -> None:
    page = open_tab(browser, trouble)
    page.goto(f"{dashboard.url}/settings")
    expect(page.get_by_role("heading", name="Servers by URL")).to_be_visible(timeout=30_000)
    page.get_by_text("Name a server", exact=True).click()
    page.locator(".st-key-server-name input").fill("lab")
    page.locator(".st-key-server-url input").fill(server.url)
    page.locator(".st-key-server-key input").fill(KEY)
    page.get_by_role("button", name="Use this server").click()
    page.get_by_role("button", name="Look at it").click()
    expect(page.get_by_text("Models to train:")).to_be_visible(timeout=30_000)
    fits_everywhere(page)
    page.get_by_text("Another price").click()
    choose(page, ".st-key-price-endpoint", "lab")
    page.locator(".st-key-price-train input").fill("5000")
    page.locator(".st-key-price-prefill input").fill("1000")
    page.get_by_role("button", name="Use this price").click()
    expect(page.get_by_role("button", name="Forget your price")).to_be_visible(timeout=20_000)

    with Engine() as engine:
        recipe = {"demo": "piglatin", "held_out_max": 4}
        engine.drafts.update(goal="answer", step=2)
        for field, value in (
            ("data.demo", recipe["demo"]), ("data.held_out_max", 4), ("training.steps", 30), ("training.batch_size", 4),
            ("evaluation.proof", False), ("budget.max_dollars", 20.0),
        ):  # fmt: skip
            engine.drafts.change(field, value)
    page.goto(f"{dashboard.url}/wizard")
    expect(page.get_by_text("1 model to train, up to 1,024 tokens at once")).to_be_visible(timeout=30_000)
    fits_everywhere(page)
    page.locator(".st-key-place-lab button").click()
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("Takes up to 1,024 tokens at once")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_text("more than its limit of $20.00")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("at lab.")).to_be_visible()
    fits_everywhere(page)
    page.get_by_test_id("stMain").get_by_role("button", name="Launch").last.click()
    page.get_by_role("button", name="Start training").click()
    page.get_by_role("button", name="Watch it learn").click()

    expect(page.get_by_text("for its limit is $20.00").first).to_be_visible(timeout=90_000)
    expect(page.get_by_text("of at most $20.00").first).to_be_visible()
    fits_everywhere(page)
    page.locator("[class*=st-key-limit-max_dollars] input").fill("500")
    page.get_by_role("button", name="Raise and resume").click()
    expect(page.get_by_text("● finished")).to_be_visible(timeout=90_000)
    with Engine() as engine:
        [job] = engine.jobs()
        assert [step for step, _ in engine.curve(job.id, "train_loss")] == list(range(1, 31))
        assert 20 < engine.spending.of(job).dollars < 500

    page.goto(f"{dashboard.url}/models")
    page.get_by_text("What is stored at lab").click()
    expect(page.get_by_text("checkpoints, ")).to_be_visible(timeout=30_000)
    fits_everywhere(page)
    choose(page, ".st-key-stored-one-lab", "step 30")
    page.get_by_role("button", name="Download", exact=True).click()
    page.get_by_role("button", name="Pack and fetch").click()
    with page.expect_download(timeout=60_000) as saved:
        page.get_by_role("button", name="Save the zip").click()
    with zipfile.ZipFile(io.BytesIO(Path(saved.value.path()).read_bytes())) as packed:
        assert any(name.endswith("adapter_model.safetensors") for name in packed.namelist())
    page.keyboard.press("Escape")
    with Engine() as engine:
        engine.keys.give("lab", KEY)
        before = {one.path for one in engine.stored.listed("lab")}
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()
    with Engine() as engine:
        until(lambda: len(before - {one.path for one in engine.stored.listed("lab")}) == 1)
        engine.keys.forget("lab")
    assert files_with(KEY, thinker_home) == []
