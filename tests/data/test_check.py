"""`check`: what a file holds, in numbers and in tokens."""

from __future__ import annotations

import json

import pytest

from engine.data import check
from engine.models import nano_folder
from engine.rendering import load_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(nano_folder())


def test_counts_and_problems(write):
    rows = [{"prompt": "Hi", "completion": "Yo"}] * 2 + [{"prompt": "Hi"}]
    result = check(write("rows.jsonl", rows=rows))
    assert json.loads(json.dumps(result)) == result
    assert (result["format"], result["rows"], result["examples"], result["repeated_prompts"]) == ("prompt_completion", 3, 2, 1)
    assert [problem["place"] for problem in result["problems"]] == ["line 3, completion"]
    assert "tokens" not in result


def test_lengths_in_tokens(write, tokenizer):
    # <|user|> Hi <|end|> <|assistant|> Yo <|end|> is 4 + 4 byte tokens, of which the answer's 3 are learned from.
    rows = [{"prompt": "Hi", "completion": "Yo"}, {"prompt": "Hi", "completion": "Hello"}]
    tokens = check(write("rows.jsonl", rows=rows), tokenizer=tokenizer)["tokens"]
    assert tokens == {
        "renderer": "chat_template",
        "total": 19,
        "answers": 9,
        "learned_from": 9,
        "median": 9.5,
        "longest": 11,
        "max_length": 1024,
        "truncated": 0,
        "truncated_rows": [],
        "without_any_answer": 0,
    }


def test_an_answer_longer_than_the_context_is_reported(write, tokenizer):
    rows = [{"prompt": "Hi", "completion": "Yo"}, {"prompt": "Hi", "completion": "x" * 3000}, {"prompt": "x" * 3000, "completion": "Yo"}]
    path = write("rows.jsonl", rows=rows)
    tokens = check(path, tokenizer=tokenizer)["tokens"]
    assert (tokens["truncated"], tokens["truncated_rows"], tokens["without_any_answer"]) == (2, [2, 3], 1)
    assert check(path, tokenizer=tokenizer, max_length=5000)["tokens"]["truncated"] == 0


def test_rows_that_the_template_refuses_are_problems(write, tokenizer):
    from transformers import PreTrainedTokenizerFast

    strict = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|end|>")
    strict.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    rows = [{"prompt": "Hi", "completion": "Yo", "system": ""}, {"prompt": "Hi", "completion": "Yo", "system": "Be kind."}]
    result = check(write("rows.jsonl", rows=rows), tokenizer=strict)
    assert [problem["row"] for problem in result["problems"]] == [2] and "no system" in result["problems"][0]["message"]
