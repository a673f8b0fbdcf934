"""What a reward model makes of pairs and of thumbs: its slopes, its ranking, and a run from thumbs to a model that pleases."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine import Engine, Recipe
from engine.data import Example
from engine.errors import DataError
from engine.training.methods.reward_model import FromPairs, FromThumbs, RewardModel, odds, ranked


def rated(good: bool | None) -> Example:
    return Example([{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}], 1, good=good)


def loss_of_thumbs(p: float, good: bool) -> float:
    return -p if good else -math.log1p(-math.exp(p))


def loss_of_pairs(c: float, r: float) -> float:
    return math.log1p(math.exp(odds(r) - odds(c)))


@pytest.mark.parametrize("p", [-0.02, -0.7, -3.0, -9.0])
def test_the_slopes_are_those_of_the_loss(p: float) -> None:
    h = 1e-6
    for good in (True, False):
        (slope,) = FromThumbs._slopes(SimpleNamespace(), rated(good), [p])
        assert slope == pytest.approx(-(loss_of_thumbs(p + h, good) - loss_of_thumbs(p - h, good)) / (2 * h), rel=1e-5)
    for other in (-0.3, -5.0):
        slopes = FromPairs._slopes(SimpleNamespace(), rated(None), [p, other])
        by_chosen = (loss_of_pairs(p + h, other) - loss_of_pairs(p - h, other)) / (2 * h)
        by_rejected = (loss_of_pairs(p, other + h) - loss_of_pairs(p, other - h)) / (2 * h)
        assert slopes == [pytest.approx(-by_chosen, rel=1e-5, abs=1e-9), pytest.approx(-by_rejected, rel=1e-5, abs=1e-9)]


def test_ranking_is_the_area_under_the_curve() -> None:
    # Of 3 > 2, 3 > 1, 1 < 2 and 1 = 1: two and a half of four.
    assert ranked([3, 1], [2, 1]) == 0.625
    assert ranked([2, 3], [0, 1]) == 1.0 and ranked([0], [1, 2]) == 0.0 and ranked([5, 5], [5]) == 0.5


def test_what_says_nothing_of_an_answer_is_no_row() -> None:
    assert (
        FromThumbs._conversations(SimpleNamespace(), rated(None)) == [] and FromPairs._conversations(SimpleNamespace(), rated(True)) == []
    )
    with pytest.raises(NotImplementedError):
        RewardModel._conversations(SimpleNamespace(), rated(True))


def thumbs(folder: Path, count: int = 60) -> Path:
    """Shouting is liked, whispering isn't; nobody rated two answers to one prompt."""
    rows: list[dict[str, Any]] = []
    for number in range(count):
        said = f"WORD{number}!" if number % 2 else f"word{number}."
        rows.append({"prompt": f"Say word{number}", "completion": said, "label": bool(number % 2)})
    (folder / "thumbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "thumbs.jsonl"


def recipe(file: Path, **changes: Any) -> Recipe:
    training = {"steps": 24, "batch_size": 8, "learning_rate": 2e-3, "schedule": "constant", "warmup": 0}
    quiet = {"proof": False, "skills": False, "samples_every": 0, "eval_every": 8}
    whole = {"name": "taste", "method": "reward_model", "data": {"path": str(file), "held_out_fraction": 0.2}, "lora": {"rank": 8}}
    return Recipe.make({**whole, "training": training, "evaluation": quiet}).merged(changes)


@pytest.mark.slow
def test_thumbs_teach_to_score(engine: Engine, tmp_path: Path) -> None:
    found = engine.run(recipe(thumbs(tmp_path)))
    accuracy = [value for _, value in engine.curve(found.job_id, "held_out_preference_accuracy")]
    assert accuracy[-1] >= 0.95, accuracy
    losses = [value for _, value in engine.curve(found.job_id, "held_out_preference_loss")]
    assert losses[-1] < 0.5 * losses[0]
    assert engine.curve(found.job_id, "calibration_error") and engine.curve(found.job_id, "reward_margin")[-1][1] > 0
    # What was learned from thumbs scores any answer, by its rewards' page too.
    wanted = {"method": "rl", "data": {"path": str(thumbs(tmp_path))}, "reward": {"parts": [{"kind": "reward_model", "model": "taste"}]}}
    checked = engine.rewards.check(wanted, source="typed", answers=["LOUD!", "quiet."])
    good, bad = (row.score.value for row in checked.scored)
    assert good > bad


@pytest.mark.slow
def test_from_thumbs_to_a_model_that_pleases(engine: Engine, tmp_path: Path) -> None:
    """Both stages of RLHF from thumbs alone."""
    changes = {"method": "rlhf", "reward_model": {"steps": 24}, "rl": {"group_size": 4, "max_new_tokens": 12}}
    found = engine.run(recipe(thumbs(tmp_path), **changes, training={"steps": 3, "batch_size": 4, "learning_rate": 1e-3}))
    assert len(engine.curve(found.job_id, "reward")) == 3 and engine.job(found.job_id).state == "done"


def test_dpo_still_wants_pairs(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="these are answers found good or bad, and pairs of a better and a worse answer are needed"):
        engine.run(recipe(thumbs(tmp_path), method="dpo"))
    (tmp_path / "plain.jsonl").write_text('{"prompt": "Q", "completion": "A"}\n' * 20)
    with pytest.raises(DataError, match="or answers found good or bad are needed"):
        engine.run(recipe(tmp_path / "plain.jsonl"))
