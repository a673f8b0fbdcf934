"""Driving the real dashboard in a real browser: its process, tabs that note what goes wrong in them, and what each page has to hold to."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.running import ROOT, dashboard_answers, dashboard_process, free_port, until

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
READY = '[data-testid="stApp"][data-test-script-state="notRunning"]'
WIDTHS = (1440, 1024, 390)
# Streamlit's own, which no page can change: the rule, and what the element looks like. Its field for files is said to be a mere
# picture though it can be told from others by name, and a block of code that is wider than a phone can't be reached by keyboard.
NOT_OURS = {"presentation-role-conflict": "stFileUploaderDropzone", "scrollable-region-focusable": "<pre"}
# A phone's page may be scrolled down, never sideways.
FITS = """() => document.documentElement.scrollWidth <= window.innerWidth
    && [...document.querySelectorAll('[data-testid=stMain]')].every(main => main.scrollWidth <= main.clientWidth)"""


class Dashboard:
    """`streamlit run`, on a port of its own. A context manager that says what it logged."""

    def __init__(self, home: Path, log: Path, script: str = "app/serve.py", folder: Path = ROOT, port: int = 0):
        self._home, self._log, self._script, self._folder = home, log, script, folder
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        home.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        """Once more at the same address, where it was killed or stopped."""
        self.process: subprocess.Popen = dashboard_process(self._home, self.port, self._log, self._script, self._folder)
        until(self._answers, 60)

    @property
    def is_light(self) -> bool:
        """Whether PyTorch isn't in its memory, as far as the system tells."""
        maps = Path(f"/proc/{self.process.pid}/maps")
        return not maps.exists() or "libtorch" not in maps.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(20)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)

    def __enter__(self) -> Dashboard:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        print(self._log.read_text())

    def _answers(self) -> bool:
        assert self.process.poll() is None, "the dashboard ended"
        return dashboard_answers(self.port)


@contextmanager
def launched(chromium: str | None, *flags: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, *flags])
        yield made
        made.close()


def open_tab(browser: Browser, trouble: list[str], width: int = WIDTHS[0]) -> Page:
    """A fresh visitor; whatever goes wrong in the tab is noted in `trouble`."""
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    page.on("pageerror", lambda error: trouble.append(f"page error: {error}"))
    page.on("console", lambda message: trouble.append(f"console: {message.text}") if _complaint(message) else None)
    page.on("request", lambda request: None if _inside(request.url) else trouble.append(f"outside: {request.url}"))
    page.on(
        "response", lambda reply: trouble.append(f"{reply.status}: {reply.url}") if reply.status >= 400 and not _probe(reply.url) else None
    )
    page.on("requestfailed", lambda request: None if _left_behind(request) else trouble.append(f"failed: {request.url} {request.failure}"))
    return page


def _complaint(message: Any) -> bool:
    """What didn't load is noted by its address, which the console doesn't always name."""
    return message.type == "error" and not message.text.startswith("Failed to load resource")


def _inside(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:"))


def _probe(url: str) -> bool:
    """On a deep link Streamlit's page asks for its server below that path first, and then at the root."""
    return bool(re.search(r"/\w+/_stcore/(health|host-config)$", url))


def _left_behind(request: Any) -> bool:
    """A reload gives up what was still under way."""
    return request.failure == "net::ERR_ABORTED"


def settled(page: Page) -> None:
    """What was asked for is on its way, and then it is there."""
    page.wait_for_timeout(300)
    page.wait_for_selector(READY, timeout=60_000)


def fits(page: Page) -> bool:
    return page.evaluate(FITS)


def fits_everywhere(page: Page) -> None:
    """At every width; it is left as wide as it comes."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        settled(page)
        assert fits(page), f"{page.url} scrolls sideways at {width} px"
    page.set_viewport_size({"width": WIDTHS[0], "height": 900})
    settled(page)


def violations(page: Page) -> list[str]:
    """What axe-core finds, but for what is Streamlit's."""
    found: list[dict[str, Any]] = Axe().run(page).response["violations"]
    return [
        f"{rule['id']} ({rule['impact']}): {node['html'][:200]} {node['failureSummary'][:200]}"
        for rule in found
        for node in rule["nodes"]
        if not (rule["id"] in NOT_OURS and NOT_OURS[rule["id"]] in node["html"])
    ]
