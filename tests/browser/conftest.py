"""What holds for every test in a browser: a busy machine is given time to draw a page."""

from __future__ import annotations

from playwright.sync_api import expect

expect.set_options(timeout=20_000)
