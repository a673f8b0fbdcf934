"""The Models page in its states: none, one, many, and a model's own page with and without its run and files."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from engine import Engine, paths
from tests.app.conftest import ROOT, Runs, texts


def open_page(**query: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
    test.switch_page(str(ROOT / "pages" / "models.py"))
    for name, value in query.items():
        test.query_params[name] = value
    return test.run()


@pytest.fixture
def model(engine: Engine, runs: Runs):
    runs.done("Tutor")
    made = engine.models()[0]
    folder = paths.folder("checkpoints", "made", "sampler_weights", f"{made.job_id}-100")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        (folder / name).write_bytes(b"x" * 600)
    return made


def test_no_model_yet_teaches(engine: Engine) -> None:
    page = open_page()
    assert not page.exception
    shown = texts(page)
    assert "No tuned model yet" in shown and "**nano**" in shown and "nothing tuned from it yet" in shown
    assert [button.label for button in page.main.button] == ["Train one"]
    page.button[0].click().run()
    assert [title.value for title in page.title] == ["Training"]


def test_the_list_is_searched_and_long_only_when_asked(engine: Engine, runs: Runs) -> None:
    known = {"job_id": None, "base_model": "nano", "endpoint": "local", "renderer": "auto"}
    for number in range(23):
        engine.store.add_model(f"model {number:02}", sampler_path=f"p{number}", **known)
    page = open_page()
    assert len(page.get("page_link")) == 2 * 20 + 1
    page.button(key="more-models").click().run()
    assert len(page.get("page_link")) == 2 * 23 + 1
    page.text_input[0].set_value("model 07").run()
    assert len(page.get("page_link")) == 2 + 1
    page.text_input[0].set_value("<nothing>").run()
    assert "None of 23 models has “<nothing>”" in texts(page)


def test_a_models_page_says_it_all(engine: Engine, model) -> None:
    page = open_page(model=model.id)
    shown = texts(page)
    assert not page.exception
    assert "0 % → 96.5 %** (95 % interval 94 to 98)" in shown and "1.2 kB" in shown
    assert "Wins 98 % against the start model by exact, surely more than 96 %" in shown
    assert "**Base model:** nano" in shown and "the demo piglatin" in shown and "**Training:** 100 updates" in shown
    fields = dict(zip(page.dataframe[0].value["field"], page.dataframe[0].value["here"], strict=True))
    assert fields["training.learning_rate"] == "0.005" and fields["data.demo"] == "piglatin"
    assert "learning_rate: 0.005" in shown
    assert page.button(key="chat").label == "Chat" and len(page.get("download_button")) == 1


def test_name_notes_and_deletion(engine: Engine, model) -> None:
    page = open_page(model=model.id)
    page.text_input(key=f"name.{model.id}").set_value("Poet")
    next(button for button in page.button if button.label == "Rename").click().run()
    assert [title.value for title in page.title] == ["Poet"]
    page.text_area(key=f"notes.{model.id}").set_value("good at words")
    next(button for button in page.button if button.label == "Save notes").click().run()
    assert engine.model("Poet").notes == "good at words" and not page.exception
    page.text_input(key=f"name.{model.id}").set_value(" ")
    next(button for button in page.button if button.label == "Rename").click().run()
    assert "1 to 120 characters" in page.warning[0].value
    page.button(key="delete").click().run()
    assert engine.models() == [] and "model" not in page.query_params
    assert [title.value for title in page.title] == ["Models"]


def test_a_model_without_run_files_or_proof(engine: Engine) -> None:
    made = engine.store.add_model("old :red[x]", job_id=None, base_model="a/b", endpoint="local", sampler_path="p", renderer="auto")
    page = open_page(model=made.id)
    shown = texts(page)
    assert not page.exception
    assert page.title[0].value == r"old \:red\[x\]"
    assert "Nothing was proven of it" in shown and "Its run was deleted" in shown
    assert not page.get("download_button")


def test_a_link_to_nothing_says_so() -> None:
    page = open_page(model="feedface0000")
    assert not page.exception and "There is no model feedface0000" in page.error[0].value.replace("\\", "")
