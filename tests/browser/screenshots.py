"""The pictures in the documentation: `python -m tests.browser.screenshots [FOLDER]`, by default docs/images.

Fills a data directory by training, asking and failing for real, opens the dashboard on it and takes each page at 1440 px, and a few
at 390 px as well. Isn't collected by pytest.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page

from app import navigation
from engine import Engine, platforms
from tests.browser.driving import READY, Dashboard, launched
from tests.browser.furnished import furnish
from tests.running import ROOT, end_processes, until

PHONE = ("home", "wizard", "run")


def settled(page: Page) -> None:
    page.wait_for_timeout(1500)
    page.wait_for_selector(READY, timeout=60_000)
    page.wait_for_timeout(1000)


def take(browser: Browser, url: str, file: Path, width: int = 1440, height: int = 900) -> None:
    """The page as it is first seen; nothing below the fold, for nobody reads a picture of that length."""
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.goto(url)
    settled(page)
    page.screenshot(path=file)
    page.context.close()
    print(f"{file.name}  {file.stat().st_size / 1024:.0f} kB", flush=True)


def live(browser: Browser, dashboard: Dashboard, folder: Path) -> None:
    """A run while it learns."""
    with Engine() as engine:
        job = engine.launch(engine.demo_recipe("camelcase", {"training": {"steps": 300}}))
        until(lambda: engine.job(job.id).step > 30, 120)
        take(browser, f"{dashboard.url}/training?job={job.id}", folder / "live.png", height=1100)
        engine.stop(job.id)
        until(lambda: not engine.moving(engine.job(job.id)), 120)


def main(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="thinker-pictures-") as place:
        home = Path(place) / "home"
        os.environ["THINKER_HOME"] = str(home)
        try:
            with Dashboard(home, Path(place) / "dashboard.log") as dashboard, launched(platforms.find_chromium()) as browser:
                take(browser, f"{dashboard.url}/home", folder / "welcome.png")
                furniture = furnish(Path(place), say=lambda text: print(f"... {text}", flush=True))
                live(browser, dashboard, folder)
                pages = {entry.url_path: entry.url_path for entry in navigation.PAGES}
                pages |= {name.replace(" ", "-"): address for name, address in furniture.addresses().items()}
                for name, address in pages.items():
                    take(browser, f"{dashboard.url}/{address}", folder / f"{name}.png")
                    if name in PHONE:
                        take(browser, f"{dashboard.url}/{address}", folder / f"{name}-phone.png", width=390, height=844)
        finally:
            end_processes(home)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"))
