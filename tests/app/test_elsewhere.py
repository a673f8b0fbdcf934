"""Servers by URL, prices, limits and what is stored elsewhere, on the screen; a real server answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import update
from streamlit.testing.v1 import AppTest

from engine import Engine, keys
from engine.store import schema
from tests.app.conftest import ROOT, Runs, open_page, texts
from tests.server.harness import KEY, RunningServer

SETTINGS, WIZARD, MODELS = (str(ROOT / "pages" / f"{name}.py") for name in ("settings", "wizard", "models"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    made = RunningServer(tmp_path_factory.mktemp("lab"))
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TINKER_BASE_URL", "http://127.0.0.1:9")
    yield
    for owner, name in keys.held():
        keys.unhold(owner, name)


def press(test: AppTest, label: str) -> AppTest:
    return next(button for button in test.button if button.label == label).click().run()


def test_a_server_is_named_looked_at_and_forgotten(engine: Engine, server: RunningServer, thinker_home: Path) -> None:
    test = open_page(SETTINGS)
    test.text_input(key="server-name").set_value("lab")
    test.text_input(key="server-url").set_value(server.url)
    test.text_input(key="server-key").set_value(KEY)
    press(test, "Use this server")
    assert "**lab**" in texts(test) and server.url in texts(test) and KEY not in texts(test)
    assert KEY not in repr(test.session_state._state.filtered_state)
    test.button(key="server-look-lab").click().run()
    shown = texts(test)
    assert "Models to train:** nano" in shown and "cross_entropy" in shown and not test.exception
    assert not [button for button in test.button if button.label == "Try out the rest"], "ours tells all of it"

    engine.drafts.update(goal="answer", step=2)
    engine.drafts.change("data.demo", "piglatin")
    wizard = open_page(WIZARD)
    assert "lab" in texts(wizard) and "1 model to train" in texts(wizard) and "Training all weights" in texts(wizard)
    wizard.button(key="place-lab").click().run()
    assert engine.drafts.get().changes["endpoint"] == "lab"

    test.button(key="server-forget-lab").click().run()
    assert engine.remotes.all() == [] and not keys.held() and not test.exception


def test_a_server_that_cant_be_is_told(engine: Engine) -> None:
    test = open_page(SETTINGS)
    test.text_input(key="server-name").set_value("Lab 1")
    test.text_input(key="server-url").set_value("http://127.0.0.1:9")
    press(test, "Use this server")
    assert "small letters" in texts(test) and not engine.remotes.all()
    engine.remotes.add("gone", "http://127.0.0.1:9", needs_key=False)
    test = open_page(SETTINGS)
    test.button(key="server-look-gone").click().run()
    assert "can't be reached" in texts(test) and not test.exception


def test_ones_own_price(engine: Engine) -> None:
    test = open_page(SETTINGS)
    assert "2026-07-17" in texts(test)
    test.selectbox(key="price-endpoint").set_value("tinker")
    test.text_input(key="price-model").set_value("Qwen/Qwen3-8B")
    test.number_input(key="price-train").set_value(9.5)
    press(test, "Use this price")
    assert engine.spending.price("tinker", "Qwen/Qwen3-8B").train == 9.5
    test.button(key="price-forget-tinker-Qwen/Qwen3-8B").click().run()
    assert engine.spending.price("tinker", "Qwen/Qwen3-8B").train == 0.44 and not test.exception


def priced(engine: Engine, runs: Runs) -> str:
    """A run that counted, where tokens cost."""
    engine.spending.change("local", "nano", {"prefill": 1.0, "sample": 5.0, "train": 10.0})
    job = runs.running()
    counted = {0: (100_000, 20_000, 0), job.step: (100_000, 20_000, 130_000)}
    names = ("prefill_tokens", "sample_tokens", "train_tokens")
    rows = [{"step": step, "name": name, "value": value} for step, row in counted.items() for name, value in zip(names, row, strict=True)]
    engine.store.record(job.id, job.attempt, metrics=rows)
    return job.id


def test_what_a_run_costs(engine: Engine, runs: Runs) -> None:
    job_id = priced(engine, runs)
    # 0.1 + 0.1 dollars of proof, 1.30 for 40 of 100 steps: 1.50 so far; 1.95 more to learn, 0.20 for the proof after.
    spent = engine.spending.of(engine.job(job_id))
    assert (spent.dollars, spent.projected) == (pytest.approx(1.5), pytest.approx(1.5 + 1.95 + 0.2))
    assert spent.text == "$1.50, about $3.65 in all"
    assert "$1.50, about $3.65 in all" in texts(open_page(job=job_id)) and "130,000" in texts(open_page(job=job_id))
    assert "$1.50" in repr([card.spent for card in engine.runs.cards()])


def test_a_run_at_its_limit_goes_on_with_a_higher_one(engine: Engine, runs: Runs, nothing_starts: list[str]) -> None:
    job_id = priced(engine, runs)
    job = engine.job(job_id)
    engine.store.transition(job.id, "stopping", attempt=job.attempt)
    error = {"kind": "BudgetSpent", "message": "the run stops at $1.50, for its limit is $1.60", "next_step": "Raise it.", "where": ""}
    engine.store.transition(job.id, "stopped", attempt=job.attempt, error=error)
    limited = job.recipe.merged({"budget": {"max_dollars": 1.6}}).to_json()
    with engine.store.write() as connection:
        connection.execute(update(schema.jobs).where(schema.jobs.c.id == job.id).values(recipe=limited))
    test = open_page(job=job_id)
    assert "its limit is $1.60" in texts(test) and not [button for button in test.button if button.label == "Resume"]
    test.number_input(key=f"limit.max_dollars.{job_id}").set_value(1.2)
    press(test, "Raise and resume")
    assert engine.job(job_id).state == "stopped" and "already" in texts(test)
    test.number_input(key=f"limit.max_dollars.{job_id}").set_value(5.0)
    press(test, "Raise and resume")
    assert engine.job(job_id).state == "queued" and engine.job(job_id).recipe.budget.max_dollars == 5.0 and not test.exception


@pytest.mark.slow
def test_what_is_stored_elsewhere(engine: Engine, server: RunningServer) -> None:
    engine.remotes.add("lab", server.url, key=KEY)
    changes = {"endpoint": "lab", "training": {"steps": 2, "batch_size": 2}, "data": {"held_out_max": 2}}
    changes["evaluation"] = {"proof": False, "samples_every": 0, "eval_every": 0}
    result = engine.run(engine.demo_recipe("piglatin", changes))
    model = engine.models(result.job_id)[0]
    page = open_page(MODELS, model=model.id)
    assert "files are gone" not in texts(page) and any(button.label == "Chat" for button in page.button)

    test = open_page(MODELS)
    assert not test.selectbox, "it is asked only once somebody looks"
    test.session_state["stored-lab"] = True
    test.run()
    assert " checkpoints, " in texts(test) and not test.exception
    test.selectbox(key="stored-one-lab").set_value(model.sampler_path).run()
    test.button(key=f"publish-{model.sampler_path}").click().run()
    assert next(one for one in engine.stored.listed("lab") if one.path == model.sampler_path).public
    test.selectbox(key=f"expiry-when-{model.sampler_path}").set_value("in a week").run()
    test.button(key=f"expiry-{model.sampler_path}").click().run()
    assert next(one for one in engine.stored.listed("lab") if one.path == model.sampler_path).expires_at
    assert "can't answer any more" in texts(test), "a model stands on it"
    test.button(key=f"delete-{model.sampler_path}").click().run()
    assert model.sampler_path not in {one.path for one in engine.stored.listed("lab")} and not test.exception
