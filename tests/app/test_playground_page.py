"""The Playground in its states: nothing trained, a chat, two side by side, answers that fail, conversations that are kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from streamlit.testing.v1 import AppTest

from app import services
from engine import Engine, endpoints
from engine.playground import Settings
from tests.app.conftest import ROOT, Runs, texts
from tests.fakes.openai_server import SayingServer
from tests.running import until


@pytest.fixture(autouse=True)
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SayingServer]:
    made = SayingServer()
    monkeypatch.setattr(endpoints, "start", lambda *_: made)
    yield made
    made.close()


def open_page(**query: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=60)
    test.switch_page(str(ROOT / "pages" / "playground.py"))
    for name, value in query.items():
        test.query_params[name] = value
    return test.run()


def say(page: AppTest, text: str) -> AppTest:
    page.chat_input[0].set_value(text).run()
    assert not page.exception
    return page


def said(page: AppTest) -> list[str]:
    return [element.value for message in page.chat_message for element in (*message.text, *message.markdown)]


def test_before_anything_is_trained(engine: Engine) -> None:
    page = open_page()
    assert not page.exception
    assert "Talk to nano" in texts(page) and [box.value for box in page.selectbox] == ["base:nano", ""]
    tried = engine.demos()["piglatin"]["try"]
    assert [button.label.replace("\\", "") for button in page.main.button] == tried


def test_an_example_is_asked_by_a_click_and_kept(engine: Engine) -> None:
    page = open_page()
    page.button(key="try-0").click().run()
    assert not page.exception
    kept = engine.playground.conversations()
    assert [one.title for one in kept] == ["Pig Latin: hello"] and page.query_params["chat"] == kept[0].id
    assert said(page) == ["Pig Latin: hello", r"echo: Pig Latin: hello"]
    assert "Talk to nano" not in texts(page)
    again = open_page(chat=kept[0].id)
    assert said(again) == said(page), "after F5 or a restart"


def test_one_model_then_two(engine: Engine, runs: Runs, server: SayingServer) -> None:
    runs.done("Tutor")
    model = engine.models()[0]
    page = say(open_page(), "first")
    assert page.selectbox[0].value == model.id and server.bodies[-1]["model"] == model.sampler_path
    page.selectbox[1].set_value("base:nano").run()
    assert page.query_params["with"] == "base:nano" and page.query_params["model"] == model.id
    server.say = lambda body: "base" if body["model"] == "nano" else "tuned"
    say(page, "second")
    assert said(page)[:3] == ["first", ":blue-badge[Tutor]", "echo: first"], "named, since others are asked now"
    assert said(page)[3:] == ["second", ":blue-badge[Tutor]", "tuned", ":green-badge[nano]", "base"]
    assert {body["model"] for body in server.bodies[1:]} == {"nano", model.sampler_path}
    kept = engine.playground.conversations()[0]
    assert kept.setup["speakers"] == [model.id, "base:nano"]
    page.selectbox[1].set_value("").run()
    assert "with" not in page.query_params


def test_an_address_says_who_answers(engine: Engine, runs: Runs) -> None:
    job = runs.running()
    runs.saved(job, 10, "schedule")
    page = open_page(model=f"{job.id}@10", **{"with": "base:nano"})
    assert not page.exception and [box.value for box in page.selectbox] == [f"{job.id}@10", "base:nano"]
    gone = open_page(model="feedface0000")
    assert not gone.exception and "There is no model called 'feedface0000'" in texts(gone)
    assert gone.selectbox[0].value == "base:nano", "one can go on with another"
    lost = open_page(chat="feedface0000")
    assert "There is no conversation feedface0000" in texts(lost)


def test_the_settings_are_heeded_and_kept(engine: Engine, server: SayingServer) -> None:
    page = open_page()
    page.slider[0].set_value(0.7)
    page.number_input[0].set_value(12)
    page.toggle[0].set_value(True)
    page.text_area[0].set_value("Be brief.").run()
    say(page, "one")
    say(page, "two")
    body = server.bodies[-1]
    assert (body["temperature"], body["max_tokens"]) == (0.7, 12)
    assert [message["content"] for message in body["messages"]] == ["Be brief.", "one", "echo: one", "two"]
    kept = engine.playground.conversations()[0]
    assert kept.setup["settings"] == Settings(temperature=0.7, max_tokens=12, system_prompt="Be brief.", remember=True).to_dict()
    again = open_page(chat=kept.id)
    assert again.slider[0].value == 0.7 and again.toggle[0].value


def test_nano_is_asked_each_question_by_itself(server: SayingServer) -> None:
    say(say(open_page(), "one"), "two")
    assert server.bodies[-1]["messages"] == [{"role": "user", "content": "two"}]


def test_a_failure_is_told_and_can_be_tried_again(engine: Engine, server: SayingServer) -> None:
    server.refuse = 400, {"error": {"message": "x", "code": "context_length_exceeded"}}
    page = say(open_page(), "too much")
    assert "longer than the model can look at" in texts(page) and "Begin a new chat" in texts(page)
    server.refuse = None
    page.button(key="again").click().run()
    assert not page.exception and not page.error
    assert said(page) == ["too much", "echo: too much"]
    assert len(engine.playground.turns(page.query_params["chat"])) == 1


def test_probabilities_are_shown_and_hidden(server: SayingServer) -> None:
    page = say(open_page(), "one")
    (button,) = [button for button in page.button if button.label == "Probabilities"]
    button.click().run()
    assert not page.exception
    table = page.dataframe[0].value
    assert list(table.columns) == ["token", "probability", "or rather"] and table["probability"][0] == pytest.approx(50)
    assert "50 %" in table["or rather"][0] and ":blue-background[" in texts(page)
    asked = len(server.bodies)
    page.run()
    assert len(server.bodies) == asked, "worked out once"
    (button,) = [button for button in page.button if button.label == "Hide probabilities"]
    button.click().run()
    assert not page.dataframe


def test_what_a_model_says_stays_text(server: SayingServer) -> None:
    server.say = lambda body: "![x](http://e/x.png) :red[a] $b$ <b>\nnext\n```\n$c :d[\n```"
    shown = said(say(open_page(), "**bold** ![y](http://e/y.png)"))
    assert shown[0] == "**bold** ![y](http://e/y.png)", "what the person wrote, in a plain text element"
    assert shown[1] == "!\\[x](http://e/x.png) \\:red[a] \\$b\\$ \\<b>  \nnext  \n```\n$c :d[\n```"


def test_chats_are_renamed_deleted_and_begun_anew(engine: Engine) -> None:
    page = say(open_page(), "one")
    page.button(key="new-chat").click().run()
    assert "chat" not in page.query_params and not page.chat_message
    say(page, "two")
    assert len(engine.playground.conversations()) == 2
    page.text_input[0].set_value("Second")
    next(button for button in page.button if button.label == "Rename").click().run()
    assert engine.playground.conversations()[0].title == "Second"
    page.button(key="delete-chat").click().run()
    assert not page.exception and "chat" not in page.query_params
    assert [one.title for one in engine.playground.conversations()] == ["one"]


def test_another_tab_follows_what_is_being_answered(engine: Engine, server: SayingServer) -> None:
    page = say(open_page(), "one")
    chat = page.query_params["chat"]
    shared = services.engine().playground
    who = [shared.speaker("base:nano")]
    server.go_on.clear()
    asking = shared.ask(who, [shared.messages([], 0, "two words", Settings())], Settings())
    shared.exchange(chat, "two words", asking)
    threading.Timer(0.5, server.go_on.set).start()
    other = open_page(chat=chat)
    assert not other.exception
    assert said(other) == ["one", "echo: one", "two words", "echo: two words"]
    assert len(engine.playground.turns(chat)) == 2 and shared.under_way(chat) is None, "kept, and once"


def test_a_message_during_an_answer_ends_it_and_is_asked(engine: Engine, server: SayingServer) -> None:
    page = say(open_page(), "one")
    chat, shared = page.query_params["chat"], services.engine().playground
    who = [shared.speaker("base:nano")]
    server.go_on.clear()
    asking = shared.ask(who, [shared.messages([], 0, "two words", Settings())], Settings())
    shared.exchange(chat, "two words", asking)
    until(lambda: asking.answers[0].text)
    # The next can be answered once the server has heard that nobody listens any more.
    threading.Thread(target=lambda: server.gone.wait(60) and server.go_on.set(), daemon=True).start()
    say(page, "three")
    assert [turn.prompt for turn in engine.playground.turns(chat)] == ["one", "two words", "three"] and shared.under_way(chat) is None
    assert [text for text in said(page) if text in {"one", "two words", "three"}] == ["one", "two words", "three"]


def test_thumbs_beside_an_answer(engine: Engine) -> None:
    page = say(open_page(), "first")
    assert engine.ratings.count() == (0, 0)
    chat = page.query_params["chat"]
    key = f"thumbs-{engine.playground.turns(chat)[0].id}-0"
    for verdict, wanted in ((1, (1, 0)), (0, (0, 1)), (None, (0, 0)), (1, (1, 0))):
        page.feedback(key=key).set_value(verdict).run()
        assert not page.exception and engine.ratings.count() == wanted
    assert open_page(chat=chat).feedback(key=key).value == 1
