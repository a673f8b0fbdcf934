"""The Analytics page: no runs, one, many; what is chosen stands in the address."""

from __future__ import annotations

from engine import Engine
from tests.app.conftest import ANALYTICS, Runs, open_page, texts


def test_without_runs_it_says_what_will_be_here() -> None:
    page = open_page(ANALYTICS)
    assert not page.exception
    assert "Every run will stand here" in texts(page)
    assert len(page.get("page_link")) == 1


def test_every_run_has_its_key_figures(runs: Runs) -> None:
    runs.done("Tutor"), runs.failed("Broken"), runs.running("Busy")
    page = open_page(ANALYTICS)
    assert not page.exception
    table = page.dataframe[0].value.set_index("name")
    assert list(table.index) == ["Busy", "Broken", "Tutor"]
    assert table.loc["Tutor", "after"] == 96.5 and table.loc["Tutor", "before"] == 0
    assert table.loc["Tutor", "rate"] == 0.005 and table.loc["Busy", "state"] == "learning"
    assert "Runs `3` " in texts(page) and "Pick runs by their boxes" in texts(page)


def test_picked_runs_are_laid_over_each_other_with_their_differences(runs: Runs, engine: Engine) -> None:
    one, two = runs.done("One"), runs.running("Two")
    engine.store.create_job(engine.demo_recipe("piglatin", {"name": "Waits"}))
    page = open_page(ANALYTICS, runs=f"{one.id},{two.id}", y="train_loss", x="tokens", log="true")
    shown = texts(page)
    assert not page.exception
    assert "2 runs compared" in shown and "Training loss ended lowest in One: 0.04" in shown
    assert page.selectbox(key="what").value == "train_loss" and page.toggle(key="log").value
    assert "Nothing: the same recipe" in shown
    assert len(page.get("page_link")) == 2


def test_differences_only(runs: Runs, engine: Engine) -> None:
    one = runs.running("One")
    two = engine.store.create_job(engine.demo_recipe("piglatin", {"name": "Two", "training": {"learning_rate": 1e-3}}))
    page = open_page(ANALYTICS, runs=f"{one.id},{two.id}")
    rows = page.dataframe[1].value
    assert rows["setting"].tolist() == ["training.learning_rate"]
    assert rows.iloc[0].tolist() == ["training.learning_rate", "0.005", "0.001"]
    assert "Not measured in: Two" in texts(page)


def test_one_run_two_of_a_name_and_strangers(runs: Runs) -> None:
    one, two = runs.done("Same"), runs.done("Same")
    page = open_page(ANALYTICS, runs=f"{one.id},feedface0000")
    assert not page.exception and page.header[0].value == "Same"
    page = open_page(ANALYTICS, runs=f"{one.id},{two.id}")
    assert f"Same ({one.id[:5]})" in str(page.get("page_link")[0].proto.label)


def test_the_table_is_searched(runs: Runs) -> None:
    runs.done("Tutor"), runs.failed("Broken")
    page = open_page(ANALYTICS, search="brok")
    assert page.dataframe[0].value["name"].tolist() == ["Broken"]
    page = open_page(ANALYTICS, search="nothing of the kind")
    assert not page.exception and "No run is like that" in texts(page)


def test_runs_as_cards_are_picked_by_their_boxes(runs: Runs) -> None:
    first, second = runs.done("Tutor"), runs.failed("Broken")
    page = open_page(ANALYTICS, **{"as": "cards"})
    shown = texts(page)
    assert not page.exception and not page.dataframe
    assert "Right answers 0 % → **96.5 %**" in shown and "100 steps · 130,000 tokens" in shown and "0 steps · 0 tokens" in shown
    page.checkbox(key=f"pick-{first.id}-False").check().run()
    page.checkbox(key=f"pick-{second.id}-False").check().run()
    assert not page.exception and page.query_params["runs"] == f"{first.id},{second.id}"
    assert "2 runs compared" in texts(page)
    page.checkbox(key=f"pick-{first.id}-True").uncheck().run()
    assert page.query_params["runs"] == second.id


def test_many_cards_are_shown_when_asked(runs: Runs) -> None:
    for number in range(14):
        runs.queued(f"run {number}")
    page = open_page(ANALYTICS, **{"as": "cards"})
    assert len(page.checkbox) == 12
    page.button(key="more-cards").click().run()
    assert len(page.checkbox) == 14
