"""Full fine-tuning from a recipe, for real: nano learns the demo with all of its weights, and the model that comes of it answers."""

from __future__ import annotations

import pytest

from engine import Engine
from tests.running import after_step, until

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]


def test_nano_learns_pig_latin_with_all_of_its_weights(in_place, engine: Engine) -> None:
    chosen = {"data": {"demo": "piglatin"}, "full": True, "training": {"steps": 60}}
    recipe = engine.planner.suggest(chosen).recipe.merged({"evaluation": {"skills": False, "samples_every": 0}})
    assert recipe.full and recipe.training.learning_rate == 1e-3
    result = engine.run(recipe)
    assert result.held_out["before"]["exact_match"] < 0.02
    assert result.held_out["after"]["exact_match"] > 0.8
    assert "copying the model's weights" in [event.text for event in engine.events(result.job_id)]
    kinds = {checkpoint.kind for checkpoint in engine.checkpoints(result.job_id)}
    assert kinds == {"weights", "sampler_weights"}
    with engine.chat(recipe.name) as chat:
        assert chat.reply([{"role": "user", "content": "Pig Latin: hello"}]).strip() == "ello-hay"


def test_it_goes_on_from_a_pause(in_place, engine: Engine) -> None:
    short = {"evaluation": {"proof": False, "samples_every": 0, "eval_every": 0}, "name": "paused"}
    chosen = {"data": {"demo": "piglatin"}, "full": True, "training": {"steps": 30}}
    recipe = engine.planner.suggest(chosen).recipe.merged(short)
    with after_step(3, engine.pause):
        job = engine.run_job(recipe)
    assert job.state == "paused" and 3 <= job.step < 30
    engine.resume(job.id)
    until(lambda: engine.job(job.id).state in ("done", "failed"), 90)
    assert engine.job(job.id).state == "done"
    curve = engine.curve(job.id, "train_loss")
    assert [step for step, _ in curve] == list(range(1, 31))
    # What was learned before the pause is there after it: the first loss of the rest is far below that of the start.
    assert curve[job.step][1] < curve[0][1] and curve[-1][1] < curve[0][1] / 2
