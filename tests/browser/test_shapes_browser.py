"""Thumbs, pairs and prompts in a real browser: a thumb pressed, changed and taken back, a data set made of thumbs, pairs side by side."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Browser, expect

from engine import Engine
from engine.playground import Answer, Settings
from tests.browser.driving import Dashboard, fits_everywhere, open_tab
from tests.running import until

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(300)]


def test_from_a_thumb_to_a_data_set_and_pairs_in_the_wizard(browser: Browser, dashboard: Dashboard, trouble: list[str]) -> None:
    with Engine() as engine:
        who = [engine.playground.speaker("base:nano")]
        chat = engine.playground.begin("Upper: hello", who, Settings())
        for prompt, text in (("Upper: hello", "HELLO"), ("Reverse: stone", "stone")):
            engine.playground.keep(chat.id, prompt, [Answer(who[0], text=text, finish="stop")])
        page = open_tab(browser, trouble)
        page.goto(f"{dashboard.url}/playground?chat={chat.id}")
        up, down = (page.get_by_role("radio", name=f"Thumbs {which}").nth(0) for which in ("up", "down"))
        other = page.get_by_role("radio", name="Thumbs down").nth(1)
        expect(other).to_be_visible(timeout=30_000)
        fits_everywhere(page)
        # Pressed, the other pressed, pressed again: the verdict changes and is taken back. F5 keeps what there is.
        for press, wanted in ((up, (1, 0)), (down, (0, 1)), (down, (0, 0)), (up, (1, 0)), (other, (1, 1))):
            press.click()
            until(lambda wanted=wanted: engine.ratings.count() == wanted)
        page.reload()
        expect(other).to_be_visible(timeout=30_000)
        assert engine.ratings.count() == (1, 1)

        page.goto(f"{dashboard.url}/datasets")
        page.get_by_role("button", name="Make a data set of your thumbs").click()
        page.get_by_role("link", name="Thumbs from chats").click()
        expect(page.get_by_text("Answer, found good")).to_be_visible(timeout=20_000)
        expect(page.get_by_text("Answer, found bad")).to_be_visible()
        fits_everywhere(page)

        rows = [{"prompt": f"Shout word{n}", "chosen": f"WORD{n}!", "rejected": f"word{n}", "level": n} for n in range(40)]
        pairs = engine.datasets.add("pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
        page.goto(f"{dashboard.url}/datasets?set={pairs.id}")
        expect(page.get_by_text("Worse (rejected)").first).to_be_visible(timeout=20_000)
        fits_everywhere(page)
        page.get_by_role("link", name="Train on this").click()
        expect(page.get_by_text("The first five, as the model sees them.")).to_be_visible(timeout=30_000)
        expect(page.get_by_role("button", name="Continue")).to_be_enabled()
        fits_everywhere(page)
