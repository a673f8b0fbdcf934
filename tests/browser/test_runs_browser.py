"""Runs in a real browser: warned and tried again, followed live, asked at every checkpoint, laid over each other, on any screen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from engine import Engine
from tests.browser.driving import WIDTHS, Dashboard, fits, open_tab, settled
from tests.running import end_processes

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def trained(thinker_home: Path) -> Iterator[str]:
    """A run of a few steps at a rate far below what the model wants."""
    changes = {
        "name": "Timid",
        "training": {"steps": 40, "batch_size": 4, "learning_rate": 5e-6},
        "evaluation": {"eval_every": 10, "samples_every": 10, "skills_max": 4, "max_new_tokens": 16},
        "data": {"held_out_max": 8},
        "checkpoints": {"every_steps": 20},
    }
    with Engine() as engine:
        yield engine.run(engine.demo_recipe("piglatin", changes)).job_id
    end_processes(thinker_home)


def test_from_a_warning_to_a_better_run_and_both_compared(trained: str, browser: Browser, dashboard: Dashboard, trouble: list[str]) -> None:
    page = open_tab(browser, trouble)
    page.goto(f"{dashboard.url}/training?job={trained}")
    expect(page.get_by_text("far below what suits the model")).to_be_visible(timeout=30_000)

    # What is drawn survives F5.
    page.get_by_text("Log scale").click()
    page.wait_for_url(re.compile("log=true"))
    page.reload()
    expect(page.get_by_role("switch", name="Log scale")).to_be_checked(timeout=20_000)

    # Every checkpoint answers one prompt of the person's own.
    prompt = page.get_by_role("textbox", name="One prompt for every checkpoint")
    prompt.fill("Pig Latin: keyboard")
    page.get_by_role("button", name="Ask them all").click()
    expect(page.get_by_text("3 answered")).to_be_visible(timeout=60_000)
    expect(page.get_by_text("step 40", exact=True).first).to_be_visible()

    # Another name, and what to copy.
    page.get_by_role("button", name="Rename").first.click()
    page.get_by_role("dialog").get_by_role("textbox", name="Name").fill("Too timid")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(page.get_by_role("heading", name="Too timid")).to_be_visible(timeout=20_000)

    # The doctor's advice, in one press; a value that can't be is told in the dialog.
    page.get_by_role("button", name="Try again with learning rate 0.005").first.click()
    dialog = page.get_by_role("dialog")
    rate = dialog.get_by_role("textbox", name="Learning rate")
    expect(rate).to_have_value("0.005", timeout=20_000)
    rate.fill("quick")
    rate.press("Tab")
    dialog.get_by_role("button", name="Start training").click()
    expect(dialog.get_by_text("learning_rate")).to_be_visible(timeout=20_000)
    rate.fill("0.005")
    rate.press("Tab")
    steps = dialog.get_by_role("spinbutton", name="Steps (updates)")
    steps.fill("400")
    steps.press("Tab")
    dialog.get_by_role("button", name="Start training").click()
    expect(page.get_by_text("● learning")).to_be_visible(timeout=60_000)

    # A dialog stays open while the run goes on beneath it.
    page.get_by_role("button", name="Copy as …").click()
    expect(page.get_by_role("dialog").get_by_text("--set").or_(page.get_by_role("dialog").get_by_text("piglatin")).first).to_be_visible()
    page.wait_for_timeout(2500)
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("● finished")).to_be_visible(timeout=120_000)
    better = re.search(r"job=([0-9a-f]{12})", page.url)[1]
    assert better != trained

    # Both over each other, with what they differ in, and the choice in the address.
    page.goto(f"{dashboard.url}/analytics?runs={trained},{better}")
    expect(page.get_by_text("2 runs compared")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("Held-out loss ended lowest in Too timid again")).to_be_visible()
    page.get_by_role("radio", name="tokens").or_(page.get_by_role("button", name="tokens", exact=True)).first.click()
    page.wait_for_url(re.compile("x=tokens"))
    page.reload()
    expect(page.get_by_text("2 runs compared")).to_be_visible(timeout=20_000)
    with page.expect_download() as download:
        page.get_by_role("button", name="Curves (CSV)").click()
    assert Path(download.value.path()).read_text().startswith("run,tokens,value\n")

    # The list, narrowed; and nothing scrolls sideways anywhere.
    for width in WIDTHS:
        screen = open_tab(browser, trouble, width)
        for path in ("training", "training?state=failed", f"training?job={better}", f"analytics?runs={trained},{better}"):
            screen.goto(f"{dashboard.url}/{path}")
            settled(screen)
            assert fits(screen), (width, path)
        screen.context.close()
