"""engine.rewards: kinds as people are shown them, and test runs on rows, typed answers and answers drawn from a real model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine import Engine, Recipe, endpoints, models, policy
from engine.errors import DataError, NotAllowed, NotFound, RecipeError
from engine.recipe.methods import REWARDS
from engine.rendering import get_renderer, load_tokenizer
from engine.rewards import DRAWN, OTHER, OWN, TYPED, histogram
from engine.training.rewards.asking import Asker
from tests.fakes.judge_server import JudgeServer
from tests.running import end_processes

DEMO = {"data": {"demo": "piglatin"}}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


@pytest.fixture
def rows(engine: Engine) -> dict[str, Any]:
    """A data set of the library, with a column beside prompts and answers."""
    lines = [{"prompt": f"What is {n} + {n}?", "answer": str(2 * n), "tests": f"assert double({n}) == {2 * n}"} for n in range(1, 31)]
    dataset = engine.datasets.add("sums.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    return {"data": {"dataset": dataset.id}}


def with_parts(changes: dict[str, Any], *parts: dict[str, Any]) -> dict[str, Any]:
    return {**changes, "reward": {"parts": list(parts)}}


def test_kinds_are_shown_with_the_fields_that_they_read(engine: Engine) -> None:
    kinds = engine.rewards.kinds()
    assert list(kinds) == list(REWARDS) and all(kind.allowed for kind in kinds.values())
    assert [field["name"] for field in kinds["length"].fields] == ["shortest", "longest", "unit"]
    assert kinds["length"].fields[0]["optional"] and kinds["length"].fields[2]["choices"] == ["characters", "words", "tokens"]
    assert kinds["python"].needs == "sandbox" and kinds["judge"].needs == "model"


def test_rows_own_answers_and_others(engine: Engine, rows: dict[str, Any]) -> None:
    found = engine.rewards.check(with_parts(rows, {"kind": "numeric"}), rows=6)
    assert len(found.scored) == 12 and len({one.row for one in found.scored}) == 6
    assert [one.score.value for one in found.scored if one.source == OWN] == [1] * 6
    assert [one.score.value for one in found.scored if one.source == OTHER] == [0] * 6
    assert (found.mean, found.spread, found.lowest, found.highest) == (0.5, 0.5, 0, 1)
    assert found.bins[0]["count"] == found.bins[-1]["count"] == 6 and sum(one["count"] for one in found.bins) == 12
    assert found.warnings == () and found.calls == 0 and found.seconds < 5
    assert found.scored[0].prompt.startswith("What is") and found.scored[0].tokens > 0


def test_columns_reach_the_reward(engine: Engine, rows: dict[str, Any]) -> None:
    code = "def reward(prompt, answer, expected, row):\n  return float(row['tests'].endswith(answer))"
    found = engine.rewards.check(with_parts(rows, {"kind": "python", "code": code}), rows=4)
    assert [one.score.value for one in found.scored if one.source == OWN] == [1] * 4
    double = "def double(n): return 2 * n"
    found = engine.rewards.check(with_parts(rows, {"kind": "code_tests"}), source="typed", answers=[double, "def double(n): return 0"])
    assert [(one.score.value, one.source) for one in found.scored] == [(1, TYPED), (0, TYPED)]


def test_typed_answers(engine: Engine) -> None:
    part = {"kind": "length", "longest": 3}
    found = engine.rewards.check(with_parts(DEMO, part), source="typed", answers=["one two", "one two three four five six"])
    assert [one.score.value for one in found.scored] == [1, 0] and found.scored[1].score.note == "6 words, at most 3 wanted"
    with pytest.raises(RecipeError, match="no answers to score"):
        engine.rewards.check(with_parts(DEMO, part), source="typed")


SPLITS = "def reward(p, a, e, r):\n  return 1 / (a == e)"


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([{"kind": "length", "longest": 1000}], "Every answer scores the most that there is"),
        ([{"kind": "regex", "pattern": "never said"}], "Every answer scores 0, so there is nothing to learn from"),
        ([{"kind": "exact", "weight": -1}], "Right answers score -1 on average, wrong ones 0"),
        ([{"kind": "exact"}, {"kind": "length", "longest": 1000}], "The part length scores every answer 1, so it changes nothing"),
        ([{"kind": "python", "code": SPLITS}], r"of 16 answers couldn't be scored and count 0: .*line 2"),
    ],
)  # fmt: skip
def test_what_would_teach_nothing_is_told(engine: Engine, parts: list[dict[str, Any]], says: str) -> None:
    warnings = engine.rewards.check(with_parts(DEMO, *parts)).warnings
    assert any(re.search(says, warning) for warning in warnings), warnings


def test_errors_are_those_that_a_run_would_end_with(engine: Engine, rows: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="no column 'label'"):
        engine.rewards.check(with_parts(rows, {"kind": "exact", "expected": "label"}))
    with pytest.raises(RecipeError, match="earlier stage"):
        engine.rewards.check(with_parts(rows, {"kind": "reward_model", "model": "stage:0"}))
    with pytest.raises(DataError, match="names no data"):
        engine.rewards.check(with_parts({}, {"kind": "exact"}))


def test_who_judges_the_proof_is_tried_too(engine: Engine, rows: dict[str, Any]) -> None:
    asked = {**rows, "method": "rl", "reward": {"parts": [{"kind": "regex", "pattern": "never said"}]}}
    found = engine.rewards.check(asked | {"evaluation": {"judge": [{"kind": "numeric"}]}}, rows=6, judge=True)
    assert [one.score.value for one in found.scored if one.source == OWN] == [1] * 6 and not found.warnings
    # 30 rows, 3 of them held out, answered by both sides; the recipe's own step would be far more.
    assert found.step_seconds == pytest.approx(found.seconds / 12 * 6)
    by_answers = engine.rewards.check(asked, rows=6, judge=True)
    assert [one.score.value for one in by_answers.scored if one.source == OTHER] == [0] * 6, "nobody named: the right answers tell"
    flat = engine.rewards.check(asked | {"evaluation": {"judge": [{"kind": "regex", "pattern": "no"}]}}, judge=True).warnings
    assert any("Every answer scores 0, so no answer would win over another" in warning for warning in flat), flat
    with pytest.raises(RecipeError, match="no column 'label'"):
        engine.rewards.check(asked | {"evaluation": {"judge": [{"kind": "exact", "expected": "label"}]}}, judge=True)


def test_a_judges_calls_are_counted(engine: Engine) -> None:
    with JudgeServer(lambda body, number: f'{{"score": {number % 11}}}') as server:
        part = {"kind": "judge", "rubric": "Right?", "model": "wise", "url": server.url}
        found = engine.rewards.check(with_parts(DEMO, part), rows=5)
        assert found.calls == 10 == len(server.bodies) and found.tokens == 120


def test_visitors_run_no_programs_and_name_no_servers() -> None:
    with Engine(f"{policy.VISITOR}1") as visitor:
        kinds = visitor.rewards.kinds()
        assert [name for name, kind in kinds.items() if not kind.allowed] == ["code_tests", "python"]
        assert "url" not in [field["name"] for field in kinds["judge"].fields]
        python = {"kind": "python", "code": "def reward(*a): return 1"}
        judge = {"kind": "judge", "rubric": "x", "model": "m", "url": "http://169.254.169.254/v1"}
        for part in (python, {"kind": "code_tests"}, judge, {"kind": "judge", "rubric": "x", "model": "someone/large"}):
            with pytest.raises(NotAllowed):
                visitor.rewards.check(with_parts(DEMO, part))
            with pytest.raises(NotAllowed):
                visitor.launch(visitor.demo_recipe("piglatin", {"reward": {"parts": [part]}}))
        with pytest.raises(NotAllowed):
            visitor.rewards.give_key("http://10.0.0.1/v1", "key")
        assert visitor.rewards.check(with_parts(DEMO, {"kind": "exact"})).mean == 0.5


def test_histogram() -> None:
    assert histogram([1.0, 1.0]) == [{"low": 0.5, "high": 1.5, "count": 2}]
    bins = histogram([0.0, 0.04, 0.5, 1.0])
    assert len(bins) == 20 and [one["count"] for one in bins if one["count"]] == [2, 1, 1]
    assert bins[10]["count"] == 1 and bins[-1]["high"] == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_answers_drawn_from_a_model_and_scored_by_a_reward_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nano learns that what is shouted is good; its odds over HTTP are those that its log-probabilities give by themselves."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    pairs = [{"prompt": f"Shout word{n}", "chosen": f"WORD{n}!", "rejected": f"word{n}."} for n in range(40)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    with Engine() as engine:
        try:
            quiet = {"proof": False, "skills": False, "samples_every": 0, "eval_every": 0}
            training = {"steps": 30, "batch_size": 8, "learning_rate": 2e-3, "schedule": "constant", "warmup": 0}
            changes = {"method": "reward_model", "data": {"path": str(file)}, "training": training, "evaluation": quiet, "name": "liker"}
            engine.run(Recipe.make({**changes, "reward_model": {"go_on": True}, "lora": {"rank": 8}}))
            model = engine.models()[0]
            shout = {"data": {"path": str(file)}, "rl": {"max_new_tokens": 12, "temperature": 1.0}}
            scored = engine.rewards.check(with_parts(shout, {"kind": "reward_model", "model": model.id}), rows=6)
            own, other = ([one.score.value for one in scored.scored if one.source == where] for where in (OWN, OTHER))
            assert min(own) > 0 and scored.calls == 12
            typed = engine.rewards.check(with_parts(shout, {"kind": "reward_model", "model": model.id}), source="typed", answers=["word1."])
            assert typed.scored[0].score.value < 0 < min(own)

            talk = [{"role": "user", "content": "Shout word3"}, {"role": "assistant", "content": "WORD3!"}]
            question = "Is that a good answer? Say yes or no."
            found = Asker(engine.store, engine.owner).odds(model.id, [talk], question)[0]
            renderer = get_renderer(model.renderer, load_tokenizer(models.nano_folder()))
            asked = [*talk, {"role": "user", "content": question}]
            tokens = renderer.prompt(asked)
            endpoint = endpoints.start("local", "nano", models.nano_folder())
            endpoint.ready(lambda text: None)
            yes = renderer.examples([*asked, {"role": "assistant", "content": "yes"}])[-1].tokens[len(tokens)]
            body = {"model": model.sampler_path, "prompt": [*tokens, yes], "max_tokens": 0, "echo": True, "logprobs": 1}
            reply = httpx.post(
                f"{endpoint.chat_url}/completions", json=body, headers={"Authorization": f"Bearer {endpoint.key()}"}, timeout=60
            )
            p = math.exp(reply.json()["choices"][0]["logprobs"]["token_logprobs"][-1])
            expected = math.log(min(p, 1 - 1e-4)) - math.log1p(-min(p, 1 - 1e-4))
            assert found == pytest.approx(expected, abs=0.05)

            drawn = engine.rewards.check(with_parts(shout, {"kind": "normalised"}), rows=3, source="sampled", tries=4)
            assert len(drawn.scored) == 12 and {one.source for one in drawn.scored} == {DRAWN}
            assert all(0 < one.tokens <= 12 for one in drawn.scored) and len({one.answer for one in drawn.scored}) > 3
            assert any(one.cut_off for one in drawn.scored) == any(one.tokens == 12 for one in drawn.scored)
            with pytest.raises(NotFound):
                engine.rewards.check(with_parts(shout, {"kind": "reward_model", "model": "nobody's"}))
        finally:
            end_processes(tmp_path / "thinker_home")
