"""The Datasets page: nothing yet, files that come in every condition, many sets, and one set in each of its views."""

from __future__ import annotations

import json

import pytest
from streamlit.testing.v1 import AppTest

from engine import Engine
from engine.playground import Answer, Settings
from engine.recipe import Recipe
from engine.store import LibrarySet
from tests.app.conftest import ROOT, texts

DATASETS = str(ROOT / "pages" / "datasets.py")


def open_page(**query: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
    test.switch_page(DATASETS)
    for name, value in query.items():
        test.query_params[name] = value
    return test.run()


def shown(page: AppTest) -> str:
    """All that can be read, badges too."""
    assert not page.exception
    return texts(page) + "\n".join(str(badge.value) for badge in page.get("badge"))


def jsonl(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def pairs(count: int) -> bytes:
    return jsonl(*({"prompt": f"Question {n}", "completion": f"Answer {n}"} for n in range(count)))


@pytest.fixture
def flawed(engine: Engine) -> LibrarySet:
    rows = [{"prompt": f"Q{n}", "completion": f"A{n}"} for n in range(12)]
    return engine.datasets.add("flawed.jsonl", jsonl(*rows, {"prompt": "Q", "completion": ""}, {"prompt": "Q"}))


def links(page: AppTest) -> list[str]:
    """Where the page leads, less what ships."""
    with Engine() as engine:
        ships = {f"**{demo['title']}**" for demo in engine.demos().values()}
    return [label for link in page.get("page_link") if (label := link.proto.label) not in ships]


def test_the_empty_page_teaches() -> None:
    page = open_page()
    said = shown(page)
    assert "this is what a file looks like" in said and '{"prompt"' in said
    assert "Turn English words into Pig Latin" in said
    assert len(page.get("file_uploader")) == 1
    assert links(page) == [] and page.get("page_link")


def test_files_that_come_are_told_of(engine: Engine) -> None:
    page = open_page()
    page.get("file_uploader")[0].set_value(
        [
            ("good.jsonl", pairs(20), "application/jsonl"),
            ("table.csv", b"frage,antwort\nWer?,Ich\n", "text/csv"),
            ("broken.json", b'[{"prompt": 1,]', "application/json"),
            ("flawed.jsonl", jsonl({"prompt": "Q", "completion": "A"}, {"prompt": "Q"}), "application/jsonl"),
        ]
    ).run()
    said = shown(page)
    assert {(kept.name, kept.state) for kept in engine.datasets.find()} == {("good", "ready"), ("table", "unmapped"), ("flawed", "check")}
    assert "20 examples" in said and "Answer 0" in said
    assert "The file isn't JSON" in page.error[0].value and "broken.json, line 1" in page.error[0].value.replace("\\", "")
    assert "it isn't clear what in them is asked" in said
    assert "the field is missing (line 2, completion)" in said
    page.button(key="accept-0").click().run()
    assert engine.datasets.find("flawed")[0].state == "ready"
    page.get("file_uploader")[0].set_value([("again.jsonl", pairs(20), "application/jsonl")]).run()
    assert "in your library already, as good" in shown(page) and len(engine.datasets.find()) == 3
    page.button(key="hide-0").click().run()
    assert "already" not in shown(page)


def test_many_sets_are_searched_and_shown_in_part(engine: Engine) -> None:
    for number in range(30):
        engine.datasets.add(f"set {number}.jsonl", pairs(number + 1))
    page = open_page()
    assert len(links(page)) == 24
    page.button(key="more-datasets").click().run()
    assert len(links(page)) == 30
    page.text_input(key="search").set_value("set 17").run()
    assert links(page) == ["**set 17**"]
    page.text_input(key="search").set_value("zebra").run()
    assert "None of 30 data sets has “zebra”" in shown(page)


def test_a_link_to_a_set_shows_its_rows(engine: Engine) -> None:
    kept = engine.datasets.add("chats.jsonl", pairs(25))
    page = open_page(set=kept.id)
    said = shown(page)
    assert [title.value for title in page.title] == ["chats"] and "● ready" in said
    assert "Examples `25`" in said and "Cut off `0 %`" in said
    assert "Question 0" in said and "Question 9" in said and "Question 10" not in said
    page.text_input(key="find").set_value("answer 17").run()
    assert "1 row of 25 hold" in shown(page) and "Question 17" in shown(page) and "Question 1\n" not in shown(page)


def test_what_the_model_sees(engine: Engine) -> None:
    kept = engine.datasets.add("chats.jsonl", jsonl({"prompt": "Hi", "completion": "Yo"}, {"prompt": "x" * 20, "completion": "Yo"}))
    page = open_page(set=kept.id)
    page.button(key="seen-1").click().run()
    assert page.query_params["view"] == "seen" and not page.warning
    said = shown(page)
    assert "Learned: the model is trained to write this" in said and ":green-background[<|end|>]" in said
    page.number_input(key="cut-nano").set_value(10).run()
    assert "Cut off: the model never sees it" in shown(page) and "0 learned" in shown(page)


def test_what_was_left_out_and_consent(engine: Engine, flawed: LibrarySet) -> None:
    page = open_page(set=flawed.id, view="left_out")
    said = shown(page)
    assert "● 2 rows can't be used" in said and "the answer is empty" in said
    assert page.dataframe[0].value["where"].tolist() == ["line 13, completion", "line 14, completion"]
    page.button(key="accept").click().run()
    assert engine.datasets.get(flawed.id).state == "ready" and "2 rows left out" in shown(page)


def test_figures_in_words(engine: Engine) -> None:
    rows = [{"prompt": "Hi", "completion": "Yo"}] * 2 + [{"prompt": "x" * 3000, "completion": "Yo"}]
    said = shown(open_page(set=engine.datasets.add("a.jsonl", jsonl(*rows)).id, view="figures"))
    assert "33.3 % of the rows are longer than the 1,024 tokens" in said
    assert "1 row repeat" in said and "Only 3 examples" in said


def test_columns_are_told_apart_on_the_page(engine: Engine) -> None:
    kept = engine.datasets.add("table.csv", b"id,frage,antwort\n1,Wer?,Ich\n2,Was?,Das\n")
    page = open_page(set=kept.id)
    assert "Which column is which?" in shown(page)
    page.selectbox(key=f"column-{kept.id}-prompt_completion-completion").set_value("id").run()
    page.selectbox(key=f"column-{kept.id}-prompt_completion-prompt").set_value("id").run()
    assert page.button(key=f"remap-{kept.id}").disabled
    page.selectbox(key=f"column-{kept.id}-prompt_completion-prompt").set_value("frage").run()
    page.selectbox(key=f"column-{kept.id}-prompt_completion-completion").set_value("antwort").run()
    page.button(key=f"remap-{kept.id}").click().run()
    assert engine.datasets.get(kept.id).state == "ready" and "Wer?" in shown(page)


def test_a_set_that_a_run_needs_stays(engine: Engine) -> None:
    kept = engine.datasets.add("chats.jsonl", pairs(40))
    engine.launch(Recipe.make({"data": {"dataset": kept.id}, "name": "Busy"}))
    page = open_page(set=kept.id)
    assert "Busy" in [link.proto.label for link in page.get("page_link")]
    page.button(key="delete").click().run()
    assert "is waiting its turn and needs it" in page.warning[0].value and engine.datasets.find() == [kept]
    engine.stop(engine.jobs()[0].id)
    page.button(key="delete").click().run()
    assert engine.datasets.find() == [] and "this is what a file looks like" in shown(page)


def test_what_ships_can_only_be_looked_at() -> None:
    page = open_page(set="demo-piglatin")
    assert "● comes with Thinker" in shown(page)
    assert "delete" not in [button.key for button in page.button] and "Columns" not in page.radio(key="view").options


def test_a_link_to_nothing_says_so() -> None:
    page = open_page(set="feedface0000")
    assert not page.exception and "There is no data set feedface0000" in page.error[0].value.replace("\\", "")


def kept(engine: Engine, *rows: object, name: str = "rows.jsonl") -> LibrarySet:
    return engine.datasets.add(name, jsonl(*rows))


def test_pairs_stand_side_by_side(engine: Engine) -> None:
    made = kept(engine, *({"prompt": f"Q{n}", "chosen": f"The good one {n}", "rejected": f"bad {n}", "level": n} for n in range(12)))
    page = open_page(set=made.id)
    said = shown(page)
    assert "Pairs of a better and a worse answer" in said and "Pairs `12`" in said
    assert "Better (chosen)]  \nThe good one 3" in said and "Worse (rejected)]  \nbad 3" in said and "**level** 3" in said
    assert len(page.get("column")) >= 20
    page = open_page(set=made.id, view="seen")
    said = shown(page)
    assert "The better answer: " in said and "The worse answer: " in said and "find the first likelier" in said
    page = open_page(set=made.id, view="figures")
    assert "longer one in 100 % of the pairs" in shown(page) and "1 further column" in shown(page)


def test_thumbs_and_prompts_are_read(engine: Engine) -> None:
    made = kept(engine, *({"prompt": f"Q{n}", "completion": f"A{n}", "label": n % 5 == 0} for n in range(10)))
    said = shown(open_page(set=made.id))
    assert "thumb_up: Answer, found good]  \nA0" in said and "thumb_down: Answer, found bad]  \nA1" in said
    assert "2 answers were found good, 8 bad" in shown(open_page(set=made.id, view="figures"))
    made = kept(engine, {"prompt": "Q1", "answer": 42, "tests": "assert x"}, {"prompt": "Q2"}, name="prompts.jsonl")
    said = shown(open_page(set=made.id))
    assert "Expected]  \n42" in said and "**tests** assert x" in said and "Nothing is expected in words" in said
    seen = shown(open_page(set=made.id, view="seen"))
    assert "tries an answer" in seen and "Nothing of the answer" not in seen


def test_a_data_set_of_thumbs_is_made_by_one_press(engine: Engine) -> None:
    assert "Make a data set of your thumbs" not in [button.label for button in open_page().button]
    who = [engine.playground.speaker("base:nano")]
    chat = engine.playground.begin("Hi", who, Settings())
    for number in range(3):
        turn = engine.playground.keep(chat.id, f"Hi {number}", [Answer(who[0], text=f"Yo {number}", finish="stop")])
        engine.ratings.rate(chat.id, turn.id, 0, number > 0)
    page = open_page()
    assert "3 answers" in shown(page) and "2 up, 1 down" in shown(page)
    page.button(key="thumbs-save").click().run()
    assert not page.exception
    (made,) = engine.datasets.find()
    assert (made.shape, made.examples, made.stats["good"]) == ("labels", 3, 2)
