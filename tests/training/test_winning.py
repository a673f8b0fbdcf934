"""Who wins, through the real SDK against a real server on nano: what is compared with what, by which judge, and what a judge that fails
costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, Recipe
from engine.errors import EngineError
from engine.evaluation import outcome
from engine.evaluation.metrics import wilson
from engine.store.artefacts import read_json

pytestmark = pytest.mark.timeout(300)
WORDS = [f"word{i}" for i in range(40)]


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    rows = [{"prompt": f"Shout {word}", "chosen": f"{word.upper()}!", "rejected": word} for word in WORDS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return {"path": str(tmp_path / "pairs.jsonl"), "held_out_fraction": 0.3}


def recipe(data: dict[str, Any], judge: list[dict[str, Any]], **changes: Any) -> Recipe:
    whole: dict[str, Any] = {"data": data, "lora": {"rank": 8}, "checkpoints": {"every_steps": 0, "every_seconds": 0}}
    whole["training"] = {"steps": 30, "batch_size": 8, "learning_rate": 5e-3, "schedule": "constant", "warmup": 0}
    whole["evaluation"] = {"skills": False, "samples_every": 0, "eval_every": 0, "max_new_tokens": 12, "judge": judge}
    return Recipe.make({**whole, **changes})


def test_without_a_judge_right_answers_win(engine: Engine, data: dict[str, Any]) -> None:
    found = engine.run(recipe(data, []))
    proof, won = read_json(engine.job(found.job_id).folder / "proof.json"), found.win_rate
    assert won is not None and won == proof["win_rate"]
    assert (won["judge"], won["against"], won["count"]) == (["exact"], "start", 12)
    # Each of these prompts changed sides once, so the proof's own count says the same.
    assert (won["wins"], won["losses"]) == (found.better, found.worse) and won["wins"] >= 6
    assert won["rate"] == pytest.approx((won["wins"] + won["ties"] / 2) / 12)
    assert (won["low"], won["high"]) == pytest.approx(wilson(12 * won["rate"], 12))


def test_a_later_stage_is_held_against_what_it_began_with(engine: Engine, data: dict[str, Any]) -> None:
    """What the first stage has taught is no win of the second, which changes nothing."""
    loud = [{"kind": "regex", "name": "loud", "pattern": "[A-Z0-9]+!", "whole": True, "ignore_case": False}]
    follows = [{"method": "dpo", "training": {"steps": 1, "learning_rate": 1e-7}}]
    found = engine.run(recipe(data, loud, then=follows))
    won = found.win_rate
    assert won is not None and (won["judge"], won["against"], won["count"]) == (["loud"], "stage", 12)
    assert (won["wins"], won["losses"], won["rate"]) == (0, 0, 0.5)
    assert found.better >= 6, "against the start of the whole run it did get better"


def test_each_prompt_counts_once_and_no_bad_answer_is_right(engine: Engine, data: dict[str, Any], tmp_path: Path) -> None:
    """Thumbs: to each prompt two good answers and a bad one, which is what the model says by itself."""
    said = [(word, answer, good) for word in WORDS for answer, good in ((word[::-1], False), (f"{word}!", True), (f"{word}?", True))]
    rows = [{"prompt": f"Reverse {word}", "completion": answer, "label": good} for word, answer, good in said]
    (tmp_path / "thumbs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    thumbs = {"path": str(tmp_path / "thumbs.jsonl"), "held_out_fraction": 0.3}
    found = engine.run(recipe(thumbs, [], method="kto", training={"steps": 1, "batch_size": 4, "learning_rate": 1e-7}))
    assert found.win_rate is not None and found.win_rate["count"] == 12 and found.win_rate["rate"] == 0.5
    before = found.held_out["before"]
    assert before["count"] == 24 and before["exact_match"] == 0, "an answer that was found bad is nothing to come to"
    proof = read_json(engine.job(found.job_id).folder / "proof.json")
    assert {row["was_right"] for row in proof["examples"]} == {False, None} and len(proof["examples"]) == 36


def test_what_cant_be_judged_is_no_tie(engine: Engine, data: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"prompt": f"Shout {word}", "completion": f"{word.upper()}!"} for word in WORDS]
    for row in rows[::2]:
        row["right"] = row["completion"]
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    some = {"path": str(tmp_path / "some.jsonl"), "held_out_fraction": 0.3}
    found = engine.run(recipe(some, [{"kind": "exact", "expected": "right"}], training={"steps": 1}))
    won = found.win_rate
    assert won is not None and won["count"] + won["unjudged"] == 12 and 0 < won["unjudged"] < 12
    assert f"of {won['unjudged']} more an answer couldn't be scored" in outcome.wins_sentence({"win_rate": won})


def test_a_budget_without_room_for_it_costs_the_win_rate_alone(engine: Engine, data: dict[str, Any]) -> None:
    chain = recipe(data, [], training={"steps": 2}, then=[{"method": "dpo", "training": {"steps": 1}}])
    whole = engine.job(engine.run(chain).job_id).result
    assert whole is not None and whole["win_rate"]["count"] == 12
    most = sum(whole["counted"].values()) - 1
    found = engine.run(chain.merged({"budget": {"max_tokens": most}}))
    assert found.state == "done" and found.held_out["after"]["count"] == 12 and found.win_rate is not None
    assert "no room" in found.win_rate["problem"] and sum(engine.job(found.job_id).result["counted"].values()) < most


def test_a_model_may_judge(engine: Engine, data: dict[str, Any]) -> None:
    taught = {"method": "reward_model", "name": "taste", "training": {"steps": 30, "batch_size": 8, "learning_rate": 2e-3}}
    engine.run(recipe(data, [], **taught))
    found = engine.run(recipe(data, [{"kind": "reward_model", "model": "taste"}]))
    won = found.win_rate
    assert won is not None and won["judge"] == ["reward_model"] and won["wins"] >= 8, won


def test_a_judge_that_fails_spoils_nothing(engine: Engine, data: dict[str, Any]) -> None:
    found = engine.run(recipe(data, [{"kind": "exact", "expected": "nowhere"}], training={"steps": 1}))
    assert found.state == "done" and found.held_out["after"]["count"] == 12
    assert "no column 'nowhere'" in found.win_rate["problem"]


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ([{"kind": "json_schema", "form": {"type": "nonsense"}}], "evaluation.judge.0.form"),
        ([{"kind": "reward_model", "model": "stage:0"}], "proves nothing"),
    ],
)
def test_a_judge_that_cant_be_is_refused_before_anything_is_spent(
    engine: Engine, data: dict[str, Any], judge: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(EngineError) as caught:
        engine.run(recipe(data, judge))
    assert said in f"{caught.value.where} {caught.value}"
