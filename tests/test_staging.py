"""Stages of a draft and what is planned of them, through the Engine and the real store; nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from engine import Engine, Recipe, knowledge
from engine.errors import NotAllowed, NotFound, RecipeError
from engine.recipe import follower, method_parts, written

PAIRS = "\n".join(json.dumps({"prompt": f"word {n}", "chosen": f"WORD {n}", "rejected": f"word{n}"}) for n in range(80)).encode()
ANSWERS = "\n".join(json.dumps({"prompt": f"word {n}", "completion": f"WORD {n}"}) for n in range(80)).encode()
CHAIN = {
    "data": {"demo": "piglatin"},
    "training": {"steps": 12, "learning_rate": 5e-3},
    "then": [{"method": "dpo", "training": {"steps": 60, "learning_rate": 1e-3}, "dpo": {"beta": 0.2}}],
}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


def test_what_is_written_is_whole_and_can_be_said_again() -> None:
    recipe = Recipe.make(CHAIN)
    first, second = written(recipe)
    assert (first.method, second.method) == ("sft", "dpo") and not first.then and not second.then
    assert (second.training.steps, second.dpo.beta, second.data) == (60, 0.2, first.data)
    again = first.model_copy(update={"then": (follower(first, second),)})
    assert written(Recipe.make(again.model_dump(mode="json")))[1] == second


def test_a_later_stage_stays_as_it_is_when_an_earlier_one_changes(engine: Engine) -> None:
    engine.drafts.update(changes={"data": {"demo": "piglatin"}})
    engine.stages.add("dpo")
    before = engine.stages.list()[1].recipe
    engine.drafts.change("training.learning_rate", 1e-4)
    engine.drafts.change("training.steps", 7)
    first, second = (stage.recipe for stage in engine.stages.list())
    assert (first.training.steps, first.training.learning_rate) == (7, 1e-4)
    assert second == before and second.training.learning_rate == 1e-3 and second.training.steps == 100


def test_stages_are_added_moved_changed_and_taken_out(engine: Engine) -> None:
    assert engine.stages.list() == []
    engine.drafts.update(changes={"method": "dpo", "data": {"demo": "piglatin"}})
    engine.stages.put_first("sft")
    engine.stages.add("kto")
    stages = engine.stages.list()
    assert [stage.recipe.method for stage in stages] == ["sft", "dpo", "kto"]
    assert [stage.rows for stage in stages] == [4478, 1500, 3000] and not any(stage.error for stage in stages)
    engine.stages.change(2, "dpo.beta", 0.3)
    engine.stages.change(3, "training.steps", 9)
    engine.stages.move(3, -1)
    stages = engine.stages.list()
    assert [(stage.recipe.method, stage.steps) for stage in stages] == [("sft", 140), ("kto", 9), ("dpo", 100)]
    assert stages[2].recipe.dpo.beta == 0.3
    engine.stages.move(1, 1)
    assert [stage.recipe.method for stage in engine.stages.list()] == ["kto", "sft", "dpo"]
    assert engine.drafts.get().changes["method"] == "kto"
    engine.stages.remove(1)
    engine.stages.change(2, "training.steps", None)
    assert [(stage.recipe.method, stage.steps) for stage in engine.stages.list()] == [("sft", 140), ("dpo", 100)]
    engine.stages.remove(2)
    with pytest.raises(RecipeError, match="one stage at least"):
        engine.stages.remove(1)
    for ask in (lambda: engine.stages.move(1, 1), lambda: engine.stages.change(2, "seed", 1), lambda: engine.stages.add("magic")):
        with pytest.raises(NotFound):
            ask()


def test_a_stage_whose_data_doesnt_serve_says_so(engine: Engine) -> None:
    answers, pairs = engine.datasets.add("answers.jsonl", ANSWERS), engine.datasets.add("pairs.jsonl", PAIRS)
    engine.drafts.update(changes={"data": {"dataset": answers.id}})
    engine.stages.add("dpo")
    # Its neighbour's rows hold no pairs: it begins with data that serve, the person's own first.
    second = engine.stages.list()[1]
    assert second.source == f"dataset:{pairs.id}" and second.error is None and second.rows == 72
    assert f"dataset:{answers.id}" not in second.data and "demo:piglatin" in second.data
    engine.stages.change(2, "data", "demo:piglatin")
    assert engine.stages.list()[1].rows == 1500
    engine.drafts.update(changes=engine.drafts.get().changes | {"then": [{"method": "dpo"}]})
    error = engine.stages.list()[1].error
    assert error and "pairs of a better and a worse answer are needed" in error["message"]
    engine.datasets.delete(pairs.id)


def test_what_was_said_of_a_stages_data_doesnt_hold_for_other_data(engine: Engine) -> None:
    about = {"demo": "", "dataset": "0" * 12, "mapping": {"chosen": "good"}, "curriculum": "column", "curriculum_column": "level"}
    then = [{"method": "dpo", "data": about}]
    engine.drafts.update(changes={"data": {"demo": "piglatin"}, "then": then})
    engine.stages.change(2, "data", "demo:piglatin")
    assert engine.stages.list()[1].recipe.data == Recipe.make({"data": {"demo": "piglatin"}}).data


def test_a_plan_goes_over_all_stages(engine: Engine) -> None:
    recipe = engine.planner.suggest(knowledge.demo_recipe("pairs")).recipe
    plan = engine.planner.plan(recipe)
    assert plan.steps == 72 and [stage.steps for stage in plan.stages] == [12, 60]
    assert [stage.figures["shape"] for stage in plan.stages] == ["answers", "pairs"] and [s.goes_on for s in plan.stages] == [False, True]
    time = plan.estimates[0]
    assert time.assumptions[0].startswith("Stage 1: 12 updates") and "read to compare with" in time.assumptions[1]
    alone = engine.planner.plan(engine.demo_recipe("piglatin", {"training": {"steps": 12}})).estimates[0]
    assert time.value > alone.value
    wild = recipe.merged({"then": [{"method": "dpo", "training": {"steps": 60, "learning_rate": 0.5}}]})
    assert [one.text for one in engine.planner.plan(wild).warnings if "learning rate" in one.text] == [
        "Stage 2: the learning rate is 500 times what suits this model; the loss may jump and stay up."
    ]


def test_rlhf_is_planned_as_what_it_does(engine: Engine) -> None:
    recipe = engine.planner.suggest({"method": "rlhf", "data": {"demo": "piglatin"}, "training": {"steps": 5}}).recipe
    plan = engine.planner.plan(recipe.merged({"reward_model": {"steps": 4}}))
    assert [(stage.recipe.method, stage.steps, stage.goes_on) for stage in plan.stages] == [("reward_model", 4, False), ("rl", 5, False)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "dpo"}, "improves what a model can do already"),
        ({"method": "distill"}, "none is given"),
        ({"method": "distill", "distill": {"kind": "answers"}}, "the student itself"),
    ],
)
def test_what_a_method_lacks_is_said_before_it_starts(engine: Engine, changes: dict, said: str) -> None:
    plan = engine.planner.plan(engine.planner.suggest({"data": {"demo": "piglatin"}, **changes}).recipe)
    assert [one for one in plan.warnings if said in one.text]


def test_verdicts_of_one_kind_and_scores_without_anything_to_compare_with(engine: Engine) -> None:
    rows = "\n".join(json.dumps({"prompt": f"word {n}", "completion": "x", "label": True}) for n in range(80)).encode()
    good = engine.datasets.add("good.jsonl", rows).id
    told = engine.planner.plan(engine.planner.suggest({"method": "kto", "data": {"dataset": good}}).recipe).warnings
    assert told[0].level == "stop" and "All answers were found good" in told[0].text
    bare = engine.datasets.add("bare.jsonl", "\n".join(json.dumps({"prompt": f"word {n}"}) for n in range(80)).encode()).id
    changes = {"method": "rl", "data": {"dataset": bare}}
    told = engine.planner.plan(engine.planner.suggest(changes).recipe).warnings
    assert told[0].level == "stop" and "no prompt says what that is" in told[0].text
    length = {"reward": {"parts": [{"kind": "length", "longest": 5}]}}
    assert not [
        one for one in engine.planner.plan(engine.planner.suggest(changes | length).recipe).warnings if "no prompt says" in one.text
    ]


def test_the_files_and_programs_of_a_later_stage_are_guarded_as_those_of_the_first() -> None:
    with Engine(owner="visitor-1") as visitor:
        for stage in (
            {"data": {"path": "rows.jsonl"}},
            {"method": "own_loss", "own_loss": {"code": "def loss(l, w, r): return sum(l)"}},
            {"method": "rl", "reward": {"parts": [{"kind": "python", "code": "def reward(a, b, c, d): return 1"}]}},
            {"method": "distill", "distill": {"kind": "answers", "teacher": "x", "teacher_url": "http://127.0.0.1:1/v1"}},
        ):
            with pytest.raises(NotAllowed):
                visitor.launch(Recipe.make({"data": {"demo": "piglatin"}, "then": [stage]}))


def test_a_later_stages_data_set_is_its_owners(engine: Engine) -> None:
    kept = engine.datasets.add("pairs.jsonl", PAIRS).id
    recipe = Recipe.make({"data": {"demo": "piglatin"}, "then": [{"method": "dpo", "data": {"dataset": kept}}]})
    with Engine(owner="somebody else") as stranger:
        for ask in (stranger.launch, stranger.planner.plan):
            with pytest.raises(NotFound):
                ask(recipe)


def test_presets_hold_no_data_of_later_stages(engine: Engine) -> None:
    kept = engine.datasets.add("pairs.jsonl", PAIRS).id
    recipe = Recipe.make({"data": {"demo": "piglatin"}, "then": [{"method": "dpo", "data": {"dataset": kept}, "training": {"steps": 3}}]})
    engine.presets.save("Chain", recipe)
    assert engine.presets.load("Chain")["then"] == [{"method": "dpo", "training": {"steps": 3}}]


def test_each_method_has_its_own_parts() -> None:
    assert method_parts("sft") == [] and method_parts("dpo") == ["dpo"] and set(method_parts("rlhf")) == {"rl", "reward_model"}
    assert {"dpo", "kto", "rl", "reward", "distill"} <= set(method_parts())
