"""The Training page in every state that a run can be in."""

from __future__ import annotations

import csv
import subprocess
import sys

import pytest

from app import shortcuts
from app.run_data import RunData, metrics_csv
from engine import Engine
from tests.app.conftest import ERROR, ROOT, Runs, open_page, texts


def test_the_empty_page_teaches_and_its_one_button_starts_the_demo(engine: Engine, nothing_starts: list[str]) -> None:
    page = open_page()
    assert not page.exception
    for demo in engine.demos().values():
        assert demo["task"] in texts(page) and demo["learns"] in texts(page) and demo["expect"] in texts(page)
    titles = [demo["title"] for demo in engine.demos().values()]
    assert [button.label for button in page.main.button] == ["Teach it Pig Latin (one-minute demo)", *titles[1:]]
    page.button[0].click().run()
    assert not page.exception
    job = engine.jobs()[0]
    assert job.state == "queued" and job.recipe == engine.demo_recipe("piglatin")
    assert nothing_starts
    assert page.query_params["job"] == job.id
    assert "waiting its turn" in texts(page)


def test_the_list_shows_every_run_with_its_light_and_result(runs: Runs) -> None:
    runs.done("Tutor"), runs.failed("Broken"), runs.running("Busy"), runs.paused("Resting")
    page = open_page()
    shown = texts(page)
    assert not page.exception
    for label in ("finished", "failed", "learning", "paused"):
        assert f"● {label}" in shown
    assert "0 % → 96.5 % right on 400 new prompts" in shown
    assert ERROR["message"][1:] in shown
    assert len(page.get("page_link")) == 4 + 1
    # Those that have measured anything have their loss in miniature.
    assert sum(caption.value.startswith("loss `") for caption in page.caption) == 3


def test_the_list_is_narrowed_by_state_and_text_and_the_address_says_so(runs: Runs) -> None:
    runs.done("Tutor"), runs.failed("Broken"), runs.paused("Resting")
    page = open_page(state="failed")
    assert "● failed" in texts(page) and "● finished" not in texts(page)
    page.text_input(key="search").set_value("no such thing").run()
    assert "No run is like that" in texts(page)
    page = open_page(search="TUTOR")
    assert "● finished" in texts(page) and "● failed" not in texts(page)
    assert not page.exception


def test_the_list_is_long_only_when_asked(runs: Runs) -> None:
    for number in range(23):
        runs.queued(f"run {number}")
    page = open_page()
    assert len(page.get("page_link")) == 20 + 1
    page.button(key="more").click().run()
    assert len(page.get("page_link")) == 23 + 1


def test_a_link_to_a_run_shows_it(runs: Runs) -> None:
    job = runs.running()
    page = open_page(job=job.id)
    shown = texts(page)
    assert not page.exception
    assert [title.value for title in page.title] == ["Pig Latin"]
    assert "● learning" in shown
    assert "Speed `5,200 tokens/s`" in shown and "Time left `about 15 s`" in shown
    assert "Held-out loss has fallen from 4 to 0.168" in shown
    assert "After step 40: 1 of 2 right" in shown
    assert "`eams-stray`" in shown and "expected] `eamsstr-ay`" in shown
    toolbar = {"Train again with changes", "Rename", "Copy as …", "Guide", "Ask them all"}
    assert {button.label for button in page.main.button} - toolbar == {"Pause", "Stop and keep"}


def test_how_the_loss_is_drawn_stands_in_the_address(runs: Runs) -> None:
    job = runs.running()
    page = open_page(job=job.id, smooth="20 steps", log="true")
    assert not page.exception
    assert page.selectbox(key="smooth").value == "20 steps" and page.toggle(key="log").value is True
    strange = open_page(job=job.id, smooth="sideways")
    assert not strange.exception and strange.selectbox(key="smooth").value == "as it is"


def test_whatever_a_run_reports_is_drawn_and_explained(runs: Runs, engine: Engine) -> None:
    job = runs.running()
    rows = [{"step": step, "name": name, "value": 1.0} for step in (1, 2, 3) for name in ("reward/mean", "cpu_percent", "tokens")]
    engine.store.record(job.id, job.attempt, metrics=rows)
    shown = texts(open_page(job=job.id))
    assert "**reward · mean** · `1`" in shown and "**Processor** · `1` %" in shown and "The machine" in shown
    assert "**Tokens gone through**" not in shown
    assert "healthy: 0.1 to 3 times what is recommended for this model" in shown
    assert "How hard the batch pulls at the weights" in shown


def test_the_doctor_warns_and_offers_another_try(runs: Runs, engine: Engine) -> None:
    job = runs.running(steps=40)
    engine.store.record(job.id, job.attempt, metrics=[{"step": 41, "name": "train_loss", "value": float("nan")}])
    page = open_page(job=job.id)
    assert "it is no longer a number" in texts(page) and "divide it by 10" in texts(page)
    page.button(key="doctor.0").click().run()
    assert not page.exception
    assert page.text_input(key="again.rate").value == "0.0005"


def test_what_opens_beside_a_run(runs: Runs) -> None:
    """What is in the dialogs; that they do what they say is seen in a browser."""
    job = runs.done()
    page = open_page(job=job.id)
    page.button(key="again").click().run()
    assert page.text_input(key="again.rate").value == "0.005" and page.number_input(key="again.steps").value == 100
    assert "Recommended learning rate for this model: 0.005" in texts(page)
    page.button(key="rename").click().run()
    assert page.text_input(key="rename.name").value == "Pig Latin"
    page.button(key="copy").click().run()
    assert "python thinker.py train --demo piglatin" in texts(page) and "engine.run(Recipe.make(RECIPE))" in texts(page)
    page.button(key="guide").click().run()
    assert "## What the numbers mean" in texts(page) and "<!--" not in texts(page)
    assert not page.exception


def test_earlier_answers_can_be_seen_again(runs: Runs) -> None:
    job = runs.running(steps=20)
    runs.go_on(job, 21, 30)
    page = open_page(job=job.id)
    assert "After step 30: 1 of 2 right" in texts(page)
    page.select_slider(key="said.at").set_value(20).run()
    assert "After step 20: 1 of 2 right" in texts(page)


def test_time_travel_waits_for_a_checkpoint(runs: Runs) -> None:
    job = runs.running()
    assert "Time travel" not in texts(open_page(job=job.id))
    runs.saved(job, 25, "schedule")
    page = open_page(job=job.id)
    assert "The base model and 1 checkpoint will answer" in texts(page)
    assert page.text_input(key="travel.prompt").value == "Pig Latin: hello"


def test_a_link_to_nothing_says_so() -> None:
    page = open_page(job="feedface0000")
    assert not page.exception
    assert "There is no job feedface0000" in page.error[0].value.replace("\\", "")


def test_a_finished_run_shows_the_proof_in_sentences(runs: Runs) -> None:
    job = runs.done()
    page = open_page(job=job.id)
    shown = texts(page)
    assert not page.exception
    # Wilson's interval for 386 of 400: 94.2 to 97.9.
    assert "Right answers on 400 prompts it had never seen (exact match): 0 % → 96.5 %** (95 % interval 94 to 98)" in shown
    assert "386 of these prompts got better, 0 worse" in shown
    assert "Wins 98 % against the start model by exact, surely more than 96 %" in shown
    assert "General skills on 200 tasks from before: 100 % → 93 % (partly forgotten)" in shown
    assert 'python thinker.py chat --model "Pig Latin"' in shown
    assert list(page.dataframe[0].value.columns) == ["prompt", "before", "after", "expected"]
    assert "Step `100` at the end · held-out loss `0.042` :blue-badge[to go on from] :green-badge[to use] :gray-badge[last]" in shown
    page.radio(key="examples").set_value("Still wrong").run()
    assert len(page.dataframe[0].value) == 14
    assert set(page.dataframe[0].value["after"]) == {"?"}
    assert not page.button(key="delete").disabled


def test_a_failed_run_says_what_happened_and_what_to_do(runs: Runs) -> None:
    job = runs.failed()
    page = open_page(job=job.id)
    said = page.error[0].value.replace("\\", "")
    assert ERROR["message"][1:] in said and f"Where: {ERROR['where']}" in said and f"What to do: {ERROR['next_step']}" in said
    assert page.button(key="resume").label == "Resume"


def test_pause_and_resume_reach_the_engine(runs: Runs, engine: Engine, nothing_starts: list[str]) -> None:
    job = runs.running()
    page = open_page(job=job.id)
    page.button(key="pause").click().run()
    assert engine.job(job.id).control == "pause"
    assert "● pausing" in texts(page)
    runs.saved(job, job.step, "pause")
    engine.store.transition(job.id, "paused", attempt=job.attempt)
    page.run()
    page.button(key="resume").click().run()
    assert engine.job(job.id).state == "queued"
    assert nothing_starts and not page.exception


def test_a_request_that_comes_too_late_is_told_and_harms_nothing(runs: Runs, engine: Engine) -> None:
    job = runs.running()
    page = open_page(job=job.id)
    engine.store.transition(job.id, "done", attempt=job.attempt)
    page.button(key="pause").click().run()
    assert not page.exception
    assert "is finished" in page.warning[0].value


def test_deleting_asks_first_and_leads_back_to_the_list(runs: Runs, engine: Engine) -> None:
    gone, kept = runs.failed("Gone"), runs.failed("Kept")
    page = open_page(job=gone.id)
    page.button(key="delete").click().run()
    assert [job.id for job in engine.jobs()] == [kept.id]
    assert "job" not in page.query_params
    assert [title.value for title in page.title] == ["Training"]


def test_names_and_answers_are_text_and_never_markup(runs: Runs, engine: Engine) -> None:
    job = runs.running("a :red[b] `c` [d](http://e)")
    odd = {"step": 41, "position": 0, "prompt": "$x$ **p**", "expected": "y", "answer": "``` :red[z]\n# h", "correct": False}
    engine.store.record(job.id, job.attempt, samples=[odd])
    page = open_page(job=job.id)
    assert not page.exception
    assert page.title[0].value == r"a \:red\[b\] \`c\` \[d\]\(http\://e\)"
    assert any("```` ``` :red[z] # h ````" in item.value for item in page.markdown)
    assert any(r"\$x\$ \*\*p\*\*" in item.value for item in page.markdown)


def test_each_look_reads_only_what_is_new(runs: Runs, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    job = runs.running(steps=40)
    data = RunData()
    data.update(engine, job)
    asked: dict[str, int] = {}
    real = engine.runs.news
    monkeypatch.setattr(engine.runs, "news", lambda job_id, after: asked.update(after) or real(job_id, after))
    runs.go_on(job, 41, 50)
    data.update(engine, engine.job(job.id))
    assert sorted(set(asked.values())) == [25, 40]
    assert data.curve("train_loss") == engine.store.curve(job.id, "train_loss")
    assert [step for step, _ in data.curve("held_out_loss")] == [0, 25, 50]


def test_steps_that_a_new_attempt_undoes_leave_the_curve(runs: Runs, engine: Engine) -> None:
    job = runs.running(steps=30)
    runs.saved(job, 30, "schedule")
    runs.go_on(job, 31, 40)
    data = RunData()
    data.update(engine, engine.job(job.id))
    engine.store.transition(job.id, "failed", attempt=job.attempt, error=ERROR)
    queued = engine.store.resume(job.id)
    data.update(engine, queued)
    assert len(data.curve("train_loss")) == 40
    again = engine.store.claim_job("test", job_id=job.id)
    assert again is not None
    data.update(engine, again)
    engine.store.transition(job.id, "training", attempt=again.attempt)
    data.update(engine, engine.job(job.id))
    assert [step for step, _ in data.curve("train_loss")] == list(range(1, 31))
    engine.store.record(job.id, again.attempt, metrics=[{"step": 31, "name": "train_loss", "value": 9.0}])
    data.update(engine, engine.job(job.id))
    assert data.curve("train_loss")[-1] == (31, 9.0)
    assert data.curve("train_loss") == engine.curve(job.id, "train_loss")


def test_the_metrics_can_be_taken_away(runs: Runs, engine: Engine) -> None:
    job = runs.running(steps=25)
    rows = list(csv.DictReader(metrics_csv(engine, job.id).splitlines()))
    assert len(rows) == 26
    assert rows[0] == {"step": "0", "grad_norm": "", "held_out_loss": "4.0", "learning_rate": "", "tokens_per_second": "", "train_loss": ""}
    assert rows[25]["step"] == "25" and float(rows[25]["train_loss"]) == 4 / 25


def test_the_dashboards_process_loads_no_torch(runs: Runs) -> None:
    job = runs.done()
    code = f"""
import sys
from streamlit.testing.v1 import AppTest
page = AppTest.from_file({str(ROOT / "app" / "main.py")!r}, default_timeout=30)
page.switch_page({str(ROOT / "pages" / "training.py")!r})
page.query_params["job"] = {job.id!r}
page.run()
assert not page.exception and page.metric, page
print("LOADED", *(name for name in ("torch", "tinker", "transformers", "peft", "datasets") if name in sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.split("LOADED")[1].split() == []


def test_each_checkpoint_that_can_be_used_leads_to_a_chat_with_it(runs: Runs) -> None:
    job = runs.paused()
    page = open_page(job=job.id)
    links = [link.proto for link in page.get("page_link") if link.proto.label == "Chat"]
    assert not page.exception and [link.query_string for link in links] == [f"model={job.id}%40{job.step}"]


def test_what_is_listed_of_many_checkpoints_adds_up(engine: Engine, runs: Runs) -> None:
    job = runs.running()
    for step in range(1, 13):
        runs.saved(job, step, "schedule")
    engine.keeping.pin(job.id, 2)
    shown = texts(open_page(job=job.id))
    listed = [step for step in range(1, 13) if f"Step `{step}` on schedule" in shown]
    assert listed == [2, *range(5, 13)] and "and 3 more" in shown


def test_demos_of_other_methods_stay_out_of_the_runs_way(runs: Runs) -> None:
    runs.running()
    page = open_page()
    inside = [button.key for block in page.get("popover") for button in block.button]
    assert "demo-score" in inside and "demo-piglatin" not in inside and page.button(key="demo-piglatin")


def test_a_limit_is_said_as_people_say_it(engine: Engine) -> None:
    job = engine.store.create_job(engine.demo_recipe("piglatin", {"budget": {"max_minutes": 2, "max_tokens": 1_500_000}}))
    page = open_page(job=job.id)
    assert not page.exception and "at most 1,500,000 tokens · at most 2 minutes" in texts(page)


def test_a_key_pauses_and_goes_on(engine: Engine, runs: Runs) -> None:
    job = runs.running()
    page = open_page(job=job.id)
    assert page.button(key="pause").proto.shortcut.lower() == shortcuts.HOLD.lower()
    assert [page.button(key=f"move-{move.key}").proto.shortcut.upper() for move in shortcuts.EVERYWHERE] == ["N", "P"]
