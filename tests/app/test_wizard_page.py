"""The Wizard in each of its steps, the expert form, and a run's start."""

from __future__ import annotations

import json
import re

from streamlit.testing.v1 import AppTest

from engine import Engine
from tests.app.conftest import ROOT, Runs, texts

WIZARD = str(ROOT / "pages" / "wizard.py")
GOOD = "\n".join(json.dumps({"prompt": f"word {n}", "completion": f"WORD {n}"}) for n in range(80)).encode()


def open_wizard(**query: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
    test.switch_page(WIZARD)
    for name, value in query.items():
        test.query_params[name] = value
    return test.run()


def test_the_demo_is_one_click_from_the_review(engine: Engine) -> None:
    page = open_wizard()
    assert not page.exception
    assert "Try the one-minute demo" in texts(page) and page.button(key="continue").disabled
    page.button(key="goal-demo").click().run()
    assert not page.exception
    shown = texts(page)
    assert "nano learns from 4,478 examples" in shown and "in 100 updates of 32" in shown
    for title in ("Time", "Memory", "Money"):
        assert f"**{title}** :green-badge[small]" in shown
    assert not page.button(key="launch").disabled


def test_a_reload_finds_the_draft_where_it_was_left(engine: Engine) -> None:
    open_wizard().button(key="goal-demo").click().run()
    page = open_wizard()
    assert "Ready to start?" in texts(page)
    page.button(key="step-3").click().run()
    assert "How should it learn?" in texts(page)
    page.button(key="discard").click().run()
    assert "What should the model learn?" in texts(page)


def test_each_step_forth_and_back(engine: Engine) -> None:
    page = open_wizard()
    page.button(key="goal-answer").click().run()
    assert "When it doesn't" in texts(page)
    page.button(key="continue").click().run()
    assert page.button(key="continue").disabled
    engine.drafts.update(changes={"data": {"dataset": engine.datasets.add("words.jsonl", GOOD).id}})
    page.run()
    assert re.search(r":green\[WORD \d+<\|end\|>\]", texts(page))
    page.button(key="continue").click().run()
    assert "This machine" in texts(page) and "optional" in texts(page)
    page.button(key="continue").click().run()
    assert "enough for 72 examples" in texts(page)
    page.button(key="continue").click().run()
    assert not page.exception and "nano learns from 72 examples" in texts(page)
    for heading in ("How should it learn?", "Where should it train?", "What does it learn from?", "What should the model learn?"):
        page.button(key="back").click().run()
        assert heading in texts(page)


def test_bad_data_says_why_and_goes_no_further(engine: Engine) -> None:
    kept = engine.datasets.add("odd.jsonl", b'{"a": "1"}\n{"a": "2"}\n')
    engine.drafts.update(goal="answer", step=1, changes={"data": {"dataset": kept.id}})
    page = open_wizard()
    assert not page.exception
    assert "can't tell how the rows are laid out" in texts(page) and "isn't clear what in them is asked" in texts(page)
    assert page.button(key="continue").disabled
    engine.drafts.update(step=4)
    page = open_wizard()
    assert not page.exception and page.error


def test_a_link_begins_with_a_data_set(engine: Engine) -> None:
    kept = engine.datasets.add("words.jsonl", GOOD)
    engine.drafts.update(goal="demo", step=4, changes={"data": {"demo": "piglatin"}})
    page = open_wizard(data=kept.id)
    assert not page.exception and "data" not in page.query_params
    draft = engine.drafts.get()
    assert draft.data() == {"dataset": kept.id} and draft.step == 1 and "demo" not in engine.planner.goals()[draft.goal]
    assert "### words.jsonl" in texts(page) and not page.button(key="continue").disabled
    engine.drafts.update(step=4)
    assert "nano learns from 72 examples" in texts(open_wizard())
    page = open_wizard(data="feedface0000")
    assert "There is no data set feedface0000" in page.warning[0].value and engine.drafts.get().data() == {"dataset": kept.id}
    engine.datasets.delete(kept.id)
    page = open_wizard()
    assert not page.exception and page.error and not [button for button in page.button if button.key == "launch"]


def test_a_setting_is_kept_and_a_warning_follows(engine: Engine) -> None:
    engine.drafts.update(goal="demo", step=3, reached=4, changes={"data": {"demo": "piglatin"}})
    page = open_wizard()
    rate = next(box for box in page.number_input if "learning rate" in box.label)
    rate.set_value(0.1).run()
    assert engine.drafts.get().changes["training"] == {"learning_rate": 0.1}
    assert "Recommended: 0.005" in texts(page)
    page.button(key="continue").click().run()
    assert "20 times what suits this model" in page.warning[0].value
    page.button(key="back").click().run()
    size = next(box for box in page.number_input if "batch size" in box.label)
    size.set_value(0).run()
    assert not page.exception and "batch_size" not in engine.drafts.get().changes["training"]


def test_full_fine_tuning_can_be_chosen(engine: Engine) -> None:
    engine.drafts.update(goal="demo", step=3, changes={"data": {"demo": "piglatin"}})
    page = open_wizard()
    page.radio[0].set_value(True).run()
    assert engine.drafts.get().changes["full"] is True
    assert not [box for box in page.number_input if "LoRA rank" in box.label]
    page.button(key="continue").click().run()
    assert "all of its weights at a learning rate of up to 0.001" in texts(page)


def test_presets_are_saved_and_loaded(engine: Engine) -> None:
    engine.drafts.update(goal="demo", step=3, changes={"data": {"demo": "piglatin"}, "lora": {"rank": 8}})
    page = open_wizard()
    next(box for box in page.text_input if "Save these" in box.label).set_value("Small").run()
    page.button(key="preset-save").click().run()
    (kept,) = engine.presets.list()
    engine.drafts.update(changes={"data": {"demo": "piglatin"}})
    page = open_wizard()
    page.button(key=f"preset-load-{kept.id}").click().run()
    assert engine.planner.suggest(engine.drafts.get().changes).recipe.lora.rank == 8


def test_the_expert_form_has_every_field_and_finds_them(engine: Engine) -> None:
    page = open_wizard()
    page.button(key="expert").click().run()
    assert not page.exception and page.button(key="review").disabled
    page.text_input(key="find").set_value("warm-up").run()
    assert [box.label for box in page.number_input if "warm" in box.label] and not page.selectbox
    page.text_input(key="find").set_value("").run()
    next(box for box in page.text_area if box.label == "Paste a recipe").set_value("data: {demo: piglatin}\nlora: {rank: 4}").run()
    page.button(key="recipe-use").click().run()
    assert engine.drafts.get().changes == {"data": {"demo": "piglatin"}, "lora": {"rank": 4}}
    next(box for box in page.text_area if box.label == "Paste a recipe").set_value("lora: {rank: none}").run()
    page.button(key="recipe-use").click().run()
    assert not page.exception and engine.drafts.get().changes["lora"] == {"rank": 4}
    page.button(key="review").click().run()
    assert "rank 4" in texts(page)


def test_a_runs_start_in_each_state(runs: Runs) -> None:
    for job in (runs.queued(), runs.running(), runs.failed(), runs.done()):
        page = open_wizard(job=job.id)
        assert not page.exception and "What happens next" in texts(page)
        assert page.button(key="watch").label == "Watch it learn"
    page = open_wizard(job="feedface0000")
    assert not page.exception and page.error


PAIRS = "\n".join(json.dumps({"prompt": f"word {n}", "chosen": f"WORD {n}", "rejected": f"word{n}"}) for n in range(80)).encode()
PROMPTS = "\n".join(json.dumps({"prompt": f"word {n}", "level": n}) for n in range(80)).encode()


def test_the_data_step_says_what_rows_a_method_needs(engine: Engine) -> None:
    pairs, good = engine.datasets.add("pairs.jsonl", PAIRS), engine.datasets.add("words.jsonl", GOOD)
    engine.drafts.update(goal="answer", step=1, changes={"method": "dpo", "data": {"dataset": pairs.id}})
    page = open_wizard()
    shown = texts(page)
    assert not page.exception and "two answers to it, of which one is better" in shown
    assert re.search(r":green\[WORD \d+<\|end\|>\]", shown) and re.search(r":orange\[word\d+<\|end\|>\]", shown)
    assert "the better answer, " in shown and not page.button(key="continue").disabled
    # Of the example sets, only those that have pairs.
    assert [button.key for button in page.button if str(button.key).startswith("set-")] == ["set-piglatin", "set-courtesy"]
    engine.drafts.change("data.dataset", good.id)
    page = open_wizard()
    shown = texts(page)
    assert "these are prompts with answers, and pairs of a better and a worse answer are needed" in shown.lower()
    assert "chats.jsonl" not in shown and page.button(key="continue").disabled


def test_rows_that_serve_are_read_so_and_it_is_said(engine: Engine) -> None:
    page = open_wizard(data=engine.datasets.add("pairs.jsonl", PAIRS).id)
    draft = engine.drafts.get()
    assert not page.exception and not page.button(key="continue").disabled
    wanted = engine.planner.shape(draft.changes.get("method", "sft"))
    note = "the better answer of each is learned" in texts(page)
    assert draft.goal == engine.planner.goals_for("pairs")[0] and note == (wanted == "answers")
    engine.drafts.discard()
    prompts = engine.datasets.add("prompts.jsonl", PROMPTS)
    engine.drafts.update(goal="answer", step=1, changes={"data": {"dataset": prompts.id}})
    page = open_wizard()
    assert "these are prompts to try answers to" in texts(page).lower() and page.button(key="continue").disabled
