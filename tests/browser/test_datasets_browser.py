"""The Datasets page in a real browser: files good and bad, columns told apart, rows and tokens, taking away, F5 and a restart."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from engine import Engine
from engine.recipe import Recipe
from tests.browser.driving import Dashboard, fits_everywhere, open_tab

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """One that is well, one with unknown columns, one that can't be read, one with rows that can't be used."""
    folder = tmp_path / "files"
    folder.mkdir()
    rows = [{"prompt": f"Shout word{n}", "completion": f"WORD{n}!\n  twice"} for n in range(40)]
    contents = {
        "shouts.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
        "table.csv": "frage,antwort\nWer?,Ich\nWas?,Das\n",
        "broken.json": '[{"prompt": "a" "completion": "b"}]',
        "flawed.jsonl": "".join(json.dumps(row) + "\n" for row in [*rows[:12], {"prompt": "Q", "completion": ""}, {"prompt": "Q"}]),
    }
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in contents]


def test_files_come_are_looked_into_and_go(
    browser: Browser, dashboard: Dashboard, files: list[Path], thinker_home: Path, trouble: list[str]
) -> None:
    page = open_tab(browser, trouble)
    page.goto(f"{dashboard.url}/datasets")
    expect(page.get_by_text("this is what a file looks like")).to_be_visible(timeout=20_000)
    fits_everywhere(page)

    # Four files at once, each told of; three are kept.
    page.locator("input[type=file]").set_input_files(files)
    expect(page.get_by_text("● not kept")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("Where: broken.json, line 1")).to_be_visible()
    expect(page.get_by_text("the answer is empty (line 13, completion)")).to_be_visible()
    fits_everywhere(page)
    page.get_by_role("button", name="Use it without these 2 rows").click()
    expect(page.get_by_text("can't be used")).to_have_count(0, timeout=10_000)
    page.get_by_role("button", name="Say which column is which").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_test_id("stDataFrame")).to_be_visible(timeout=10_000)
    dialog.get_by_role("button", name="Read it so").click()
    expect(dialog).to_have_count(0, timeout=10_000)
    expect(page.get_by_text("needs its columns")).to_have_count(0)

    # F5 puts the reports aside and keeps the files; so does a kill of the dashboard.
    page.reload()
    expect(page.get_by_role("link", name="shouts")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("● not kept")).to_have_count(0)
    page.goto("about:blank")
    dashboard.kill()
    dashboard.start()
    page.goto(f"{dashboard.url}/datasets")
    page.get_by_role("link", name="shouts").click()
    page.wait_for_url(re.compile(r"/datasets\?set=[0-9a-f]{12}$"), timeout=20_000)
    expect(page.get_by_text(re.compile(r"Shout word3$"))).to_be_visible(timeout=20_000)
    fits_everywhere(page)

    # Rows: pages, search, and from one of them to its tokens, which F5 keeps.
    page.get_by_role("button", name="Page 4").click()
    expect(page.get_by_text(re.compile(r"Shout word39$"))).to_be_visible(timeout=10_000)
    page.get_by_role("textbox", name="Search").fill("word17!")
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 row of 40 hold")).to_be_visible(timeout=10_000)
    page.get_by_role("button", name="Its tokens").click()
    expect(page.get_by_text("Learned: the model is trained to write this")).to_be_visible(timeout=20_000)
    page.reload()
    expect(page.get_by_text("Learned: the model is trained to write this")).to_be_visible(timeout=20_000)
    expect(page.get_by_role("spinbutton", name="Example")).to_have_value("18")
    fits_everywhere(page)
    assert dashboard.is_light
    page.get_by_text("Figures", exact=True).click()
    expect(page.get_by_test_id("stVegaLiteChart").locator("canvas, svg").first).to_be_visible(timeout=20_000)
    fits_everywhere(page)

    page.get_by_role("button", name="Download", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name="As chats (JSONL)").click()
    kept = [json.loads(line) for line in Path(download.value.path()).read_text(encoding="utf-8").splitlines()]
    assert len(kept) == 40 and kept[3]["messages"][1]["content"] == "WORD3!\n  twice"
    assert download.value.suggested_filename == "shouts.chats.jsonl"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("textbox", name="Name").fill("Loud words")
    page.get_by_test_id("stFormSubmitButton").get_by_role("button", name="Rename").click()
    expect(page.get_by_role("heading", name="Loud words")).to_be_visible(timeout=10_000)

    # From here to a run: the wizard opens with it chosen.
    page.get_by_role("link", name="Train on this").click()
    expect(page.get_by_role("heading", name="shouts.jsonl")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("Every row can be used")).to_be_visible()
    page.get_by_role("link", name="Look inside").click()
    expect(page.get_by_role("heading", name="Loud words")).to_be_visible(timeout=20_000)

    # A run that waits for its turn keeps it from being deleted.
    with Engine() as engine:
        held = engine.store.create_job(Recipe.make({"data": {"dataset": page.url.split("set=")[1][:12]}, "name": "Busy"}))
        page.reload()
        page.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_role("button", name="Delete for good").click()
        expect(page.get_by_text("is waiting its turn and needs it")).to_be_visible(timeout=10_000)
        engine.stop(held.id)
    page.keyboard.press("Escape")
    page.reload()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_role("link", name="flawed")).to_be_visible(timeout=20_000)
    expect(page.get_by_role("link", name="Loud words")).to_have_count(0)
    assert len(list((thinker_home / "datasets").iterdir())) == 2
