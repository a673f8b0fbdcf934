"""One matrix over many families: each trains, samples, saves, loads and goes on as transformers and PEFT say it should."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from tinker import types
from transformers import AutoModelForCausalLM

from engine.errors import ModelError
from engine.server.checkpoints import CheckpointInfo, CheckpointPath, CheckpointStore
from engine.server.model import BaseModel
from engine.server.packing import Packed
from engine.server.sampler import SampleJob, Sampler
from engine.server.trainer import AdamParams, Trainer
from engine.server.weights import LoraSpec
from engine.server.wire import Datum
from tests.server.families import FAMILIES, make
from tests.server.harness import RunningServer, batch

SPEC = LoraSpec(4)
STEP = AdamParams(learning_rate=5e-3, eps=1e-8)
PATH = CheckpointPath("run:train:0", "weights", "step-3")

ATTENTION = {
    "qwen2_moe qwen3_moe llama qwen2 qwen3 qwen3_5_text gpt_oss gemma2 gemma3_text mistral olmo2 jamba": "q_proj k_proj v_proj o_proj",
    "deepseek_v3": "q_a_proj q_b_proj kv_a_proj_with_mqa kv_b_proj o_proj",
    "phi": "q_proj k_proj v_proj dense",
    "phi3": "qkv_proj o_proj",
    "gpt_neox bloom": "query_key_value dense",
    "gpt2": "c_attn c_proj",
    "opt lfm2": "q_proj k_proj v_proj out_proj",
    "jetmoe": "kv_proj experts.input_linear.weight experts.output_linear.weight",
}
# Capped or sinking scores, no positions, memory that runs from token to token: the fast way to train declines.
NOT_PACKED = {"gemma2", "gpt_oss", "bloom", "lfm2", "qwen3_5_text", "jamba"}
MLP = {
    "llama qwen2 qwen3 gemma2 gemma3_text mistral olmo2": "gate_proj up_proj down_proj",
    "qwen3_moe gpt_oss jamba": "experts.gate_up_proj experts.down_proj",
    "qwen2_moe": "experts.gate_up_proj experts.down_proj shared_expert.gate_proj shared_expert.up_proj shared_expert.down_proj",
    "deepseek_v3": "experts.gate_up_proj experts.down_proj shared_experts.gate_proj shared_experts.up_proj shared_experts.down_proj",
    "phi opt": "fc1 fc2",
    "phi3": "gate_up_proj down_proj",
    "gpt_neox bloom": "dense_h_to_4h dense_4h_to_h",
    "gpt2": "c_fc c_proj",
    "jetmoe": "input_linear.weight output_linear.weight",
    "lfm2": "w1 w2 w3",
    "qwen3_5_text": "gate_proj up_proj down_proj",
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors this small are slower on several: the threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def row(start: int, length: int) -> Datum:
    tokens = np.array([5 + (start * 31 + i * i * 7) % 250 for i in range(length + 1)])
    return Datum(tokens[:-1], {"target_tokens": tokens[1:], "weights": np.array([float(i > 2) for i in range(length)], np.float32)})


DATA = [row(1, 30), row(2, 11), row(3, 19)]  # longer than the sliding windows


def expected(table: dict[str, str], family: str) -> set[str]:
    return {name for families, names in table.items() if family in families.split() for name in names.split()}


def train(trainer: Trainer) -> float:
    loss = trainer.forward_backward(DATA, "cross_entropy", {}, forward_only=False)[1]["loss:sum"]
    trainer.optim_step(STEP)
    return loss


def save(store: CheckpointStore, trainer: Trainer, path: CheckpointPath = PATH) -> Path:
    spec = trainer.weights.spec
    choice = {"rank": spec.rank, "train_mlp": spec.train_mlp, "train_attn": spec.train_attn, "train_unembed": spec.train_unembed}
    values = {"path": str(path), "base_model": "tiny", "steps": trainer.steps, "created_at": time.time(), "has_optimizer": True}
    store.save(path, CheckpointInfo(**values, **choice, full=not spec.is_lora), trainer.weights, trainer.optimizer_tensors())
    return store.root / path.run.replace(":", ".") / path.kind / path.name


def resumed(store: CheckpointStore, base: BaseModel, path: CheckpointPath = PATH) -> Trainer:
    trainer = Trainer(base, store.load(path, base, trainable=True)[1])
    trainer.load_optimizer_tensors(store.load_optimizer(path))
    return trainer


def plain_gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Of the same loss, row by row, without padding."""
    for datum in DATA:
        logits = model(input_ids=torch.tensor(datum.tokens)[None]).logits[0]
        targets = torch.tensor(datum.inputs["target_tokens"])
        losses = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        (losses * torch.tensor(datum.inputs["weights"])).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_samples_like(model: torch.nn.Module, sampler: Sampler, weights: object) -> None:
    prompts = [DATA[0].tokens.tolist()[:5], DATA[1].tokens.tolist(), DATA[2].tokens.tolist()]
    ours = sampler.sample(weights, [SampleJob(prompt, max_tokens=12, temperature=0.0) for prompt in prompts])
    model.generation_config.eos_token_id = None
    for prompt, (sequences, _) in zip(prompts, ours, strict=True):
        theirs = model.eval().generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            max_new_tokens=12,
        )
        assert sequences[0][0] == theirs[0, len(prompt) :].tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_family(family: str, tmp_path: Path) -> None:
    folder = make(tmp_path / "model", family)
    base = BaseModel(folder, "cpu", "float32")
    sorts = {kind: {layer.name for layer in base.layers.values() if layer.kind == kind} for kind in ("attn", "mlp", "unembed")}
    assert len(sorts["unembed"]) == 1 and all(name.endswith("lm_head") for name in sorts["unembed"])
    inside = {
        kind: {
            re.sub(r".*\.(h|layers)\.1\.((mlp|feed_forward|self_attn|attention|attn|self_attention)\.)?", "", name)
            for name in names
            if ".1." in name
        }
        for kind, names in sorts.items()
    }
    assert inside["attn"] == expected(ATTENTION, family) and inside["mlp"] == expected(MLP, family)

    trainer = Trainer(base, base.new_adapter(SPEC, seed=3))
    losses = [train(trainer) for _ in range(3)]
    assert losses[2] < losses[1] < losses[0]

    store = CheckpointStore(tmp_path / "checkpoints")
    saved = save(store, trainer)
    twin = resumed(store, base)
    assert train(twin) == train(trainer)
    assert all(torch.equal(p, q) for p, q in zip(trainer.weights.parameters(), twin.weights.parameters(), strict=True))

    # PEFT reads what was saved; with it, the same gradients on every pair and the same greedy answers.
    peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), saved, is_trainable=True).eval()
    tensors = load_file(saved / "adapter_model.safetensors")
    own = {name.replace(".default", ""): p for name, p in peft.named_parameters() if "lora_" in name}
    assert own.keys() == tensors.keys() and all(torch.equal(p, tensors[name]) for name, p in own.items())
    theirs = {name.replace(".default", ""): gradient for name, gradient in plain_gradients(peft).items()}
    same = resumed(store, base)
    assert theirs.keys() == tensors.keys() and len(theirs) == 2 * len(same.weights.pairs)
    packed = Packed.if_it_agrees(base)
    assert (packed is None) == (family in NOT_PACKED)
    for same.packed in {None, packed}:
        same.drop_gradients()
        same.forward_backward(DATA, "cross_entropy", {}, forward_only=False)
        for name, (a, b) in same.weights.pairs.items():
            key = base.layers[name].peft_key
            for ours, side in ((a, "A"), (b, "B")):
                torch.testing.assert_close(ours.grad, theirs[f"{key}.lora_{side}.weight"], rtol=2e-3, atol=5e-5)
    assert_samples_like(peft, Sampler(base), same.weights)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3_moe", "gpt_oss"])
def test_in_bfloat16(family: str, tmp_path: Path) -> None:
    """The base in bfloat16, what is trained in float32."""
    base = BaseModel(make(tmp_path / "model", family), "cpu", "bfloat16")
    for weights in (base.new_adapter(SPEC, seed=3), base.new_full()):
        trainer = Trainer(base, weights)
        losses = [train(trainer) for _ in range(4)]
        assert losses[3] < losses[0] and {p.dtype for p in weights.parameters()} == {torch.float32}
        [(sequences, _)] = Sampler(base).sample(weights.frozen_copy(), [SampleJob([5, 6, 7], max_tokens=4, temperature=0.0)])
        assert len(sequences[0][0]) == 4


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt2", "qwen3_moe"])
def test_through_the_server(family: str, tmp_path: Path) -> None:
    """The official client against a real process: train, save, resume, sample; PEFT loads what the sampler was saved as."""
    folder = make(tmp_path / "model", family)
    server = RunningServer(tmp_path / "server", "--threads", "1", base_model=folder)
    try:
        service = server.client()
        training = service.create_lora_training_client("nano", rank=4, seed=1).result()
        adam = types.AdamParams(learning_rate=5e-3)
        losses = []
        for _ in range(4):
            output = training.forward_backward(batch(), "cross_entropy")
            training.optim_step(adam).result()
            losses.append(output.result().metrics["loss:sum"])
        assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
        state = training.save_state("s").result().path
        path = training.save_weights_for_sampler("m").result().path
        again = service.create_training_client_from_state_with_optimizer(state).result()
        twice = [client.forward_backward(batch(), "cross_entropy").result().metrics["loss:sum"] for client in (training, again)]
        assert twice[0] == twice[1] < losses[-1]
        sampler = service.create_sampling_client(model_path=path).result()
        prompt = batch(size=1)[0].model_input
        params = types.SamplingParams(max_tokens=6, temperature=0.0, stop=[])
        answer = sampler.sample(prompt, num_samples=1, sampling_params=params).result().sequences[0].tokens
        plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        plain.generation_config.eos_token_id = None
        peft = PeftModel.from_pretrained(plain, server.checkpoint_folder(path)).eval()
        ids = torch.tensor([prompt.to_ints()])
        theirs = peft.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6)
        assert list(answer) == theirs[0, ids.shape[1] :].tolist()
        service.close("success").result(timeout=20)
    finally:
        server.stop()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return make(tmp_path / "tiny", "llama")


def edit(folder: Path, name: str = "config.json", **changes: object) -> None:
    """Changes a JSON file of the folder; None takes a key out."""
    values = {**json.loads((folder / name).read_text()), **changes}
    (folder / name).write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def refused(folder: Path, match: str) -> ModelError:
    with pytest.raises(ModelError, match=match) as caught:
        BaseModel(folder, "cpu", "float32")
    assert caught.value.next_step and str(folder) in caught.value.where
    return caught.value


def test_no_code_of_the_folder_runs(tiny: Path) -> None:
    ran = tiny / "ran"
    (tiny / "modeling_own.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Own: ...\n")
    auto_map = {"AutoConfig": "modeling_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    edit(tiny, auto_map=auto_map)
    assert BaseModel(tiny, "cpu", "float32").architecture == "LlamaForCausalLM", "transformers' own code for a known family"
    edit(tiny, model_type="own")
    refused(tiny, "trust_remote_code")
    assert not ran.exists()


def test_folders_that_are_no_model(tiny: Path, tmp_path: Path) -> None:
    for kind in ("t5", "no-such-thing", None):
        edit(tiny, model_type=kind)
        refused(tiny, "no causal language model of the type")
    edit(tiny, model_type="bert")
    refused(tiny, "both directions")
    for family in ("mamba", "recurrent_gemma"):
        refused(make(tmp_path / family, family), "can't sample with")
    edit(tiny, model_type="llama", num_hidden_layers=3)
    refused(tiny, r"lack \d+ of the model's tensors, model.layers.2")
    edit(tiny, num_hidden_layers=2, vocab_size=100)
    refused(tiny, "can't be loaded")
    edit(tiny, vocab_size=264)
    weights = tiny / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused(tiny, "can't be loaded")
    weights.unlink()
    refused(tiny, "no weights")
    (tiny / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    refused(tiny, "pickled")
    (tiny / "config.json").write_text("{")
    refused(tiny, "can't be read")
    refused(tmp_path / "nowhere", "no config.json")


def test_end_marks(tiny: Path) -> None:
    """From generation_config.json, else from config.json, else none: then a sample goes on to its limit."""
    assert BaseModel(tiny, "cpu", "float32").eos_tokens == (3,)
    edit(tiny, "generation_config.json", eos_token_id=[4, 5])
    assert BaseModel(tiny, "cpu", "float32").eos_tokens == (4, 5)
    edit(tiny, "generation_config.json", eos_token_id=None)
    assert BaseModel(tiny, "cpu", "float32").eos_tokens == (3,)
    edit(tiny, eos_token_id=None)
    base = BaseModel(tiny, "cpu", "float32")
    assert base.eos_tokens == ()
    [(sequences, _)] = Sampler(base).sample(None, [SampleJob([5, 6, 7], temperature=0.0)])
    assert len(sequences[0][0]) == base.context - 3 and not sequences[0][2]
