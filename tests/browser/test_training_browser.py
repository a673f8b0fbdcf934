"""The newcomer's first run, in a real browser, against the real dashboard: nothing is made up, the model learns."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from engine import platforms
from tests.running import ROOT, end_processes, environment, until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(420)]

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
READY = '[data-testid="stApp"][data-test-script-state="notRunning"]'


class Dashboard:
    """`streamlit run`, on a port of its own."""

    def __init__(self, home: Path, log: Path, script: str = "app/serve.py", folder: Path = ROOT):
        self._home, self._log, self._script, self._folder = home, log, script, folder
        self.start()

    def start(self) -> None:
        port = self.port_to_come()
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "streamlit", "run", str(ROOT / self._script)]
        command += ["--server.port", str(port), "--server.address", "127.0.0.1"]
        command += ["--server.headless", "true"]
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(command, cwd=self._folder, env=environment(self._home), stdout=output, stderr=output)
        until(self._answers, 60)

    @staticmethod
    def port_to_come() -> int:
        """One that is free, and not the first that another run of these tests would look at."""
        first = os.getpid() % 200
        return next(port for port in (8700 + (first + n) % 200 for n in range(200)) if platforms.port_is_free(port))

    def libraries(self) -> str | None:
        """What the process has in memory; None where the system doesn't tell."""
        maps = Path(f"/proc/{self.process.pid}/maps")
        return maps.read_text() if maps.exists() else None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the dashboard ended"
        with suppress(OSError):
            return build_opener(ProxyHandler({})).open(f"{self.url}/_stcore/health", timeout=2).read() == b"ok"
        return False


@pytest.fixture
def dashboard(thinker_home: Path, tmp_path: Path) -> Iterator[Dashboard]:
    thinker_home.mkdir(parents=True, exist_ok=True)
    made = Dashboard(thinker_home, tmp_path / "dashboard.log")
    yield made
    made.stop()
    end_processes(thinker_home)
    print((tmp_path / "dashboard.log").read_text())


@pytest.fixture
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield made
        made.close()


def open_tab(browser: Browser, trouble: list[str], width: int = 1400) -> Page:
    """A fresh visitor; whatever goes wrong in the tab is noted in `trouble`."""
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    page.on("pageerror", lambda error: trouble.append(f"page error: {error}"))
    page.on(
        "console",
        lambda message: trouble.append(f"console: {message.text}") if message.type == "error" and not _probe(_at(message)) else None,
    )
    page.on("request", lambda request: None if _inside(request.url) else trouble.append(f"outside: {request.url}"))
    page.on(
        "response", lambda reply: trouble.append(f"{reply.status}: {reply.url}") if reply.status >= 400 and not _probe(reply.url) else None
    )
    page.on("requestfailed", lambda request: None if _left_behind(request) else trouble.append(f"failed: {request.url} {request.failure}"))
    return page


def _at(message) -> str:
    return message.location.get("url", "")


def _inside(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:"))


def _probe(url: str) -> bool:
    """On a deep link Streamlit's page asks for its server below that path first, and then at the root."""
    return bool(re.search(r"/\w+/_stcore/(health|host-config)$", url))


def _left_behind(request) -> bool:
    """A reload gives up what was still under way."""
    return request.failure == "net::ERR_ABORTED"


def step_of(page: Page) -> int:
    found = re.search(r"Step ([\d,]+) of", page.locator(".stProgress").inner_text())
    return int(found[1].replace(",", "")) if found else 0


def fits(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_newcomer_teaches_a_model_and_sees_the_proof(browser: Browser, dashboard: Dashboard) -> None:
    trouble: list[str] = []
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
    libraries = dashboard.libraries()
    assert libraries is None or "libtorch" not in libraries

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
    assert not trouble, "\n".join(trouble)
