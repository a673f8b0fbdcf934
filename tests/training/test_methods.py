"""Every method through the real SDK against a real server on nano: what its first numbers are by independent means, that it learns, and
that a pause, a stop or a kill changes nothing."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine import Engine, Recipe, models
from engine.data import load_data
from engine.engine import Result
from engine.errors import EngineError
from engine.jobs import host
from engine.rendering import get_renderer, load_tokenizer
from engine.training import rollouts
from engine.training.methods import make_method
from tests.running import until
from tests.training.held import held

pytestmark = pytest.mark.timeout(300)
QUIET = {"proof": False, "skills": False, "samples_every": 0, "max_new_tokens": 12}
WORDS = [f"word{i}" for i in range(40)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same task as answers, pairs and ratings: say the word louder."""
    folder = tmp_path_factory.mktemp("data")
    rows: dict[str, list[dict[str, Any]]] = {
        "sft": [{"prompt": f"Shout {word}", "completion": f"{word.upper()}!"} for word in WORDS],
        "dpo": [{"prompt": f"Shout {word}", "chosen": f"{word.upper()}!", "rejected": f"{word}."} for word in WORDS],
        "kto": [
            {"prompt": f"Shout {word}", "completion": said, "label": good}
            for word in WORDS
            for said, good in ((f"{word.upper()}!", True), (f"{word}.", False))
        ],
    }
    rows["rl"] = rows["distill"] = [{"prompt": f"Reverse {word}", "answer": word[::-1]} for word in WORDS]
    rows["reward_model"], rows["own_loss"] = rows["dpo"], rows["sft"]
    for name, found in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return {name: folder / f"{name}.jsonl" for name in rows}


def recipe(files: dict[str, Path], kind: str, **changes: Any) -> Recipe:
    training = {"steps": 24, "batch_size": 8, "learning_rate": 2e-3, "schedule": "constant", "warmup": 0}
    whole: dict[str, Any] = {"method": kind, "data": {"path": str(files[kind])}, "evaluation": {**QUIET, "eval_every": 6}}
    whole |= {"training": training, "lora": {"rank": 8}, "checkpoints": {"every_steps": 6, "every_seconds": 0}}
    return Recipe.make(whole).merged(changes)


def curve(engine: Engine, job_id: str, name: str) -> list[float]:
    return [value for _, value in engine.curve(job_id, name)]


def test_dpo_equals_plain_pytorch(engine: Engine, files: dict[str, Path]) -> None:
    """The first step's loss and the length of its gradient, with all weights trained, against transformers and autograd."""
    import torch
    import torch.nn.functional as F
    from transformers import AutoModelForCausalLM

    from engine.rendering import get_renderer, load_tokenizer

    changes = {"full": True, "data": {"held_out_fraction": 0}, "training": {"batch_size": 40, "steps": 1, "grad_clip_norm": 0}}
    found = engine.run(recipe(files, "dpo", **changes))
    model = AutoModelForCausalLM.from_pretrained(models.nano_folder(), dtype=torch.float32)
    renderer = get_renderer("auto", load_tokenizer(models.nano_folder()))
    beta, nll = 0.1, 0.3
    loss = torch.zeros(())
    for word in WORDS:
        sums, lengths = [], []
        for said in (f"{word.upper()}!", f"{word}."):
            messages = [{"role": "user", "content": f"Shout {word}"}, {"role": "assistant", "content": said}]
            (row,) = renderer.examples(messages)
            tokens, weights = torch.tensor(row.tokens), torch.tensor(row.weights)
            logprobs = model(tokens[None, :-1]).logits[0].log_softmax(-1).gather(1, tokens[1:, None])[:, 0]
            sums.append((logprobs * weights[1:]).sum())
            lengths.append(weights[1:].sum())
        gains = [now - now.detach() for now in sums]
        loss = loss - (F.logsigmoid(beta * (gains[0] - gains[1])) + nll * sums[0] / lengths[0]) / len(WORDS)
    loss.backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters() if p.grad is not None))
    assert curve(engine, found.job_id, "preference_loss") == [pytest.approx(loss.item(), rel=1e-4)]
    # The server may multiply in bfloat16 on the way back.
    assert curve(engine, found.job_id, "grad_norm") == [pytest.approx(norm.item(), rel=1e-2)]


@pytest.mark.parametrize("variant", ["dpo", "ipo", "simpo"])
def test_pairs_teach_to_prefer(engine: Engine, files: dict[str, Path], variant: str) -> None:
    # What suits a mean over tokens is a larger beta.
    options = {"variant": variant, "beta": 0.1 if variant == "dpo" else 2.0 if variant == "simpo" else 0.5}
    found = engine.run(recipe(files, "dpo", dpo=options))
    accuracy = curve(engine, found.job_id, "held_out_preference_accuracy")
    assert accuracy[-1] == 1.0, accuracy
    chosen = curve(engine, found.job_id, "held_out_chosen_logprob")
    assert chosen[-1] > chosen[0] + 0.5, "with the NLL term the better answers get likelier too"
    margin = curve(engine, found.job_id, "reward_margin")
    assert margin[-1] > margin[0] + 0.5


def test_the_first_numbers_of_pairs(engine: Engine, files: dict[str, Path]) -> None:
    found = engine.run(recipe(files, "dpo", dpo={"nll": 0}, training={"steps": 2}))
    assert curve(engine, found.job_id, "preference_loss")[0] == pytest.approx(0.693147, abs=1e-5)
    assert curve(engine, found.job_id, "reference_shift")[0] == pytest.approx(0, abs=1e-5)


def test_ratings_teach_to_prefer(engine: Engine, files: dict[str, Path]) -> None:
    found = engine.run(recipe(files, "kto", training={"steps": 40}))
    assert curve(engine, found.job_id, "preference_loss")[0] == pytest.approx(0.5, abs=1e-5), "1 - sigmoid(0)"
    assert curve(engine, found.job_id, "held_out_preference_accuracy")[-1] >= 0.9
    good, bad = (curve(engine, found.job_id, f"held_out_{kind}_reward")[-1] for kind in ("chosen", "rejected"))
    assert good > 0 > bad


def test_the_baseline_of_ratings_looks_at_answers_to_other_prompts(files: dict[str, Path]) -> None:
    """Pairs become a good and a bad answer to the same prompt, one after the other."""
    wanted = recipe(files, "kto")
    renderer = get_renderer("auto", load_tokenizer(models.nano_folder()))
    made = make_method(wanted, load_data(wanted), renderer, 1024)
    for own, other, _ in made._rows:
        word, elsewhere = (re.findall(r"word\d+", renderer.text(row.tokens).lower()) for row in (own, other))
        assert len(elsewhere) == 2 and elsewhere[0] == word[0] and elsewhere[1] != word[0]


def test_a_loss_of_ones_own_holds_nothing_before_it_is_needed(files: dict[str, Path]) -> None:
    wanted = recipe(files, "own_loss", own_loss={"code": PLAIN})
    before = psutil.Process().children()
    method = make_method(wanted, load_data(wanted), get_renderer("auto", load_tokenizer(models.nano_folder())), 1024)
    assert psutil.Process().children() == before and method.rows


def chain(files: dict[str, Path]) -> Recipe:
    later = {"method": "dpo", "data": {"path": str(files["dpo"])}, "training": {"steps": 16, "learning_rate": 1e-3}}
    return recipe(files, "sft", training={"steps": 10}, then=[later])


def test_stages_follow_one_another(engine: Engine, files: dict[str, Path]) -> None:
    found = engine.run(chain(files))
    assert [step for step, _ in engine.curve(found.job_id, "train_loss")] == list(range(1, 11))
    assert [step for step, _ in engine.curve(found.job_id, "preference_loss")] == list(range(11, 27))
    reasons = {c.step: c.reason for c in engine.checkpoints(found.job_id) if c.kind == "weights"}
    assert reasons[10] == "stage" and reasons[26] == "end"
    before, after = curve(engine, found.job_id, "held_out_chosen_logprob")[0], curve(engine, found.job_id, "held_out_loss")[-1]
    assert before == pytest.approx(-after, abs=0.02), "the second stage begins with what the first learned"
    assert engine.job(found.job_id).total_steps == 26


def reinforced(files: dict[str, Path], **changes: Any) -> Recipe:
    """nano knows how to reverse words, though not always these."""
    rl = {"group_size": 6, "max_new_tokens": 12}
    return recipe(files, "rl", rl=rl, training={"steps": 12, "batch_size": 4, "learning_rate": 1e-3}).merged(changes)


def distilled(files: dict[str, Path], kind: str) -> Recipe:
    how = {"kind": kind, "teacher_prompt": "You are a parrot.", "max_new_tokens": 12, "group_size": 3}
    return recipe(files, "distill", distill=how, training={"steps": 12, "batch_size": 6})


def test_a_score_rises(engine: Engine, files: dict[str, Path]) -> None:
    """What is wanted is a short answer, whatever it says: nano has to leave out letters."""
    short = {"parts": [{"kind": "length", "longest": 2, "unit": "characters"}, {"kind": "contains", "texts": ["w"], "weight": 0.5}]}
    wanted = reinforced(files, reward=short, rl={"group_size": 16, "loss": "ppo", "updates": 2}, training={"steps": 24, "batch_size": 8})
    found = engine.run(wanted)
    scores = curve(engine, found.job_id, "reward")
    assert sum(scores[-4:]) / 4 > sum(scores[:2]) / 2 + 0.3, scores
    held_out = curve(engine, found.job_id, "held_out_reward")
    assert held_out[-1] > held_out[0]
    assert {"reward/length", "reward/contains", "clip_share", "entropy", "dead_groups"} <= set(engine.metric_names(found.job_id))
    shown = rollouts.shown(engine.job(found.job_id).folder)
    assert shown[0]["step"] == 24 and {row["which"] for row in shown} == {"best", "worst"}
    best, worst = shown[0], shown[1]
    assert best["score"] >= worst["score"] and set(best["parts"]) == {"length", "contains"}


def test_what_is_drawn_is_what_learns(engine: Engine, files: dict[str, Path]) -> None:
    found = engine.run(reinforced(files, training={"steps": 2}))
    assert curve(engine, found.job_id, "policy_kl")[0] == pytest.approx(0, abs=1e-4), "drawn and learned from by the same weights"
    assert curve(engine, found.job_id, "clip_share")[0] == 0.0
    ahead = engine.run(reinforced(files, rl={"ahead": True}, training={"steps": 6}))
    assert len(curve(engine, ahead.job_id, "reward")) == 6
    gaps = [abs(gap) for gap in curve(engine, ahead.job_id, "policy_kl")]
    assert max(gaps[1:]) > 1e-4, "from the second step on, the answers are from weights that are one update old"


def test_rewards_by_a_reward_model(engine: Engine, files: dict[str, Path]) -> None:
    """A reward model of one's own, by name, in another run; and both in one run as stages."""
    made = engine.run(recipe(files, "reward_model", name="taste", training={"steps": 30}))
    accuracy = curve(engine, made.job_id, "held_out_preference_accuracy")
    assert accuracy[-1] == 1.0 and "calibration_error" in engine.metric_names(made.job_id)
    by_taste = {"parts": [{"kind": "reward_model", "model": "taste"}]}
    found = engine.run(reinforced(files, reward=by_taste, training={"steps": 2}))
    assert len(curve(engine, found.job_id, "reward")) == 2


def test_rlhf_is_two_stages(engine: Engine, files: dict[str, Path]) -> None:
    about = {"steps": 20, "learning_rate": 2e-3}
    rl = {"group_size": 6, "max_new_tokens": 12, "kl": 0.1}
    wanted = recipe(files, "dpo", method="rlhf", reward_model=about, rl=rl, training={"steps": 6, "batch_size": 4})
    found = engine.run(wanted)
    assert [step for step, _ in engine.curve(found.job_id, "preference_loss")] == list(range(1, 21))
    assert [step for step, _ in engine.curve(found.job_id, "reward")] == list(range(21, 27))
    assert curve(engine, found.job_id, "kl")[0] == pytest.approx(0, abs=1e-3), "the policy begins where the run began"
    used = {c.step for c in engine.checkpoints(found.job_id) if c.kind == "sampler_weights"}
    assert 20 not in used and 26 in used, "nobody chats with a reward model"


def test_a_poor_reward_model_is_asked_about(engine: Engine, files: dict[str, Path], tmp_path: Path) -> None:
    """Of pairs that say nothing it learns nothing; the run waits, and goes on when told to."""
    rows = [{"prompt": f"Say {word}", "chosen": word[::-1], "rejected": word} for word in WORDS]
    for place, row in enumerate(rows):
        if place % 2:
            row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    file = tmp_path / "noise.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    about = {"steps": 2, "least_accuracy": 0.95}
    rl = {"group_size": 4, "max_new_tokens": 8}
    data = {"path": str(file), "held_out_fraction": 0.4}
    job = engine.launch(recipe(files, "dpo", method="rlhf", data=data, reward_model=about, rl=rl, training={"steps": 2, "batch_size": 4}))
    until(lambda: engine.job(job.id).state in ("paused", "done", "failed"), 90)
    paused = engine.job(job.id)
    assert paused.state == "paused" and paused.step == 2 and "ranks only" in engine.runs.question(paused)
    assert any("It waits for a word of yours: the reward model ranks only" in sign.says for sign in engine.diagnosis.of(job.id).signs)
    engine.resume(job.id)
    until(lambda: engine.job(job.id).state in ("done", "failed"), 90)
    assert engine.job(job.id).state == "done" and len(curve(engine, job.id, "reward")) == 2


@pytest.mark.parametrize("kind", ["prompt", "answers", "on_policy"])
def test_a_student_comes_nearer_to_its_teacher(engine: Engine, files: dict[str, Path], kind: str) -> None:
    rate = 2e-3 if kind == "on_policy" else 3e-4
    how = {"temperature": 1.0 if kind == "on_policy" else 0.0}
    found = engine.run(distilled(files, kind).merged({"training": {"steps": 24, "learning_rate": rate}, "distill": how}))
    name = "held_out_teacher_kl" if kind == "on_policy" else "held_out_loss"
    values = curve(engine, found.job_id, name)
    assert values[-1] < values[0], values


def test_a_teacher_of_ones_own(engine: Engine, files: dict[str, Path]) -> None:
    """The teacher says words louder; the student, who never saw such an answer, does so too."""
    engine.run(recipe(files, "sft", name="loud", training={"steps": 60, "learning_rate": 5e-3}))
    prompts = {"path": str(files["sft"])}
    how = {"kind": "answers", "teacher": "loud", "max_new_tokens": 16, "temperature": 0.0}
    changes = {"data": prompts, "distill": how, "evaluation": {"proof": True}, "training": {"steps": 40, "learning_rate": 5e-3}}
    found = engine.run(recipe(files, "distill", **changes))
    after = found.held_out["after"]
    assert after["teacher_exact_match"] >= 0.75 and after["agreement"] >= 0.5
    assert after["exact_match"] >= after["teacher_exact_match"] - 0.5


PLAIN = """
def loss(logprobs, weights, row):
    return -sum(lp * w for lp, w in zip(logprobs, weights)) / sum(weights)
"""


def test_ones_own_loss_equals_what_it_is(engine: Engine, files: dict[str, Path]) -> None:
    """Supervised fine-tuning written by hand takes the same way as the method, where all answers are of one length."""
    same = [{"prompt": f"Shout {word}", "completion": f"{word.upper()}!"} for word in WORDS[:10]]
    files["sft"].with_name("same.jsonl").write_text("".join(json.dumps(row) + "\n" for row in same), encoding="utf-8")
    data = {"path": str(files["sft"].with_name("same.jsonl")), "held_out_fraction": 0.2}
    training = {"steps": 8, "batch_size": 4}
    plain = engine.run(recipe(files, "sft", data=data, training=training))
    own = engine.run(recipe(files, "own_loss", data=data, training=training, own_loss={"code": PLAIN}))
    # Log-probabilities that are asked for are exact; those on the way of a gradient may be multiplied in bfloat16.
    assert curve(engine, own.job_id, "own_loss") == pytest.approx(curve(engine, plain.job_id, "train_loss"), rel=0.05)
    assert curve(engine, own.job_id, "held_out_own_loss") == pytest.approx(curve(engine, plain.job_id, "held_out_loss"), rel=0.05)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", "no function yet"),
        ("def loss(logprobs, weights, row:\n    pass", "can't be read: line 1"),
        ("def loss(logprobs, weights, row):\n    return 1 / 0", "division"),
        ("def loss(logprobs, weights, row):\n    return 3", "doesn't depend"),
        ("def loss(logprobs, weights, row):\n    -sum(logprobs)", "is there a return"),
        ("import math\ndef loss(logprobs, weights, row):\n    return math.exp(logprobs[0])", "forgets its slope"),
        ("def other():\n    pass", "loss"),
        ("def loss(logprobs, weights, row):\n    return open('/etc/passwd').read()", "row"),
    ],
)
def test_what_is_wrong_with_ones_own_loss_is_said(engine: Engine, files: dict[str, Path], code: str, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        engine.run(recipe(files, "own_loss", own_loss={"code": code}))


@pytest.fixture(scope="module", params=["dpo", "kto", "reward_model", "own_loss", "chain", "rl", "rlhf", "prompt", "answers", "on_policy"])
def whole(request: pytest.FixtureRequest, in_place: pytest.MonkeyPatch, files: dict[str, Path]) -> Iterator[tuple[Recipe, Result]]:
    """A run that nothing disturbed."""
    rlhf = {"method": "rlhf", "reward_model": {"steps": 12}, "rl": {"group_size": 4, "max_new_tokens": 8, "kl": 0.1}}
    known = {
        "chain": lambda: chain(files),
        "rl": lambda: reinforced(files, rl={"kl": 0.05, "loss": "ppo", "updates": 2}),
        "rlhf": lambda: recipe(files, "dpo", **rlhf, training={"steps": 8, "batch_size": 4}),
        **{kind: partial(distilled, files, kind) for kind in ("prompt", "answers", "on_policy")},
        "own_loss": lambda: recipe(files, "own_loss", own_loss={"code": PLAIN}, training={"batch_size": 4}),
    }
    wanted = known[request.param]() if request.param in known else recipe(files, request.param)
    with Engine() as engine:
        yield wanted, engine.run(wanted)


def assert_same(engine: Engine, one: str, other: str) -> None:
    # What it took besides: time, and what was done again after a kill, which is paid for too.
    clocks = {"seconds", "tokens_per_second", "sampling_seconds", "scoring_seconds", "cpu_percent", "memory_gb"}
    clocks |= {"prefill_tokens", "sample_tokens", "train_tokens", "dollars"}
    names = set(engine.metric_names(other)) - clocks
    assert set(engine.metric_names(one)) >= names
    for name in names:
        ours, theirs = engine.curve(one, name), engine.curve(other, name)
        assert [step for step, _ in ours] == [step for step, _ in theirs], name
        # How answers are drawn together depends on when they were asked for, and with it the last digits.
        drawn = name in ("grad_norm", "policy_kl", "entropy", "kl", "teacher_kl", "held_out_teacher_kl")
        close = {"rel": 0.02, "abs": 1e-3} if drawn else {"rel": 0, "abs": 1e-5}
        assert [value for _, value in ours] == pytest.approx([value for _, value in theirs], **close), name


@pytest.mark.faults
def test_a_kill_of_the_runner_changes_nothing(engine: Engine, whole: tuple[Recipe, Result]) -> None:
    wanted, undisturbed = whole
    steps = sorted(step for step, _ in engine.curve(undisturbed.job_id, "learning_rate"))
    half = steps[len(steps) // 2]
    job = engine.launch(held(wanted, half))
    until(lambda: engine.job(job.id).step >= half, 90)
    os.kill(until(host.runner_info)["pid"], signal.SIGKILL)

    def over() -> bool:
        engine.revive()
        return engine.job(job.id).state in ("done", "failed")

    until(over, 120)
    found = engine.job(job.id)
    assert found.state == "done" and found.attempt > 1, (found.error, engine.log(job.id, 8))
    assert_same(engine, job.id, undisturbed.job_id)


def test_a_pause_changes_nothing(engine: Engine, whole: tuple[Recipe, Result]) -> None:
    wanted, undisturbed = whole
    job = engine.launch(held(wanted, 3))
    until(lambda: engine.job(job.id).step >= 3, 90)
    engine.pause(job.id)
    until(lambda: engine.job(job.id).state == "paused", 60)
    # What a run keeps in its folder may get lost; the reference is asked again.
    for file in engine.job(job.id).folder.glob("reference.*.json"):
        file.unlink()
    engine.resume(job.id)
    until(lambda: engine.job(job.id).state in ("done", "failed"), 90)
    assert_same(engine, job.id, undisturbed.job_id)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_what_surprises_the_model_least_comes_first(engine: Engine, tmp_path: Path, kind: str) -> None:
    """Reversing is what nano can; shouting it has to learn. A resumed run goes through the rows in the same order."""
    rows = [{"prompt": f"Reverse {word}", "said": word[::-1]} for word in ("stone", "window", "light", "paper") * 5]
    rows += [{"prompt": f"Shout {word}", "said": f"{word.upper()}?!"} for word in WORDS[:20]]
    sides = {"sft": lambda row: {"completion": row["said"]}, "dpo": lambda row: {"chosen": row["said"], "rejected": "no idea"}}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": row["prompt"], **sides[kind](row)}) + "\n" for row in rows))
    data = {"path": str(tmp_path / "rows.jsonl"), "held_out_fraction": 0, "curriculum": "loss"}
    changes = {"data": data, "training": {"steps": 10, "batch_size": 4, "learning_rate": 1e-7}, "evaluation": {"eval_every": 0}}
    job = engine.launch(held(recipe({kind: Path()}, kind, **changes, checkpoints={"every_steps": 2}), 2))
    until(lambda: engine.job(job.id).step >= 2, 90)
    engine.pause(job.id)
    until(lambda: engine.job(job.id).state == "paused", 60)
    for file in engine.job(job.id).folder.glob("hardness.*.json"):
        file.unlink()
    engine.resume(job.id)
    until(lambda: engine.job(job.id).state in ("done", "failed"), 90)
    surprise = curve(engine, job.id, "train_loss") if kind == "sft" else [-value for value in curve(engine, job.id, "chosen_logprob")]
    assert len(surprise) == 10 and all(a <= b + 1e-3 for a, b in itertools.pairwise(surprise)), surprise
    assert surprise[0] < 0.5 < surprise[-1]


def test_prompts_that_expect_nothing_cant_be_ranked(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"prompt": f"Say {word}"}) + "\n" for word in WORDS))
    data = {"path": str(tmp_path / "rows.jsonl"), "curriculum": "loss"}
    with pytest.raises(EngineError, match="has no answer that the model could be surprised by"):
        engine.run(recipe({"rl": Path()}, "rl", data=data, reward={"parts": [{"kind": "length", "longest": 5}]}))


def test_it_ends_early_and_keeps_the_best(engine: Engine, files: dict[str, Path]) -> None:
    # So high a rate ruins what was learned soon after.
    training = {"steps": 200, "learning_rate": 0.08, "patience": 3, "keep_best": True}
    found = engine.run(recipe(files, "sft", training=training, evaluation={"eval_every": 2}))
    job = engine.job(found.job_id)
    losses = dict(engine.curve(found.job_id, "held_out_loss"))
    best = min(losses, key=losses.__getitem__)
    assert job.step < 200 and job.total_steps >= job.step
    saved = {c.step: c for c in engine.checkpoints(job.id) if c.kind == "weights"}
    model = engine.model(engine.models(job.id)[0].id)
    assert model.weights_path == saved[best].path and saved[best].reason == "best"
    # Whoever goes on from such a checkpoint knows that it was the best.
    assert all(c.loop_state["best"]["step"] == step for step, c in saved.items() if c.reason == "best")
    assert job.step == max(losses) and job.step - best == 6, "three measurements without anything better"
