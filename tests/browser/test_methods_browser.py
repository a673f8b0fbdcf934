"""The demos of methods from the Wizard in a real browser, with few updates: one click each, to the charts and the proof."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from engine import Engine, knowledge
from tests.browser.driving import READY, Dashboard, fits, open_tab

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]
# What is tried, and the charts that its page must show.
SHOWN = {
    "prefer": ("preference_accuracy", "chosen_reward"),
    "score": ("dead_groups", "answer_length"),
    "judged": ("preference_accuracy", "kl"),
    "imitate": ("grad_norm",),
}
FEW = {"steps": 3, "batch_size": 4}


def small(changes: dict[str, Any]) -> dict[str, Any]:
    """The same stages with few updates and little to measure."""
    changes = copy.deepcopy(changes)
    changes["training"] = {**changes.get("training", {}), **FEW}
    changes["data"] |= {"held_out_max": 12}
    measured = {"skills_max": 8, "eval_every": 2, "samples_every": 2, "max_new_tokens": 16}
    changes["evaluation"] = {**changes.get("evaluation", {}), **measured}
    for stage in changes["then"]:
        stage["training"] = {**stage.get("training", {}), **FEW}
        if "data" in stage:
            stage["data"] |= {"held_out_max": 12}
        for part, less in {"rl": {"group_size": 2, "max_new_tokens": 8}, "reward_model": {"steps": 3, "go_on": True}}.items():
            if part in stage or stage["method"] in (part, "rlhf"):
                stage[part] = {**stage.get(part, {}), **less}
        if stage["method"] == "distill":
            stage["distill"] = {**stage["distill"], "max_new_tokens": 12}
    return changes


def test_each_method_from_a_click_to_its_proof(browser: Browser, dashboard: Dashboard, trouble: list[str]) -> None:
    page = open_tab(browser, trouble)
    for goal, charts in SHOWN.items():
        page.goto(f"{dashboard.url}/wizard")
        page.wait_for_selector(READY)
        page.locator(f".st-key-try-{goal} button").first.click()
        expect(page.get_by_role("heading", name="Ready to start?")).to_be_visible(timeout=20_000)
        with Engine() as engine:
            draft = engine.drafts.get()
            engine.drafts.update(changes=small(draft.changes))
        page.reload()
        expect(page.get_by_role("heading", name="Ready to start?")).to_be_visible(timeout=20_000)
        page.wait_for_selector(READY)
        page.get_by_test_id("stMain").get_by_role("button", name="Launch").last.click()
        page.get_by_role("button", name="Start training").click()
        page.get_by_role("button", name="Watch it learn").click(timeout=30_000)
        page.wait_for_url(re.compile(r"/training\?job=[0-9a-f]{12}$"), timeout=30_000)
        expect(page.get_by_text("● finished")).to_be_visible(timeout=120_000)
        expect(page.get_by_role("heading", name="The proof")).to_be_visible(timeout=20_000)
        expect(page.get_by_text(re.compile("against the model that its last stage began with by")).first).to_be_visible()
        expect(page.get_by_test_id("stVegaLiteChart").first.locator("canvas, svg").first).to_be_visible(timeout=20_000)
        for chart in charts:
            title = knowledge.metric(chart)["title"]
            expect(page.get_by_text(title).first).to_be_attached(timeout=20_000)
        page.wait_for_selector(READY)
        assert fits(page), goal
        with Engine() as engine:
            job = engine.jobs(limit=1)[0]
            assert set(charts) <= set(engine.metric_names(job.id)), goal
            stages = [stage.recipe.method for stage in job.recipe.stages()]
        assert stages[1:] == {"prefer": ["dpo"], "score": ["rl"], "judged": ["reward_model", "rl"], "imitate": ["distill"]}[goal]
