"""Every method through the endpoint `tinker`: the official SDK against our own server by URL and key, with the curves of this machine's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Recipe, keys
from engine.jobs.run import JobRun
from engine.recipe import METHODS
from tests.server.harness import KEY, RunningServer
from tests.training.test_methods import PLAIN, distilled, files, recipe, reinforced

__all__ = ["files"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
SHORT: dict[str, Any] = {"training": {"steps": 4, "batch_size": 4}, "evaluation": {"eval_every": 2}, "data": {"held_out_max": 6}}
FEW = {"group_size": 4, "max_new_tokens": 8, "kl": 0.1}
SEEN = {
    "sft": ("train_loss", "held_out_loss", "grad_norm"),
    "dpo": ("preference_loss", "held_out_preference_loss", "reward_margin", "chosen_logprob"),
    "kto": ("preference_loss", "held_out_preference_loss", "kl_baseline"),
    "rl": ("reward", "held_out_reward", "entropy", "answer_length"),
    "reward_model": ("preference_loss", "held_out_preference_accuracy", "calibration_error"),
    "rlhf": ("preference_loss", "reward", "kl"),
    "distill": ("train_loss", "held_out_loss"),
    "own_loss": ("own_loss", "held_out_own_loss"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    made = RunningServer(tmp_path_factory.mktemp("cloud"))
    yield made
    made.stop()


@pytest.fixture
def key(engine: Engine, server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TINKER_BASE_URL", server.url)
    engine.keys.give("tinker", KEY)
    yield
    for owner, name in keys.held():
        keys.unhold(owner, name)


def short(files: dict[str, Path], method: str) -> Recipe:
    made = {
        "rl": lambda: reinforced(files),
        "rlhf": lambda: recipe(files, "dpo", method="rlhf", reward_model={"steps": 4}, rl=FEW),
        "distill": lambda: distilled(files, "prompt").merged({"distill": {"temperature": 0.0}}),
        "own_loss": lambda: recipe(files, "own_loss", own_loss={"code": PLAIN}),
    }
    return made.get(method, lambda: recipe(files, method))().merged({**SHORT, "name": f"{method} short"})


@pytest.mark.parametrize("method", METHODS)
def test_the_same_curve_by_url_and_key(engine: Engine, files: dict[str, Path], key: None, method: str) -> None:
    asked = short(files, method)
    here, there = engine.run(asked), engine.run(asked.merged({"endpoint": "tinker"}))
    assert (here.state, there.state) == ("done", "done") and engine.job(there.job_id).endpoint == "tinker"
    for name in SEEN[method]:
        one, other = engine.curve(here.job_id, name), engine.curve(there.job_id, name)
        assert [step for step, _ in one] == [step for step, _ in other] != []
        assert [value for _, value in other] == pytest.approx([value for _, value in one], abs=1e-5), name
    assert {point.reason for point in engine.checkpoints(there.job_id)} == {point.reason for point in engine.checkpoints(here.job_id)}
    model = next(model for model in engine.models() if model.job_id == there.job_id)
    assert model.endpoint == "tinker" and model.sampler_path


def test_a_judge_that_is_a_base_model_is_asked_where_the_run_is(
    engine: Engine, files: dict[str, Path], key: None, server: RunningServer
) -> None:
    job = engine.store.create_job(short(files, "rl").merged({"endpoint": "tinker"}), reserve_for="nobody", reserve_s=600)
    assert JobRun(engine.store, job).asker().address("nano", "").url.startswith(server.url)
    engine.stop(job.id)


def test_on_policy_and_chains_go_there_too(engine: Engine, files: dict[str, Path], key: None) -> None:
    """A teacher that judges each token, and one stage after another."""
    judged = distilled(files, "on_policy").merged(SHORT)
    later = {"method": "dpo", "data": {"path": str(files["dpo"])}, "training": {"steps": 3, "learning_rate": 1e-3}}
    for asked, name in ((judged, "teacher_kl"), (recipe(files, "sft", then=[later]).merged(SHORT), "preference_loss")):
        here, there = engine.run(asked), engine.run(asked.merged({"endpoint": "tinker"}))
        one, other = engine.curve(here.job_id, name), engine.curve(there.job_id, name)
        assert [value for _, value in other] == pytest.approx([value for _, value in one], abs=1e-5) and one
