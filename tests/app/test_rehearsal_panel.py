"""The rehearsal in the Wizard's review and on a run's page, profiles in the Wizard, previews among a run's answers."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from engine import Engine, Recipe
from engine import rehearsals as module
from engine.rehearsing.report import Check
from engine.store import Rehearsal
from tests.app.conftest import Runs, open_page, texts
from tests.app.test_wizard_page import open_wizard

FENCED = "\n".join(json.dumps({"prompt": f"n {n}", "completion": f'```json\n{{"n": {n}}}\n```'}) for n in range(40)).encode()


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    begun: list[str] = []
    monkeypatch.setattr(module, "_spawn", lambda rehearsal_id, held: begun.append(rehearsal_id))
    return begun


def tell(engine: Engine, found: Rehearsal, *checks: Check, state: str = "") -> None:
    steps = [{"stage": 1, "steps": 100, "tokens": 1300, "seconds": 0.2, "on": "nano"}]
    rendered = [
        {"stage": 1, "method": "sft", "row": 4, "side": "", "tokens": 9, "pieces": [["ask", False], ["said", True]], "expected": ""}
    ]
    report = {"model": "nano", "checks": [asdict(check) for check in checks], "steps": steps, "rendered": rendered, "rewards": []}
    report |= {"answers": [{"prompt": "Pig Latin: word", "answer": "ord-way", "expected": "ord-way"}]}
    assert engine.store.tell_rehearsal(found.id, report=report, state=state)


def review(engine: Engine, **training: object) -> object:
    engine.drafts.update(goal="demo", step=4, changes={"data": {"demo": "piglatin"}, "training": training})
    return open_wizard()


def test_the_review_offers_it_and_says_when_it_is_worth_it(engine: Engine) -> None:
    page = review(engine)
    assert not page.exception and "Rehearse it first?" in texts(page) and "recommended" not in texts(page)
    page = review(engine, steps=100_000)
    assert "recommended" in texts(page) and "this try takes a minute or so" in texts(page)


def test_from_the_button_to_the_stamp(engine: Engine, no_process: list[str]) -> None:
    page = review(engine)
    page.button(key="rehearse").click().run()
    assert not page.exception and len(no_process) == 1 and "rehearsing" in texts(page)
    found = engine.rehearsals.get(no_process[0])
    tell(
        engine,
        found,
        Check("data", "The data", "ok", "4,478 to learn from", stage=1),
        Check("learning", "Learning, small", "running", "learning"),
    )
    page.run()
    assert "The data" in texts(page) and "4,478 to learn from" in texts(page)
    care = Check("data", "The data", "care", "3 rows are left out", "Give an answer.", "line 7, completion", 1)
    tell(engine, found, care, Check("learning", "Learning, small", "ok", "3 updates"), state="passed")
    page = review(engine)
    shown = texts(page)
    assert not page.exception and "✓ rehearsed" in shown and "Where: line 7, completion. What to do: Give an answer." in shown
    assert "All that was looked at (2)" in [box.label for box in page.expander]
    page = review(engine, learning_rate=0.001)
    assert "Rehearse it first?" in texts(page), "a change takes the stamp away"


@pytest.mark.parametrize(
    ("state", "said"), [("failed", "would fail"), ("stopped", "stopped"), ("lost", "cut off"), ("checked", "looked at")]
)
def test_each_end(engine: Engine, no_process: list[str], state: str, said: str) -> None:
    page = review(engine)
    page.button(key="rehearse").click().run()
    wrong = Check("model", "The model", "failed", "there is no such model folder", "Check the path.", "recipe base_model")
    tell(engine, engine.rehearsals.get(no_process[0]), wrong, state=state)
    page = review(engine)
    assert not page.exception and said in texts(page) and "There is no such model folder" in texts(page)
    page.button(key="rehearse").click().run()
    assert len(no_process) == 2


def test_it_can_be_stopped(engine: Engine, no_process: list[str]) -> None:
    page = review(engine)
    page.button(key="rehearse").click().run()
    page.button(key="rehearsal-stop").click().run()
    assert engine.rehearsals.get(no_process[0]).state == "stopped"


def test_a_runs_page_shows_its_stamp(engine: Engine, runs: Runs) -> None:
    recipe = engine.demo_recipe("piglatin", {"name": "Stamped"})
    found = engine.rehearsals.start(recipe)
    tell(engine, found, state="passed")
    stamped, plain = engine.launch(recipe), engine.launch(recipe.merged({"seed": 5}))
    assert "before it was launched, on nano" in texts(open_page(job=stamped.id))
    page = open_page(job=plain.id)
    assert not page.exception and "before it was launched" not in texts(page)


def test_a_profile_is_chosen_and_its_effect_shown(engine: Engine) -> None:
    kept = engine.datasets.add("fenced.jsonl", FENCED)
    engine.drafts.update(goal="answer", step=3, changes={"data": {"dataset": kept.id}})
    page = open_wizard()
    box = next(one for one in page.selectbox if one.label.startswith("Profile"))
    assert box.value == "" and "JSON only" in box.options
    box.set_value("JSON only").run()
    assert engine.drafts.get().changes["profile"] == "JSON only"
    shown = texts(page)
    assert not page.exception and '{"n":' in shown and "```json" in shown and "before and after" in shown
    assert engine.planner.suggest(engine.drafts.get().changes).recipe.stop == ("\n",)
    next(one for one in page.text_input if one.label.startswith("Keep these")).set_value("Mine").run()
    page.button(key="profile-save").click().run()
    assert [profile.name for profile in engine.profiles.list() if profile.own] == ["Mine"]
    box = next(one for one in page.selectbox if one.label.startswith("Profile"))
    box.set_value("Mine").run()
    assert not page.exception and engine.drafts.get().changes["profile"] == "Mine"
    page.button(key="profile-delete-0").click().run()
    assert not [profile for profile in engine.profiles.list() if profile.own]
    # What is gone is said; another choice goes on.
    page = open_wizard()
    assert "no profile called" in texts(page).lower()
    next(one for one in page.selectbox if one.label.startswith("Profile")).set_value("").run()
    assert not page.exception and "profile" not in engine.drafts.get().changes and not page.button(key="continue").disabled


def test_rows_that_a_profile_leaves_out_are_told(engine: Engine) -> None:
    kept = engine.datasets.add("mixed.jsonl", FENCED + b'\n{"prompt": "a", "completion": "no json"}')
    engine.drafts.update(goal="answer", step=3, changes={"data": {"dataset": kept.id}, "profile": "JSON only"})
    page = open_wizard()
    assert not page.exception and "1 of" in texts(page) and "left out by these changes" in texts(page)


def test_previews_stand_among_the_answers(engine: Engine, runs: Runs) -> None:
    told = {"previews": ["Pig Latin: keyboard", {"prompt": "Pig Latin: mouse", "expected": "ouse-may"}]}
    job = engine.store.create_job(Recipe.make(engine.demo_recipe("piglatin", {"evaluation": told}).model_dump(mode="json")))
    claimed = engine.store.claim_job("test", lease_s=3600, job_id=job.id)
    engine.store.transition(job.id, "training", attempt=claimed.attempt)
    runs.go_on(claimed, 1, 20)
    sample = {"step": 20, "position": 1001, "prompt": "Pig Latin: mouse", "expected": "ouse-may", "answer": "ouse-may", "correct": True}
    speed = [{"step": 20, "name": "preview_tokens_per_second", "value": 420.0}]
    engine.store.record(job.id, claimed.attempt, samples=[sample], metrics=speed)
    page = open_page(job=job.id)
    shown = texts(page)
    assert not page.exception and "Your own prompts" in shown and "420 tokens/s" in shown
    assert "1 of 2 right" in shown, "those of its own are counted apart"
    assert "passed over at this step: no answer within 10 s" in shown
