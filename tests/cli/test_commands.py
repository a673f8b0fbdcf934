"""Every command, for people and with --json."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import QUICK
from tests.running import shouting


@pytest.fixture
def job_id(trained) -> str:
    return trained.json["job_id"]


def test_train_says_what_came_of_it(trained):
    result = trained.json
    assert result["state"] == "done" and result["steps"] == 4 and result["checkpoint"].startswith("tinker://")
    assert result["held_out"]["before"]["exact_match"] == 0.0
    assert set(result["held_out"]["after"]) >= {"exact_match", "token_f1", "perplexity", "count"}
    assert result["skills"]["before"] >= 0.5 and 0 <= result["skills"]["after"] <= 1
    assert result["seconds"] > 0 and result["tokens"] > 0
    assert len(trained.out.strip().splitlines()) == 1, "with --json, what is for people goes to stderr"
    for expected in ("loading model weights", "step 4/4", "loss", "tokens/s", "Shout word", "exact match", "before", "after", "chat"):
        assert expected in trained.err


def test_jobs(call, job_id):
    shown = call("jobs")
    assert shown.code == 0 and shown.err == ""
    assert job_id in shown.out and "finished" in shown.out and "4/4" in shown.out
    assert call("jobs", "--search", "nothing like it", "--json").json == {"jobs": []}
    [job] = [job for job in call("jobs", "--json").json["jobs"] if job["id"] == job_id]
    assert job["recipe"]["training"]["steps"] == 4 and job["state"] == "done"


def test_nothing_there_yet(call):
    assert "no runs yet" in call("jobs", fresh=True).out
    assert "no tuned models yet" in call("models", fresh=True).out
    refused = call("chat", "hello", fresh=True)
    assert refused.code == 1 and "no tuned model yet" in refused.err and "train --demo" in refused.err


def test_show(call, job_id):
    shown = call("show", job_id[:5])
    assert "loud" in shown.out and "finished" in shown.out and "right answers on" in shown.out
    assert re.search(r"step 4 to use[^:]*: tinker://", shown.out) and "checkpoint at step 4" in shown.out
    told = call("show", job_id, "--json").json
    assert told["id"] == job_id and told["metrics"]["train_loss"] > 0
    assert {checkpoint["kind"] for checkpoint in told["checkpoints"]} == {"weights", "sampler_weights"}


def test_watch_a_finished_run(call, job_id):
    watched = call("watch", job_id)
    assert watched.code == 0 and "finished at step 4" in watched.out and "right answers on" in watched.out
    assert call("watch", job_id, "--json").json["state"] == "done"


def test_models(call, job_id):
    assert "loud" in call("models").out
    [model] = [model for model in call("models", "--json").json["models"] if model["job_id"] == job_id]
    assert model["renderer"] == "chat_template" and model["base_model"] == "nano"


def test_chat_with_one_message(call, trained):
    said = call("chat", "Shout word7", "--model", "loud", "--max-tokens", "8")
    assert said.code == 0 and said.out.startswith("WORD")
    told = call("chat", "Shout word7", "--model", "loud", "--max-tokens", "8", "--json")
    assert told.json == {"model": "loud", "prompt": "Shout word7", "answer": said.out.strip()}


def test_a_conversation(call, trained):
    lines = "\nShout word1\n/new\nShout word2\nShout word3\n/quit\nnever read\n"
    held = call("chat", "--model", "loud", "--max-tokens", "8", "--json", stdin=lines)
    messages = held.json["messages"]
    assert [message["content"] for message in messages if message["role"] == "user"] == ["Shout word2", "Shout word3"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert "/new" in held.err and ">" not in held.out
    assert call("chat", "--model", "loud", "--max-tokens", "8", stdin="Shout word1\n").out.count("WORD") == 1


def test_generate(call, trained):
    prompts = ["Shout word1", "Shout word2"]
    flags = ["--model", "loud", "--max-tokens", "8"]
    lines = call("generate", *prompts, *flags).out.split()
    assert len(lines) == 2
    told = call("generate", *flags, "--json", stdin="Shout word1\n\nShout word2\n").json
    assert [pair["prompt"] for pair in told["answers"]] == prompts
    assert [pair["answer"] for pair in told["answers"]] == lines
    seeded = [call("generate", prompts[0], *flags, "--temperature", "1", "--seed", "3").out for _ in range(2)]
    assert seeded[0] == seeded[1]
    assert call("generate", "Reverse hello", "--base", "nano").out.strip() == "olleh"


def test_generate_without_a_prompt(call):
    nothing = call("generate", "--json")
    assert nothing.code == 1 and "stdin" in nothing.err and nothing.json["error"]["kind"] == "StateError"


def test_ask(call, job_id):
    assert "loud is finished" in call("ask", "how did my last run go?").out
    shown = call("ask", "one-minute demo with 60 steps", fresh=True)
    assert shown.code == 0 and "60 updates of 32" in shown.out
    assert "To start it: python thinker.py train --demo piglatin --steps 60" in shown.out
    assert call("ask", "what is LoRA?", "--json", fresh=True).json["intent"] == "explain"
    assert "didn't understand" in call("ask", "blarg [red]wibble[/red]", fresh=True).out
    assert call("jobs", "--json", fresh=True).json == {"jobs": []}


def test_explain_says_what_kind_of_thing_it_is(call):
    kinds = {name: call("explain", name, "--json", fresh=True).json["kind"] for name in ("dpo", "reward", "training.warmup", "piglatin")}
    assert kinds == {"dpo": "method", "reward": "metric", "training.warmup": "setting", "piglatin": "demo"}
    row = next(line for line in call("explain", "dpo", fresh=True).out.splitlines() if line.startswith("A row: "))
    assert {"chosen", "rejected"} <= set(json.loads(row.removeprefix("A row: ")))


def test_data_check(call, tmp_path: Path):
    file = shouting(tmp_path / "fine.jsonl", 12)
    fine = call("data", "check", file)
    assert fine.code == 0 and "12 examples of 12 rows (prompt_completion)" in fine.out
    told = call("data", "check", file, "--json", "--max-length", "20").json
    assert told["examples"] == 12 and told["tokens"]["truncated"] == 12 and told["problems"] == []
    assert "cut to 20 tokens: 1, 2," in call("data", "check", file, "--max-length", "20").out

    file.write_text(file.read_text(encoding="utf-8") + '{"prompt": "no answer"}\n{"prompt": "broken\n', encoding="utf-8")
    bad = call("data", "check", file)
    assert bad.code == 1 and "line 13, completion: the field is missing" in bad.out and "line 14" in bad.out
    assert [problem["row"] for problem in call("data", "check", file, "--json").json["problems"]] == [13, 14]


def test_doctor(call):
    found = call("doctor")
    assert found.code == 0 and "ok  nano" in found.out and "PyTorch" not in found.err
    checks = {check["name"]: check for check in call("doctor", "--json").json["checks"]}
    assert checks["packages"]["ok"] and checks["database"]["ok"] and checks["data directory"]["ok"]


def test_a_dry_run_is_a_recipe_file(call, tmp_path: Path):
    file, held_out = shouting(tmp_path / "loud.jsonl", 12), tmp_path / "held_out.jsonl"
    held_out.write_text('{"prompt": "Shout new", "completion": "NEW!"}', encoding="utf-8")
    flags = ["--system", "Be loud.", "--stop", "!", "--stop", "?", "--renderer", "chatml", "--seed", "5", "--held-out", held_out]
    flags += ["--set", "training.weight_decay=0.01", "--set", "data.mapping.prompt=prompt", "--lr", "1e-4"]
    printed = call("train", file, *flags, "--dry-run", fresh=True)
    recipe = call("train", file, *flags, "--dry-run", "--json", fresh=True).json["recipe"]
    assert recipe["stop"] == ["!", "?"] and recipe["seed"] == 5 and recipe["system_prompt"] == "Be loud."
    assert recipe["training"]["weight_decay"] == 0.01 and recipe["training"]["learning_rate"] == 1e-4
    assert recipe["data"]["mapping"] == {"prompt": "prompt"} and recipe["data"]["held_out_path"] == str(held_out)

    kept = tmp_path / "kept.yaml"
    kept.write_text(printed.out, encoding="utf-8")
    assert yaml.safe_load(printed.out)["renderer"] == "chatml"
    assert call("train", kept, "--dry-run", "--json", fresh=True).json["recipe"] == recipe
    kept.with_suffix(".json").write_text(json.dumps(recipe), encoding="utf-8")
    again = call("train", "--recipe", kept.with_suffix(".json"), "--steps", "9", "--dry-run", "--json", fresh=True).json["recipe"]
    assert again == {**recipe, "training": {**recipe["training"], "steps": 9}}
    assert call("train", kept.with_suffix(".json"), "--dry-run", "--json", fresh=True).json["recipe"] == recipe
    assert call("jobs", "--json", fresh=True).json == {"jobs": []}


def test_a_recipe_file_is_run(call, trained, place: Path):
    recipe = place.parent / "recipe.yaml"
    recipe.write_text(call("train", place.parent / "loud.jsonl", *QUICK, "--steps", "1", "--dry-run").out, encoding="utf-8")
    done = call("train", recipe, "--name", "odd [/name]", "--set", "evaluation.proof=false", "--json")
    assert done.code == 0, done.err
    assert done.json["steps"] == 1 and done.json["held_out"] == {"before": None, "after": None}
    # Names are text, whatever a terminal's markup would make of them.
    for command in (["jobs"], ["models"], ["show", done.json["job_id"]], ["watch", done.json["job_id"]]):
        assert "odd [/name]" in call(*command).out or command[0] == "watch"
    deleted = call("delete", done.json["job_id"], "--json")
    assert deleted.json == {"deleted": done.json["job_id"]} and "odd [/name]" in deleted.err
    assert not (place / "jobs" / done.json["job_id"]).exists()
    assert call("show", done.json["job_id"]).code == 1


def test_what_can_not_be_done_now(call, job_id):
    for command in ("pause", "stop", "resume"):
        refused = call(command, job_id, "--json")
        assert refused.code == 1 and refused.json["error"]["kind"] == "StateError" and "finished" in refused.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "No such command"),
        (["train", "--steps", "many"], "Invalid value for '--steps'"),
        (["train", "--nosuch"], "No such option"),
        (["show"], "Missing argument"),
    ],
)
def test_wrong_usage(call, arguments, said):
    wrong = call(*arguments, "--json")
    assert wrong.code == 2 and said in wrong.err and wrong.json["error"]["kind"] == "UsageError"
    assert call(*arguments).out == ""


def test_help(call):
    every = call("--help").out
    for name in (
        "train",
        "jobs",
        "show",
        "watch",
        "pause",
        "stop",
        "resume",
        "delete",
        "models",
        "chat",
        "generate",
        "ask",
        "serve",
        "doctor",
    ):
        assert name in every
    assert "--set" in call("train", "--help").out and call("data", "--help").code == 0
