"""Every method on the screens: goals, settings, stages, a run of several stages as it goes, scores, proofs without right answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from engine import Engine, knowledge, paths
from engine.evaluation import doctor
from engine.evaluation.curves import Curve
from engine.evaluation.proof import compare, measure
from engine.recipe import METHODS
from engine.store import Job
from engine.store.artefacts import write_json_atomic
from engine.training import rollouts
from tests.app.conftest import ANALYTICS, ROOT, Runs, open_page, texts
from tests.app.test_wizard_page import PAIRS, open_wizard

HOME = str(ROOT / "pages" / "home.py")


class Staged:
    """Runs of several stages, as the loop writes them down."""

    def __init__(self, engine: Engine):
        self.engine, self.store = engine, engine.store

    def begun(self, demo: str = "pairs", **changes: Any) -> Job:
        recipe = self.engine.demo_recipe(demo, changes)
        job = self.store.claim_job("test", lease_s=3600, job_id=self.store.create_job(recipe).id)
        stages = [{"method": stage.recipe.method, "data": "piglatin", "steps": stage.recipe.training.steps} for stage in recipe.stages()]
        write_json_atomic(paths.job_folder(job.id) / "data.json", {"stages": stages})
        self.store.transition(job.id, "training", attempt=job.attempt)
        self.steps(job, 1, 12, {"train_loss": 2.0}, {"held_out_loss": 1.0}, since=0)
        return self.engine.job(job.id)

    def second(self, job: Job, to: int, values: dict[str, float], held_out: dict[str, float]) -> Job:
        """As far as this step, by now of the second stage."""
        self.saved(job, 12, "stage", stage=0, began=0)
        self.steps(job, 13, to, values, held_out, since=12)
        return self.engine.job(job.id)

    def steps(self, job: Job, first: int, last: int, values: dict[str, float], held_out: dict[str, float], since: int) -> None:
        rows = [{"step": since, "name": name, "value": value} for name, value in held_out.items()]
        for step in range(first, last + 1):
            rows += [{"step": step, "name": name, "value": value / (1 + step - first)} for name, value in values.items()]
        rows += [{"step": last, "name": name, "value": value / 2} for name, value in held_out.items()]
        progress = {"step": last, "total_steps": 72, "tokens": last * 1300, "training_seconds": last * 0.25}
        self.store.record(job.id, job.attempt, metrics=rows, progress=progress)

    def saved(self, job: Job, step: int, reason: str, **state: Any) -> None:
        row = {"step": step, "kind": "weights", "path": f"tinker://made/{job.id}-{step}", "reason": reason, "renderer": "chat_template"}
        self.store.record(job.id, job.attempt, checkpoints=[row | {"loop_state": {"tokens": 1, "seconds": 1.0, **state}}])


@pytest.fixture
def staged(engine: Engine) -> Staged:
    return Staged(engine)


PREFERRED = {"preference_loss": 0.6, "preference_accuracy": 0.9, "reward_margin": 2.0}
HELD = {"held_out_preference_loss": 0.5, "held_out_preference_accuracy": 0.96}
SCORED = {"reward": 0.5, "reward_spread": 0.2, "dead_groups": 0.3}


def test_every_goal_shows_what_its_data_looks_like(engine: Engine) -> None:
    page = open_wizard()
    shown = texts(page)
    assert not page.exception
    for name, goal in engine.planner.goals().items():
        assert goal["method"] in METHODS and goal["title"] in shown and ("demo" in goal or page.button(key=f"goal-{name}"))
    assert ":green[better]" in shown and ":orange[worse]" in shown and ":orange[found bad]" in shown and ":gray[expected]" in shown
    for name, goal in engine.planner.goals().items():
        if "demo" not in goal:
            page = open_wizard()
            page.button(key=f"goal-{name}").click().run()
            known = knowledge.method(goal["method"])
            assert not page.exception and known["use_when"][0] in texts(page)
            assert engine.drafts.get().changes.get("method", "sft") == goal["method"]


def test_a_goal_whose_method_cant_be_chosen_isnt_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowledge, "METHODS", ("sft",))
    assert {goal["method"] for goal in knowledge.goals().values()} == {"sft"} and knowledge.method_demos() == {}


def test_the_demo_of_pairs_is_one_click_from_its_review(engine: Engine) -> None:
    page = open_wizard()
    page.button(key="try-prefer").click().run()
    shown = texts(page)
    assert not page.exception and not page.button(key="launch").disabled
    assert "nano goes through 2 stages, 72 updates in all" in shown
    assert "First it learns from 4,478 examples" in shown and "Then it learns from 1,500 pairs of a better and a worse answer" in shown
    assert engine.planner.suggest(engine.drafts.get().changes).recipe == engine.demo_recipe("pairs")
    page.button(key="step-3").click().run()
    shown = texts(page)
    assert not page.exception and "Stage 2: Learn from preferences (DPO)" in shown and "60 updates on 1,500 rows" in shown
    # Another goal begins anew.
    page.button(key="step-0").click().run()
    page.button(key="goal-answer").click().run()
    assert not {"then", "training", "method"} & set(engine.drafts.get().changes)


def test_only_what_the_method_reads_is_shown(engine: Engine) -> None:
    kept = engine.datasets.add("pairs.jsonl", PAIRS).id
    engine.drafts.update(goal="prefer", step=3, changes={"method": "dpo", "data": {"dataset": kept}})
    page = open_wizard()
    boxes = [box.label for box in page.number_input]
    assert not page.exception and sum("held to what it was" in label for label in boxes) == 1
    assert "Holds the model near what it was" in texts(page) and not any("group size" in label for label in boxes)
    beta = next(box for box in page.number_input if "held to what it was" in box.label)
    beta.set_value(0.4).run()
    assert engine.drafts.get().changes["dpo"] == {"beta": 0.4}
    engine.drafts.update(expert=True, changes={"data": {"demo": "piglatin"}})
    page = open_wizard()
    assert not page.exception and not any("held to what it was" in box.label for box in page.number_input)
    next(box for box in page.selectbox if "expert-method" in str(box.key)).set_value("rl").run()
    shown = texts(page)
    assert "Trying out answers (RL)" in shown and "What is a good answer?" in shown and not page.exception
    page.text_input(key="find").set_value("early stopping").run()
    assert any("early stopping" in box.label for box in page.number_input)


@pytest.mark.parametrize("method", METHODS)
def test_the_form_and_the_review_of_each_method(engine: Engine, method: str) -> None:
    changes: dict[str, Any] = {"method": method, "data": {"demo": "piglatin"}}
    for state in ({"step": 3}, {"step": 4}, {"expert": True}):
        engine.drafts.update(**{"goal": "answer", "expert": False, "changes": changes, **state})
        page = open_wizard()
        assert (not page.exception and not page.error) or method in ("distill", "own_loss"), [error.value for error in page.error]
        assert "went wrong" not in texts(page).lower()


def test_stages_are_put_together_by_hand(engine: Engine) -> None:
    engine.drafts.update(goal="prefer", step=3, changes={"method": "dpo", "data": {"demo": "piglatin"}, "then": [{"method": "kto"}]})
    page = open_wizard()
    assert not page.exception and "Stage 2: Learn from thumbs up and down (KTO)" in texts(page)
    page.button(key="wizard-first").click().run()
    assert [stage.recipe.method for stage in engine.stages.list()] == ["sft", "dpo", "kto"] and not page.exception
    page.button(key="stage-earlier-3").click().run()
    assert [stage.recipe.method for stage in engine.stages.list()] == ["sft", "kto", "dpo"]
    page.button(key="stage-remove-2").click().run()
    steps = next(box for box in page.number_input if "wizard-stage2-training.steps" in str(box.key))
    steps.set_value(9).run()
    next(box for box in page.selectbox if "wizard-add" in str(box.key)).set_value("rl").run()
    assert not page.exception
    assert [(stage.recipe.method, stage.recipe.training.steps) for stage in engine.stages.list()][1:] == [("dpo", 9), ("rl", 140)]
    next(box for box in page.selectbox if "wizard-stage3-method" in str(box.key)).set_value("kto").run()
    assert engine.stages.list()[2].recipe.method == "kto" and "Stage 3: Learn from thumbs" in texts(page)


def test_a_stage_that_cant_be_says_why_and_what_to_do(engine: Engine) -> None:
    answers = engine.datasets.add("answers.jsonl", "\n".join(json.dumps({"prompt": f"{n}", "completion": "x"}) for n in range(60)).encode())
    engine.drafts.update(goal="answer", step=3, changes={"data": {"dataset": answers.id}, "then": [{"method": "dpo"}]})
    page = open_wizard()
    assert not page.exception and "pairs of a better and a worse answer are needed" in texts(page)
    next(box for box in page.selectbox if "wizard-stage2-data" in str(box.key)).set_value("demo:piglatin").run()
    assert "60 updates" in texts(page) or "updates on 1,500 rows" in texts(page)
    assert engine.stages.list()[1].error is None


def test_a_run_of_two_stages_as_it_goes(engine: Engine, staged: Staged) -> None:
    job = staged.begun()
    page = open_page(job=job.id)
    shown = texts(page)
    assert not page.exception and "Held-out loss has fallen from 1 to 0.5" in shown
    assert "**1 Learn from examples, SFT, 12 steps** → 2 Learn from preferences, DPO, 60 steps" in shown and "Stage 1" not in shown
    job = staged.second(job, 40, PREFERRED, HELD)
    assert [(one.begins, one.planned) for one in engine.runs.chapters(job)] == [(0, False), (12, False)]
    assert engine.runs.main_curves(job) == ("preference_loss", "held_out_preference_loss")
    assert [figure.text for figure in engine.runs.figures(job)] == ["0.0214", "48 %"]
    page = open_page(job=job.id)
    shown = texts(page)
    assert not page.exception and "Held-out preference loss has fallen from 0.5 to 0.25" in shown
    assert "Held-out pairs ranked rightly 48 %" in shown.replace("`", "") and "Margin" in shown
    assert ":blue[training]" in shown and "at a stage's end" in shown
    picked = next(one for one in page.get("button_group") if "curve." in str(one.key))
    picked.set_value("train_loss/held_out_loss").run()
    assert not page.exception and "Held-out loss has fallen from 1 to 0.5" in texts(page)


def test_a_rate_is_held_against_what_suits_its_stage(engine: Engine, staged: Staged) -> None:
    job = staged.second(staged.begun(), 40, PREFERRED, HELD)
    of_first, of_second = (engine.runs.recommended_rate("nano", method) for method in ("sft", "dpo"))
    curve = Curve([(40, 1e-3)])
    assert of_first != of_second
    assert engine.runs.band(job, "learning_rate", curve) == doctor.band("learning_rate", curve, of_second)


def test_the_doctor_looks_at_the_present_stage_alone(engine: Engine, staged: Staged) -> None:
    job = staged.second(staged.begun(), 72, PREFERRED, HELD)
    steps = range(1, 73)
    # The second stage's gradients are of another size from its beginning on; its loss rises in the end.
    norms = Curve((step, 0.1 if step <= 12 else 3.0) for step in steps)
    loss = Curve((step, 0.1 if step < 50 else 2.0) for step in steps if step > 12)
    found = engine.runs.diagnose(job, {"grad_norm": norms, "preference_loss": loss})
    assert [(one.level, one.metric) for one in found] == [("warning", "preference_loss")]
    assert not found[0].changes, "those would be the first stage's"
    assert Curve([(1, 0.5), (2, 0.4), (3, 0.3)]).since(2) == [(2, 0.4), (3, 0.3)]


def test_cards_show_the_figures_of_the_stage_that_runs(engine: Engine, staged: Staged, runs: Runs) -> None:
    staged.second(staged.begun(), 40, PREFERRED, HELD)
    staged.second(staged.begun("score"), 40, SCORED, {"held_out_reward": 0.4})
    runs.running("Plain")
    for page in (open_page(), open_page(HOME)):
        shown = texts(page).replace("`", "")
        assert not page.exception
        assert "pairs ranked rightly 48 %" in shown and "SFT → DPO" in shown
        assert "score 0.0179 · held-out score 0.2" in shown and "loss 0.1" in shown


def test_what_a_run_tries_is_shown_with_its_score(engine: Engine, staged: Staged) -> None:
    job = staged.second(staged.begun("score"), 40, SCORED, {"held_out_reward": 0.4})
    page = open_page(job=job.id)
    assert not page.exception and "What it tries" not in texts(page)
    rows = []
    for step in (39, 40):
        for which, score in (("best", 1.0), ("worst", 0.0)):
            row = {"step": step, "which": which, "prompt": "*Say* $x$", "expected": "hay", "answer": f"{which} of {step}", "score": score}
            rows.append(row | {"parts": {"exact": score, "length": 0.5}, "note": "too long", "tokens": 7, "cut_off": which == "worst"})
    (paths.job_folder(job.id) / rollouts.FILE).write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = open_page(job=job.id)
    shown = texts(page)
    assert not page.exception and "best of 40" in shown and "worst of 40" in shown and "best of 39" not in shown
    assert "score `1`" in shown and "cut off" in shown and "exact 0 · length 0.5" in shown and "too long" in shown
    page.select_slider(key="tried.at").set_value(39).run()
    assert "best of 39" in texts(page) and not page.exception
    with Engine(owner="somebody else") as stranger, pytest.raises(Exception, match="no job"):
        stranger.runs.rollouts(job)


def test_a_run_that_asks_before_it_goes_on(engine: Engine, staged: Staged) -> None:
    job = staged.begun()
    staged.saved(job, 12, "stage", stage=0, began=0)
    staged.saved(job, 12, "asked", stage=0, began=0)
    engine.store.set_fields(job.id, job.attempt, stage="saving a checkpoint", result={"asks": "the reward model ranks only 52%"})
    engine.store.set_control(job.id, "pause")
    engine.store.transition(job.id, "paused", attempt=job.attempt)
    page = open_page(job=job.id)
    assert not page.exception and "The reward model ranks only 52%." in texts(page)
    assert page.button(key="resume")


def test_a_proof_by_score_alone(engine: Engine, staged: Staged) -> None:
    job = staged.second(staged.begun("score"), 72, SCORED, {"held_out_reward": 0.4})
    from engine.data.examples import Example

    rows = [Example([{"role": "user", "content": f"write {n}"}], n) for n in range(30)]
    sides = [measure(lambda e, w, said=said: [said] * len(e), rows, [], None, 0, lambda e, a, s=score: {"reward": s}) for said, score in
             (("old", 0.25), ("new", 0.8))]  # fmt: skip
    engine.store.transition(job.id, "evaluating", attempt=job.attempt)
    result = {"seconds": 25.0, "tokens": 130000, "steps": 72, "checkpoint": "", "notes": [], **compare(*sides, rows)}
    engine.store.set_fields(job.id, job.attempt, result=result)
    engine.store.transition(job.id, "done", attempt=job.attempt)
    page = open_page(job=job.id)
    shown = texts(page)
    assert (
        not page.exception
        and "**Score on 30 prompts it had never seen: 0.25 → 0.8**" in shown
        and "Nothing was expected" in str(page.radio)
    )
    assert "score 0.25 → 0.8 on 30 new prompts" in texts(open_page())
    home = texts(open_page(HOME))
    assert "better by 0.55" in home
    assert engine.next_steps.find() and engine.assistant.say("how is my run?")


def test_mixed_methods_are_compared(engine: Engine, staged: Staged, runs: Runs) -> None:
    one = staged.second(staged.begun(), 40, PREFERRED, HELD)
    two = staged.second(staged.begun("score"), 40, SCORED, {"held_out_reward": 0.4})
    three = staged.second(staged.begun(name="Other", then=[{"method": "dpo", "training": {"steps": 60}}]), 40, PREFERRED, HELD)
    runs.running("Plain")
    rows = {row["id"]: row for row in engine.runs.table()}
    assert rows[one.id]["method"] == "sft → dpo" and rows[one.id]["held_out_preference_accuracy"] == 0.48
    assert rows[two.id]["reward"] is not None and rows[two.id]["preference_loss"] is None
    page = open_page(ANALYTICS, runs=f"{one.id},{three.id}")
    assert not page.exception and page.selectbox(key="what").value == "held_out_loss"
    page = open_page(ANALYTICS, runs=f"{one.id},{three.id}", y="held_out_preference_accuracy")
    assert "ended highest in" in texts(page)
    told = {row["field"] for row in engine.runs.differences([one.id, three.id])}
    assert told == {"stage 2 training.batch_size", "stage 2 training.learning_rate"}, told
    page = open_page(ANALYTICS, **{"as": "cards"})
    shown = texts(page)
    assert not page.exception and "pairs ranked rightly" in shown
    assert "preference loss `" in shown and "training loss `" in shown.lower(), "two losses are told apart"


def test_a_models_page_names_all_its_stages(engine: Engine, staged: Staged) -> None:
    known = {"base_model": "nano", "endpoint": "local", "renderer": "chat_template", "weights_path": "", "proof": None}
    model = engine.store.add_model("Two steps", job_id=staged.begun().id, sampler_path="tinker://made/two", **known)
    page = open_page(str(ROOT / "pages" / "models.py"), model=model.id)
    assert not page.exception and "Learn from examples (SFT), then Learn from preferences (DPO)" in texts(page)


def test_only_a_demo_that_was_run_is_offered_again(engine: Engine, staged: Staged, runs: Runs) -> None:
    staged.begun("score")
    labels = [button.label for button in open_page().button]
    assert "Teach it Pig Latin" in labels and "Teach it Pig Latin again" not in labels
    runs.running("Plain")
    assert "Teach it Pig Latin again" in [button.label for button in open_page().button]


def test_a_recipe_of_another_version_is_shown_all_the_same(engine: Engine, staged: Staged) -> None:
    job = staged.begun()
    with engine.store.write() as connection:
        from sqlalchemy import update

        from engine.store import schema

        connection.execute(update(schema.jobs).where(schema.jobs.c.id == job.id).values(recipe='{"method": "gone"}'))
    assert engine.runs.chapters(engine.job(job.id)) == []
    page: AppTest = open_page()
    assert not page.exception and "SFT" in texts(page)


@pytest.mark.parametrize("goal", [name for name, goal in knowledge.goals().items() if "try" in goal])
def test_the_demo_of_every_goal_is_whole_after_one_click(engine: Engine, goal: str) -> None:
    """What the review would start is what was measured, stage by stage."""
    page = open_wizard()
    page.button(key=f"try-{goal}").click().run()
    assert not page.exception and not page.button(key="launch").disabled, texts(page)
    name = knowledge.goals()[goal]["try"]
    assert engine.planner.suggest(engine.drafts.get().changes).recipe == engine.demo_recipe(name)
    page.button(key="step-3").click().run()
    assert not page.exception and f"Stage {len(engine.demo_recipe(name).then) + 1}" in texts(page)
