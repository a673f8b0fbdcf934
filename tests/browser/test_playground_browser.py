"""Playground and Models in a real browser, against the real dashboard and the real server, with a model that was trained for it."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from engine import Engine
from tests.browser.driving import Dashboard, fits_everywhere, open_tab, settled
from tests.running import cli, end_processes, server_records

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(420)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory in which Pig Latin was learned, without the proof."""
    made = tmp_path_factory.mktemp("playground") / "home"
    made.mkdir()
    done = cli(made, "train", "--demo", "piglatin", "--set", "evaluation.proof=false", "--set", "evaluation.samples_every=0", timeout=200)
    assert done.code == 0, done.err
    yield made
    end_processes(made)


@pytest.fixture
def dashboard(home: Path, tmp_path: Path) -> Iterator[Dashboard]:
    with Dashboard(home, tmp_path / "dashboard.log") as made:
        yield made


def say(page: Page, text: str) -> None:
    settled(page)
    page.get_by_test_id("stChatInputTextArea").fill(text)
    page.keyboard.press("Enter")


def test_chats(browser: Browser, dashboard: Dashboard, home: Path, trouble: list[str]) -> None:
    page = open_tab(browser, trouble)
    page.goto(f"{dashboard.url}/playground")
    page.get_by_role("button", name="Pig Latin: hello").click()
    # What is typed into the box below while the first answer is still coming stays there.
    page.wait_for_url(re.compile(r"chat=[0-9a-f]{12}"))
    page.get_by_test_id("stBottom").get_by_test_id("stChatInputTextArea").fill("Pig Latin: keyboard")
    expect(page.get_by_text("ello-hay")).to_be_visible(timeout=60_000)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0, timeout=60_000)
    settled(page)
    expect(page.get_by_test_id("stChatInputTextArea")).to_have_value("Pig Latin: keyboard")
    page.keyboard.press("Enter")
    expect(page.get_by_text("eyboard-kay")).to_be_visible(timeout=20_000)
    assert dashboard.is_light

    # F5 keeps it, and a kill of the dashboard does too.
    address = page.url
    page.reload()
    expect(page.get_by_text("eyboard-kay")).to_be_visible(timeout=20_000)
    page.context.close()
    dashboard.kill()
    dashboard.start()
    page = open_tab(browser, trouble)
    page.goto(dashboard.url + re.sub(r"^http://[^/]+", "", address))
    expect(page.get_by_text("eyboard-kay")).to_be_visible(timeout=20_000)

    page.get_by_role("button", name="Probabilities", exact=True).last.click()
    expect(page.get_by_text("90 % or more: sure")).to_be_visible(timeout=20_000)
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    page.get_by_role("button", name="Hide probabilities").click()
    expect(page.get_by_test_id("stDataFrame")).to_have_count(0)

    # Side by side, by a link that stands in the address.
    page.get_by_role("button", name="New chat").click()
    page.get_by_role("link", name="side by side").click()
    page.wait_for_url(re.compile(r"with=base%3Anano"))
    settled(page)
    say(page, "Pig Latin: streams")
    expect(page.get_by_text("eams-stray")).to_be_visible(timeout=20_000)
    expect(page.get_by_test_id("stChatMessage")).to_have_count(3)
    page.reload()
    expect(page.get_by_test_id("stChatMessage")).to_have_count(3, timeout=20_000)
    fits_everywhere(page)

    # A server that doesn't answer: one can look again (F5), stop, and ask again once it does.
    server = psutil.Process(server_records(home)[0]["pid"])
    server.suspend()
    try:
        say(page, "Pig Latin: patience")
        expect(page.get_by_role("button", name="Stop")).to_be_visible(timeout=10_000)
        page.reload()
        expect(page.get_by_text("Pig Latin: patience")).to_be_visible(timeout=20_000)
        page.get_by_role("button", name="Stop").click(timeout=10_000)
        expect(page.get_by_text("stopped").first).to_be_visible(timeout=15_000)
    finally:
        server.resume()
    page.get_by_role("button", name="Ask again").click()
    expect(page.get_by_text("atience-pay")).to_be_visible(timeout=30_000)
    expect(page.get_by_text("stopped")).to_have_count(0)

    # A server that is killed is started anew.
    server.kill()
    server.wait(20)
    say(page, "Pig Latin: morning")
    expect(page.get_by_text("orning-may")).to_be_visible(timeout=60_000)

    page.get_by_role("button", name="Chats").click()
    page.get_by_role("textbox", name="Name").fill("Two at once")
    page.get_by_role("button", name="Rename").click()
    settled(page)
    other = page.get_by_role("link", name="Pig Latin: hello")
    if not other.is_visible():
        page.get_by_role("button", name="Chats").click()
    other.click()
    expect(page.get_by_text("eyboard-kay")).to_be_visible(timeout=20_000)
    settled(page)
    if not page.get_by_role("link", name="Two at once").is_visible():
        page.get_by_role("button", name="Chats").click()
    expect(page.get_by_role("link", name="Two at once")).to_be_visible()
    page.get_by_role("button", name="Delete this chat for good").click()
    expect(page.get_by_text("Talk to Pig Latin")).to_be_visible(timeout=20_000)


def test_models(browser: Browser, dashboard: Dashboard, home: Path, trouble: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    page = open_tab(browser, trouble)
    monkeypatch.setenv("THINKER_HOME", str(home))
    page.goto(f"{dashboard.url}/models")
    page.get_by_role("link", name="Pig Latin", exact=True).click()
    page.wait_for_url(re.compile(r"/models\?model=[0-9a-f]{12}$"))
    page.reload()
    expect(page.get_by_role("heading", name="Where it comes from")).to_be_visible(timeout=20_000)
    fits_everywhere(page)
    with page.expect_download() as download:
        page.get_by_test_id("stDownloadButton").get_by_role("button").click()
    names = zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())).namelist()
    assert "Pig-Latin/adapter_model.safetensors" in names and download.value.suggested_filename == "Pig-Latin.zip"
    page.get_by_role("textbox", name="Notes").fill("good at words")
    page.get_by_role("button", name="Save notes").click()
    expect(page.get_by_text("Notes are saved")).to_be_visible(timeout=10_000)
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("textbox", name="Name").fill("Poet")
    page.get_by_test_id("stFormSubmitButton").get_by_role("button", name="Rename").click()
    expect(page.get_by_role("heading", name="Poet")).to_be_visible(timeout=10_000)
    page.get_by_role("button", name="Chat", exact=True).click()
    expect(page.get_by_text("Talk to Poet")).to_be_visible(timeout=20_000)
    page.go_back()
    expect(page.get_by_role("heading", name="Poet")).to_be_visible(timeout=20_000)
    with Engine() as engine:
        own = engine.models()[0].sampler_path.rsplit("/", 1)[-1]
    assert list(home.glob(f"checkpoints/*/*/{own}/adapter_model.safetensors"))
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_text("No tuned model yet")).to_be_visible(timeout=20_000)
    with Engine() as engine:
        assert engine.models() == [] and engine.jobs()[0].state == "done"
    assert not list(home.glob(f"checkpoints/*/*/{own}/adapter_model.safetensors"))
