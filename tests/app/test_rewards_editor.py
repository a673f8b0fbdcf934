"""The editor of rewards on a draft: parts are added, changed and taken out; a test run shows scores, reasons and what is wrong."""

from __future__ import annotations

import json

import pytest
from streamlit.testing.v1 import AppTest

from engine import Engine
from engine.recipe.methods import METHODS, REWARDS
from tests.app.conftest import texts
from tests.fakes.judge_server import JudgeServer


def editor() -> None:
    """A page that holds nothing else."""
    from app import services, session
    from app.components import rewards, trouble
    from app.components.wizard import frame

    session.set_owner(session.owner() or "local")
    trouble.show_notices()
    rewards.show(services.engine().drafts.get().changes, frame.change)


@pytest.fixture
def page(engine: Engine) -> AppTest:
    method = {"method": "rl"} if "rl" in METHODS else {}
    engine.drafts.update(changes={**method, "data": {"demo": "piglatin"}})
    test = AppTest.from_function(editor, default_timeout=30).run()
    assert not test.exception
    return test


def parts(engine: Engine) -> list[dict]:
    return engine.drafts.get().changes["reward"]["parts"]


def click(page: AppTest, ending: str) -> AppTest:
    found = next(button for button in page.button if button.key.endswith(ending)).click().run()
    assert not found.exception
    return found


def widget(page: AppTest, kind: str, ending: str):
    return next(one for one in page.get(kind) if one.key.endswith(ending))


def pick(page: AppTest, kind: str) -> None:
    next(one for one in page.selectbox if "reward-add" in one.key).set_value(kind).run()


def test_a_draft_begins_with_one_part(page: AppTest, engine: Engine) -> None:
    shown = texts(page)
    assert "What is a good answer?" in shown and "**The same text**" in shown
    assert all(button.disabled for button in page.button if button.key.endswith("remove"))
    assert "reward" not in engine.drafts.get().changes


@pytest.mark.parametrize("kind", REWARDS)
def test_every_kind_can_be_added_and_shows_its_fields_alone(page: AppTest, engine: Engine, kind: str) -> None:
    pick(page, kind)
    click(page, "reward-only")
    assert [part["kind"] for part in parts(engine)] == [kind]
    told = engine.rewards.kinds()[kind]
    assert f"**{told.title}**" in texts(page)
    keys = [one.key for group in ("text_input", "text_area", "selectbox", "number_input", "toggle") for one in page.get(group)]
    assert {key.rpartition("-")[2] for key in keys if f"-{kind}-" in key} == {field["name"] for field in told.fields}


def test_parts_are_added_changed_and_removed(page: AppTest, engine: Engine) -> None:
    pick(page, "length")
    click(page, "reward-add")
    assert [part["kind"] for part in parts(engine)] == ["exact", "length"]
    weights = [one for one in page.number_input if one.key.endswith("-weight")]
    weights[1].set_value(-0.5).run()
    widget(page, "number_input", "length-longest").set_value(12).run()
    widget(page, "selectbox", "length-unit").set_value("tokens").run()
    assert parts(engine)[1] == {"kind": "length", "longest": 12, "weight": -0.5, "unit": "tokens"}
    next(button for button in page.button if button.key.endswith("remove")).click().run()
    assert [part["kind"] for part in parts(engine)] == ["length"]
    assert not page.exception and engine.planner.suggest(engine.drafts.get().changes).recipe.reward.parts[0].longest == 12


def test_what_no_recipe_can_have_is_refused_and_told(page: AppTest, engine: Engine) -> None:
    pick(page, "regex")
    click(page, "reward-only")
    widget(page, "text_input", "regex-pattern").set_value("(").run()
    assert not page.exception and "can't be read" in "".join(one.value for one in page.warning)
    assert parts(engine)[0]["pattern"] == "<think>.+</think>"


def test_a_test_run_shows_scores_and_reasons(page: AppTest, engine: Engine) -> None:
    click(page, "reward-test")
    shown = texts(page)
    assert "Mean score: 1 for its own answer, 0 for another row's answer." in shown
    table = page.dataframe[0].value
    assert list(table["score"][:8]) == [1.0] * 8 and table["why"].iloc[-1].startswith("expected ")
    assert not page.warning and page.get("vega_lite_chart")


def test_a_reward_that_teaches_nothing_is_told(page: AppTest, engine: Engine) -> None:
    pick(page, "python")
    click(page, "reward-only")
    widget(page, "text_area", "python-code").set_value("def reward(prompt, answer, expected, row):\n    return 1").run()
    click(page, "reward-test")
    assert "nothing to learn from" in "".join(one.value for one in page.warning)
    widget(page, "text_area", "python-code").set_value("def reward(prompt, answer, expected, row):\n    return 1 / 0").run()
    assert "before the last change" in texts(page)
    click(page, "reward-test")
    assert "line 2: ZeroDivisionError" in texts(page).replace("\\", "")


def test_typed_answers_are_scored(page: AppTest, engine: Engine) -> None:
    widget(page, "selectbox", "reward-source").set_value("typed").run()
    assert next(button for button in page.button if button.key.endswith("reward-test")).disabled
    widget(page, "text_area", "reward-typed").set_value("one\ntwo").run()
    click(page, "reward-test")
    assert len(page.dataframe[0].value) == 2 and list(page.dataframe[0].value["answer"]) == ["one", "two"]


def test_a_judge_and_its_key(page: AppTest, engine: Engine) -> None:
    with JudgeServer(lambda body, number: f'{{"reason": "fine", "score": {number % 11}}}') as server:
        pick(page, "judge")
        click(page, "reward-only")
        engine.drafts.change("reward.parts", [{**parts(engine)[0], "url": server.url}])
        page = AppTest.from_function(editor, default_timeout=30).run()
        assert widget(page, "selectbox", "judge-url").value == server.url, "an address that nobody named stays"
        widget(page, "text_input", "-key").set_value("sk-judge").run()
        click(page, "key-give")
        assert engine.rewards.key_source(server.url) == "memory" and not widget(page, "text_input", "-key").value
        click(page, "reward-test")
        assert set(server.authorizations) == {"Bearer sk-judge"} and "16 requests to models" in texts(page)
        assert "sk-judge" not in str(engine.drafts.get())


def test_those_who_share_a_machine_choose_among_what_they_may(engine: Engine) -> None:
    with Engine("person-1") as visitor:
        visitor.drafts.update(changes={"data": {"demo": "piglatin"}})
    test = AppTest.from_function(editor, default_timeout=30)
    test.session_state["thinker.owner"] = "person-1"
    test.run()
    assert not test.exception
    options = next(one for one in test.selectbox if "reward-add" in one.key).options
    assert "Your own function" not in options and "A judge with a rubric" in options


def test_columns_are_chosen_among_the_datas(engine: Engine) -> None:
    row = {"prompt": "2 + 2", "answer": "4", "checks": "assert True", "level": 3}
    kept = engine.datasets.add("sums.jsonl", (json.dumps(row) + "\n").encode() * 20)
    engine.drafts.update(changes={"method": "rl", "data": {"dataset": kept.id}, "reward": {"parts": [{"kind": "code_tests"}]}})
    page = AppTest.from_function(editor, default_timeout=30).run()
    tests = widget(page, "selectbox", "code_tests-tests")
    assert tests.options == ["checks", "level", "tests (not in the data)"]
    tests.set_value("checks").run()
    assert not page.exception and parts(engine)[0]["tests"] == "checks"
    pick(page, "numeric")
    click(page, "reward-only")
    expected = widget(page, "selectbox", "numeric-expected")
    assert expected.options == ["the row's own answer", "checks", "level"]
    expected.set_value("level").run()
    assert not page.exception and parts(engine)[0]["expected"] == "level"


def test_a_judge_is_chosen_among_the_named_servers(page: AppTest, engine: Engine) -> None:
    with JudgeServer(lambda body, number: '{"score": 7}', models=("wise", "quick")) as server:
        engine.judges.add("My judge", server.url)
        engine.judges.look(server.url)
        pick(page, "judge")
        click(page, "reward-only")
        url = widget(page, "selectbox", "judge-url")
        assert f"My judge ({server.url})" in url.options and url.options[0] == "one of my models, or a base model"
        url.set_value(server.url).run()
        model = widget(page, "selectbox", "judge-model")
        assert not page.exception and {"wise", "quick"} <= set(model.options)
        model.set_value("wise").run()
        assert (parts(engine)[0]["url"], parts(engine)[0]["model"]) == (server.url, "wise")
        next(one for one in page.text_input if one.key.endswith("-key")).set_value("sk-judge").run()
        click(page, "-key-give")
        assert engine.judges.all()[0].source == "memory" and "sk-judge" not in texts(page)
        engine.judges.forget(server.url)


def judging() -> None:
    """A page that holds who judges the proof."""
    from app import services, session
    from app.components import rewards, trouble
    from app.components.wizard import frame

    session.set_owner(session.owner() or "local")
    trouble.show_notices()
    rewards.show(services.engine().drafts.get().changes, frame.change, use=rewards.JUDGE)


def judge(engine: Engine) -> list[dict]:
    return engine.drafts.get().changes["evaluation"]["judge"]


def test_who_judges_the_proof_is_edited_like_a_reward(engine: Engine) -> None:
    engine.drafts.update(changes={"method": "dpo", "data": {"demo": "piglatin"}, "evaluation": {"eval_every": 5}})
    page = AppTest.from_function(judging, default_timeout=30).run()
    shown = texts(page)
    assert not page.exception and "Who tells which answer is better (judge)" in shown and "goes by the right answers" in shown
    # Nobody has to be named, so there is nothing to take out or to try.
    assert [button.key for button in page.button] == ["wizard-judge-add"]
    next(one for one in page.selectbox if "judge-add" in one.key).set_value("normalised").run()
    click(page, "judge-add")
    assert judge(engine) == [{"kind": "normalised"}] and engine.drafts.get().changes["evaluation"]["eval_every"] == 5
    assert engine.planner.suggest(engine.drafts.get().changes).recipe.evaluation.judge[0].kind == "normalised"
    click(page, "judge-test")
    shown = texts(page)
    assert "Mean score: 1 for its own answer, 0 for another row's answer." in shown and "Both sides of the proof would take" in shown
    click(page, "-remove")
    assert judge(engine) == [] and not engine.planner.suggest(engine.drafts.get().changes).recipe.evaluation.judge
    assert not page.exception and "goes by the right answers" in texts(page)


def test_a_judges_parts_as_text(engine: Engine) -> None:
    engine.drafts.update(changes={"data": {"demo": "piglatin"}, "evaluation": {"judge": [{"kind": "length", "longest": 5}]}})
    page = AppTest.from_function(judging, default_timeout=30).run()
    text = next(one for one in page.text_area if "-text-" in one.key)
    assert text.value == "- kind: length\n  longest: 5\n"
    text.set_value("- kind: contains\n  texts: [please]\n  name: polite\n").run()
    assert not page.exception and judge(engine) == [{"kind": "contains", "texts": ["please"], "name": "polite"}]
    assert "**Texts in it**" in texts(page) or "polite" in [one.value for one in page.text_input]
    next(one for one in page.text_input if one.key.endswith("-name")).set_value("kind").run()
    assert "name: kind" in next(one for one in page.text_area if "-text-" in one.key).value, "what was changed above stands in the text"
    next(one for one in page.text_area if "-text-" in one.key).set_value("- kind: [").run()
    told = "".join(one.value for one in page.warning).replace("\\", "")
    assert not page.exception and "evaluation.judge, line" in told and "YAML is wanted" in told
    assert judge(engine)[0]["name"] == "kind"
    assert next(one for one in page.text_area if "-text-" in one.key).value == "- kind: [", "what was typed can be corrected"


def test_a_reward_and_a_judge_on_one_page_are_tried_apart(engine: Engine) -> None:
    from tests.app.test_wizard_page import open_wizard

    changes = {"method": "rl", "data": {"demo": "piglatin"}, "evaluation": {"judge": [{"kind": "regex", "pattern": "never said"}]}}
    engine.drafts.update(goal="score", expert=True, changes=changes)
    page = open_wizard()
    assert not page.exception
    shown = texts(page)
    assert "What is a good answer?" in shown and "Who tells which answer is better" in shown
    page.button(key="expert-reward-test").click().run()
    assert not page.exception and texts(page).count("Mean score") == 1 and "One step of the run" in texts(page)
    page.button(key="expert-judge-test").click().run()
    shown = texts(page)
    assert not page.exception and shown.count("Mean score") == 2 and "so no answer would win over another" in shown
    assert "before the last change" not in shown


def test_the_judge_that_a_demo_was_measured_with_is_shown_and_can_be_taken_out(engine: Engine) -> None:
    from tests.app.test_wizard_page import open_wizard

    page = open_wizard()
    page.button(key="try-judged").click().run()
    engine.drafts.update(expert=True)
    measured = engine.demo_recipe("judged").evaluation.judge
    assert measured and "evaluation" not in engine.drafts.get().changes
    page = open_wizard()
    removes = [button for button in page.button if button.key.startswith("expert-judge") and button.key.endswith("-remove")]
    assert not page.exception and len(removes) == len(measured) and "goes by the right answers" not in texts(page)
    for _ in removes:
        next(one for one in page.button if one.key.startswith("expert-judge") and one.key.endswith("-remove")).click().run()
    assert not page.exception and not engine.planner.suggest(engine.drafts.get().changes).recipe.evaluation.judge


def test_a_search_finds_what_has_an_editor_of_its_own(engine: Engine) -> None:
    from tests.app.test_wizard_page import open_wizard

    engine.drafts.update(goal="answer", expert=True, changes={"data": {"demo": "piglatin"}})
    page = open_wizard()
    page.text_input(key="find").set_value("win rate").run()
    shown = texts(page)
    assert not page.exception and "Who tells which answer is better" in shown and "What is a good answer" not in shown
    assert "No setting is about" not in shown
    page.text_input(key="find").set_value("stage by stage").run()
    assert not page.exception and "Then, in the same run" in texts(page) and "Who tells" not in texts(page)
