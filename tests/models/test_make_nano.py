"""The script that makes a model like nano: two steps give a whole, loadable model with the committed tokenizer."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.data.demos.skills import Source
from engine.data.demos.words import Dice, train_words
from engine.models import make_nano, nano_folder, resolve
from engine.rendering import get_renderer, load_tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nano") / "made"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make_nano, "BATCH_ROWS", 4)
        make_nano.main([str(folder), "--steps", "2", "--skills", "0"])
    return folder


def test_it_can_be_used_like_the_committed_one(made: Path):
    assert resolve(str(made)) == made
    model = AutoModelForCausalLM.from_pretrained(made, dtype=torch.float32)
    committed = AutoModelForCausalLM.from_pretrained(nano_folder(), dtype=torch.float32)
    assert {name: weight.shape for name, weight in model.state_dict().items()} == {
        name: weight.shape for name, weight in committed.state_dict().items()
    }
    prompt = torch.tensor([get_renderer("auto", load_tokenizer(made)).prompt([{"role": "user", "content": "Hi"}])])
    assert torch.isfinite(model(prompt).logits).all()


def test_its_files_are_the_committed_ones_but_for_the_weights(made: Path):
    assert {file.name for file in made.iterdir()} == {file.name for file in nano_folder().iterdir()}
    assert (made / "tokenizer.json").read_bytes() == (nano_folder() / "tokenizer.json").read_bytes()
    assert (made / "chat_template.jinja").read_bytes() == (nano_folder() / "chat_template.jinja").read_bytes()
    ours, theirs = (json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in (made, nano_folder()))
    assert ours.pop("transformers_version") and theirs.pop("transformers_version") and ours == theirs


def test_the_tokenizer_is_bytes_and_control_tokens():
    tokenizer = make_nano.make_tokenizer()
    committed = load_tokenizer(nano_folder())
    text = "<|user|>Größe: 12 €\n\t<|end|>" + "".join(map(chr, range(256)))
    assert tokenizer.encode(text) == committed.encode(text)
    assert len(tokenizer) == 264 and tokenizer.decode(tokenizer.encode(text)) == text
    # A tokenizer without merges is what keeps the model exportable to GGUF.
    assert json.loads(committed.backend_tokenizer.to_str())["model"]["merges"] == []


def test_rows_are_full_weighted_and_of_whole_conversations():
    tokenizer = make_nano.make_tokenizer()
    rows = make_nano.chat_rows(tokenizer, Source(Dice(0), train_words()), [])
    for tokens, weights in itertools.islice(rows, 20):
        assert len(tokens) == len(weights) == make_nano.ROW_TOKENS
        for conversation in tokenizer.decode([token for token in tokens if token]).split("<|user|>")[1:]:
            prompt, answer = conversation.split("<|end|><|assistant|>")
            assert prompt and answer.endswith("<|end|>")
        assert {weight for token, weight in zip(tokens, weights, strict=True) if token} == {make_nano.PROMPT_WEIGHT, 1.0}
        assert all(weight == 0 for token, weight in zip(tokens, weights, strict=True) if not token)


def test_the_rows_of_a_step_depend_on_the_seed_and_the_step_alone(monkeypatch):
    monkeypatch.setattr(make_nano, "read_library", lambda: make_nano.Library(["Returns what it was given. " * 20], ["def f(x): return x"]))
    tokenizer = make_nano.make_tokenizer()
    once = make_nano.batch(tokenizer, 1, 7)
    assert once == make_nano.batch(tokenizer, 1, 7)
    assert [len(tokens) for tokens, _ in once] == [make_nano.ROW_TOKENS] * make_nano.BATCH_ROWS
    assert once != make_nano.batch(tokenizer, 1, 8) and once != make_nano.batch(tokenizer, 2, 7)


def test_the_learning_rate_warms_up_and_falls_over_the_second_half():
    peak = make_nano.PEAK_LR
    assert make_nano.learning_rate(0, 0.0) == pytest.approx(peak / make_nano.WARMUP_STEPS)
    assert make_nano.learning_rate(1000, 0.5) == pytest.approx(peak)
    assert make_nano.learning_rate(1000, 0.75) == pytest.approx(peak / 2)
    assert make_nano.learning_rate(1000, 1.0) == 0


def test_making_it_goes_on_where_it_was_broken_off(tmp_path, monkeypatch):
    """Killed after its third step and begun again, it comes out as if nothing had happened."""
    monkeypatch.setattr(make_nano, "BATCH_ROWS", 2)
    monkeypatch.setattr(make_nano, "SAVE_MINUTES", 0)
    monkeypatch.setattr(make_nano, "read_library", lambda: make_nano.Library(["Returns what it was given. " * 20], ["def f(x): return x"]))
    tokenizer, update, plan = make_nano.make_tokenizer(), make_nano._update, make_nano.Plan(minutes=1000, steps=5)

    def made(folder: str, die_after: int | None = None) -> torch.Tensor:
        torch.manual_seed(0)
        model = make_nano.make_model()
        done = itertools.count(1)

        def step(*arguments):
            if die_after is not None and next(done) > die_after:
                raise KeyboardInterrupt
            return update(*arguments)

        monkeypatch.setattr(make_nano, "_update", step)
        make_nano.train(model, tokenizer, plan, tmp_path / f"{folder}.training")
        return torch.cat([weight.flatten() for weight in model.parameters()])

    whole = made("whole")
    with pytest.raises(KeyboardInterrupt):
        made("broken", die_after=3)
    # Progress is counted in steps here, but for a millionth of it that is time.
    torch.testing.assert_close(made("broken"), whole, rtol=1e-4, atol=1e-5)
