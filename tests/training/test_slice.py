"""The whole way, for real: a data file, nano, a local server, a few steps, the proof and a chat."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import openai
import pytest

from engine import Engine, models, paths
from engine.endpoints import start
from engine.endpoints.client import Client
from engine.engine import Result
from engine.errors import NotFound, StateError
from engine.share import as_script
from engine.store import Job
from engine.store.artefacts import read_json
from engine.training.methods import make_method
from tests.running import environment, server_records

SYSTEM = "Be loud."
SHORT = {"evaluation": {"skills_max": 12, "max_new_tokens": 12}}


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 rows: one without an answer, one whose answer is longer than what is looked at."""
    rows = [{"prompt": f"Shout word{i}", "completion": f"WORD{i}!"} for i in range(34)]
    rows.insert(4, {"prompt": "Shout nothing"})
    rows.append({"prompt": "Shout word99", "completion": "WORD99! " * 20})
    file = tmp_path_factory.mktemp("data") / "loud.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def trained(in_place, data_file: Path) -> Iterator[Result]:
    """One run with everything switched on."""
    changes = {
        "renderer": "role_colon",
        "system_prompt": SYSTEM,
        "stop": ["!"],
        "training": {"steps": 8, "batch_size": 8, "max_length": 96, "learning_rate": 8e-3, "warmup": 0.25, "schedule": "linear"},
        "evaluation": {**SHORT["evaluation"], "eval_every": 4, "samples_every": 4, "samples": 2},
        "checkpoints": {"every_steps": 5},
    }
    with Engine() as engine:
        yield engine.run(engine.file_recipe(data_file, changes))


def rendered(example) -> str:
    """role_colon as its documentation has it."""
    system, user, assistant = (message["content"] for message in example.messages)
    return f"System: {system}\n\nUser: {user}\n\nAssistant: {assistant}\n\nUser:"


def test_the_result(trained: Result, engine: Engine):
    assert (trained.state, trained.steps, trained.name) == ("done", 8, "loud")
    assert trained.checkpoint.startswith("tinker://") and "/sampler_weights/" in trained.checkpoint
    before, after = trained.held_out["before"], trained.held_out["after"]
    assert before["count"] == after["count"] == 4  # a tenth of 35, rounded
    assert after["perplexity"] < before["perplexity"] / 3
    assert all(0 <= trained.skills[side] <= 1 for side in ("before", "after"))
    assert 0 < trained.seconds < 60
    assert json.loads(json.dumps(trained.to_dict())) == {**trained.to_dict(), "notes": list(trained.notes)}
    assert engine.job(trained.job_id).state == "done"


def test_what_was_left_out_or_cut_is_in_the_result(trained: Result, engine: Engine):
    assert trained.notes[0].startswith("1 rows were left out; the first: line 5, completion: the field is missing")
    assert trained.notes[1].startswith("1 training examples were cut to 96 tokens (") and len(trained.notes) == 2
    about = read_json(paths.job_folder(trained.job_id) / "data.json")
    assert (about["train"], about["held_out"], about["problem_count"]) == (31, 4, 1)
    assert about["problems"][0]["row"] == 5
    assert {"line 5" in line["text"] for line in engine.log(trained.job_id, 100) if line["level"] == "warning"} == {True, False}


def test_the_system_prompt_is_trained_on(trained: Result, engine: Engine):
    """nano has a token a byte, so the tokens of the run tell exactly which texts were trained on."""
    from engine.data import load_data
    from engine.training.schedule import rows_of_step

    recipe = engine.job(trained.job_id).recipe
    rows = load_data(recipe).train
    lengths = [min(len(rendered(row)), 97) for row in rows]
    assert trained.tokens == sum(lengths[i] for step in range(8) for i in rows_of_step(step, 8, len(rows), recipe.seed))


def test_curves(trained: Result, engine: Engine):
    job = trained.job_id
    losses = dict(engine.curve(job, "train_loss"))
    assert list(losses) == list(range(1, 9)) and losses[8] < losses[1] / 2
    assert [step for step, _ in engine.curve(job, "held_out_loss")] == [0, 4, 8]
    # Two updates of warm-up at thirds of the rate, then six that fall by a sixth.
    rates = [rate for _, rate in engine.curve(job, "learning_rate")]
    assert rates == pytest.approx([8e-3 * share for share in (1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)])
    assert all(norm > 0 for _, norm in engine.curve(job, "grad_norm"))
    assert all(speed > 0 for _, speed in engine.curve(job, "tokens_per_second"))
    of_the_run = {"train_loss", "held_out_loss", "learning_rate", "grad_norm", "tokens_per_second", "tokens", "seconds"}
    of_the_run |= {"prefill_tokens", "sample_tokens", "train_tokens"}
    assert set(engine.metric_names(job)) - {"cpu_percent", "memory_gb", "gpu_percent", "gpu_memory_gb"} == of_the_run
    assert engine.curve(job, "tokens")[-1] == (8, trained.tokens) and engine.curve(job, "seconds")[-1] == (8, trained.seconds)


def test_the_proof_and_the_curve_agree(trained: Result, engine: Engine):
    curve = dict(engine.curve(trained.job_id, "held_out_loss"))
    assert trained.held_out["before"]["loss"] == pytest.approx(curve[0], abs=1e-6)
    assert trained.held_out["after"]["loss"] == pytest.approx(curve[8], abs=1e-6)


def test_samples(trained: Result, engine: Engine):
    samples = engine.samples(trained.job_id)
    assert [(sample.step, sample.position) for sample in samples] == [(step, place) for step in (0, 4, 8) for place in (0, 1)]
    assert all(sample.prompt.startswith("Shout word") and sample.expected == sample.prompt[6:].upper() + "!" for sample in samples)
    assert samples[-1].answer.startswith("WORD")
    assert not any("!" in sample.answer for sample in samples), "the stop string isn't part of an answer"


def test_the_renderer_is_kept_with_every_checkpoint(trained: Result, engine: Engine):
    checkpoints = engine.checkpoints(trained.job_id)
    assert [(c.step, c.kind, c.reason) for c in checkpoints] == [
        (5, "weights", "schedule"), (5, "sampler_weights", "schedule"), (8, "weights", "end"), (8, "sampler_weights", "end"),
    ]  # fmt: skip
    for checkpoint in checkpoints:
        run, kind, name = checkpoint.path.removeprefix("tinker://").split("/")
        about = read_json(paths.folder("checkpoints") / run.replace(":", ".") / kind / name / "checkpoint.json")
        assert checkpoint.renderer == about["user_metadata"]["renderer"] == "role_colon"
        assert about["user_metadata"]["job"] == trained.job_id and about["steps"] == checkpoint.step
    assert engine.model("loud").renderer == "role_colon"


def test_a_chat_speaks_as_it_was_trained(trained: Result, engine: Engine):
    with engine.chat("loud") as chat:
        assert (chat.renderer.name, chat.system_prompt, chat.stop) == ("role_colon", SYSTEM, ("!",))
        prompt = [{"role": "user", "content": "Shout word7"}]
        stopped = chat.reply(prompt, max_tokens=16)
        free = replace(chat, stop=()).reply(prompt, max_tokens=16)
        assert stopped.startswith("WORD") and "!" in free
        assert free.split("!")[0] == stopped
        # Other programs find the same model behind OpenAI's API, and needn't know what it was told in training.
        endpoint = chat.client.endpoint
        with openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key=endpoint.key()) as client:
            reply = client.chat.completions.create(model=trained.checkpoint, messages=prompt, temperature=0, max_tokens=16, stop="!")
        assert reply.choices[0].message.content == stopped
        told = [{"role": "system", "content": SYSTEM}, *prompt]
        assert reply.usage.prompt_tokens == len(chat.renderer.prompt(told)) > len(chat.renderer.prompt(prompt))
        # The held-out answers of the proof were made in the same way.
        proof = engine.model("loud").proof["examples"][0]
        assert chat.reply([{"role": "user", "content": proof["prompt"]}], max_tokens=12) == proof["after"]
        same = [chat.replies([prompt] * 2, temperature=1.0, seed=4, max_tokens=8) for _ in range(2)]
        assert same[0] == same[1]


def test_a_chat_with_the_bare_model(engine: Engine, trained: Result):
    with engine.chat(base_model="nano") as chat:
        assert (chat.renderer.name, chat.system_prompt) == ("chat_template", "")
        assert chat.reply([{"role": "user", "content": "Reverse hello"}]) == "olleh"


def test_the_loss_is_the_mean_over_the_answers_tokens(engine: Engine, trained: Result, data_file: Path):
    """The server's number against transformers' own model, on the adapter before its first update."""
    import torch
    from transformers import AutoModelForCausalLM

    from engine.data import load_data
    from engine.rendering import get_renderer, load_tokenizer

    recipe = engine.file_recipe(data_file, {"training": {"batch_size": 5}})
    data = load_data(recipe)
    sft = make_method(recipe, data, get_renderer("auto", load_tokenizer(models.nano_folder())), 1024)
    batch, counts = sft.batch(0)
    model = AutoModelForCausalLM.from_pretrained(models.nano_folder(), dtype=torch.float32)
    total, answered = 0.0, 0
    for datum in batch:
        tokens = datum.model_input.to_ints()
        targets, weights = datum.loss_fn_inputs["target_tokens"].data, datum.loss_fn_inputs["weights"].data
        with torch.no_grad():
            logprobs = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
        for place, (target, weight) in enumerate(zip(targets, weights, strict=True)):
            if weight:
                total -= float(logprobs[place, target])
                answered += 1
    endpoint = start("local", "nano", models.nano_folder())
    endpoint.ready(lambda text: None)
    client = Client(endpoint, {})
    training = client.create("nano", 4, 0, True, True, False)
    reply = client.wait(training.forward(batch, sft.loss_fn), "measuring")
    client.close()
    assert answered == counts["targets"]
    assert reply.metrics["loss:sum"] == pytest.approx(total / answered, rel=1e-5)


def messages_json(file: Path) -> Path:
    rows = [
        {
            "messages": [
                {"role": "system", "content": "Own prompt."},
                {"role": "user", "content": f"Shout a{i}"},
                {"role": "assistant", "content": f"A{i}"},
                {"role": "user", "content": f"Shout b{i}"},
                {"role": "assistant", "content": f"B{i}"},
            ]
        }
        for i in range(20)
    ]
    file.with_suffix(".json").write_text(json.dumps(rows), encoding="utf-8")
    return file.with_suffix(".json")


def alpaca(file: Path) -> Path:
    rows = [{"instruction": "Shout", "input": f"word{i}", "output": f"WORD{i}"} for i in range(20)]
    file.with_suffix(".jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file.with_suffix(".jsonl")


def csv_file(file: Path) -> Path:
    with file.with_suffix(".csv").open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([["Question", "Answer"], *([f"Shout, word{i}", f'"WORD{i}"'] for i in range(20))])
    return file.with_suffix(".csv")


@pytest.mark.parametrize(("write", "mapping"), [(messages_json, {}), (alpaca, {}), (csv_file, {"prompt": "Question"})])
def test_other_layouts(engine: Engine, tmp_path: Path, write, mapping):
    changes = {
        "data": {"mapping": mapping},
        "training": {"epochs": 1, "batch_size": 8},
        "evaluation": {"proof": False, "samples_every": 0, "eval_every": 1},
        "lora": {"rank": 4},
    }
    result = engine.run(engine.file_recipe(write(tmp_path / "rows"), changes))
    assert result.steps == 3  # 18 rows in batches of 8
    assert result.held_out == result.skills == {"before": None, "after": None} and result.notes == ()
    losses = [loss for _, loss in engine.curve(result.job_id, "held_out_loss")]
    assert len(losses) == 4 and losses[-1] < losses[0]
    assert engine.samples(result.job_id) == []
    assert engine.model(result.job_id).renderer == "chat_template"


def test_all_of_it_was_one_server(trained: Result, place: Path):
    assert len(server_records(place)) == 1
    assert (place / "servers" / "key").exists()


def test_a_pause_acts_while_the_model_is_being_tested(engine: Engine, data_file: Path):
    """Asked for during preparation, it ends the test before training rather than waiting for the first step."""
    recipe = engine.file_recipe(data_file, {**SHORT, "training": {"steps": 2, "batch_size": 4}})

    def pause_when_it_prepares(job: Job) -> None:
        while engine.job(job.id).state == "queued":
            time.sleep(0.005)
        engine.pause(job.id)

    job = engine.run_job(recipe, on_start=lambda job: threading.Thread(target=pause_when_it_prepares, args=(job,)).start())
    assert (job.state, job.step) == ("paused", 0)
    assert not (job.folder / "proof.before.json").exists()
    assert [checkpoint.step for checkpoint in engine.checkpoints(job.id)] == [0, 0]


def test_every_checkpoint_can_be_asked_again(trained: Result, engine: Engine):
    """As it was trained: the last answer is the chat's, the first the base model's."""
    assert engine.travel.stops(trained.job_id) == [0, 5, 8]
    stages: list[str] = []
    answers = list(engine.travel.ask(trained.job_id, "Shout word7", max_tokens=12, say=stages.append))
    assert [stop.step for stop in answers] == [0, 5, 8] and "asking step 8" in stages
    with engine.chat("loud") as chat:
        assert answers[-1].answer == chat.reply([{"role": "user", "content": "Shout word7"}], max_tokens=12)
    assert answers[0].answer != answers[-1].answer
    with pytest.raises(StateError, match="nothing to answer"):
        next(engine.travel.ask(trained.job_id, "  "))
    with pytest.raises(NotFound):
        Engine("somebody else").travel.stops(trained.job_id)


def test_the_script_of_a_run_runs(trained: Result, engine: Engine, place: Path, tmp_path: Path):
    recipe = engine.runs.again(trained.job_id, {"name": "From a script", "training": {"steps": 2}})
    file = tmp_path / "train.py"
    file.write_text(as_script(recipe), encoding="utf-8")
    done = subprocess.run([sys.executable, str(file)], env=environment(place), capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "From a script is done after 2 steps" in done.stdout and "\nexact_match: 0.0 -> " in done.stdout
    job = engine.jobs(search="From a script")[0]
    assert job.recipe == recipe
