"""What the official SDK may rely on. The client is the real one, the server a real process, the model really trains."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import tinker
import torch
from safetensors.torch import load_file
from tinker import types

from engine.rendering import load_tokenizer
from tests.server.harness import KEY, NANO, RunningServer, batch, rl_datum, sft_datum, text_tokens

ADAM = types.AdamParams(learning_rate=3e-3, beta1=0.9, beta2=0.95, eps=1e-8, grad_clip_norm=1.0)
# A large eps keeps Adam from blowing rounding noise in near-zero gradients up to whole steps: for comparing weights.
SMOOTH = types.AdamParams(learning_rate=3e-2, beta1=0.9, beta2=0.95, eps=1e-2, grad_clip_norm=1.0)


def new_run(service: tinker.ServiceClient, rank: int = 8, seed: int = 1, **layers: bool) -> tinker.TrainingClient:
    return service.create_lora_training_client("nano", rank=rank, seed=seed, **layers).result(timeout=60)


def steps(client: tinker.TrainingClient, first: int, last: int, params: types.AdamParams = ADAM) -> list[float]:
    """Pipelined: each update is submitted before the last is awaited. -> the summed losses."""
    futures = []
    for step in range(first, last):
        futures.append(client.forward_backward(batch(step * 6), "cross_entropy"))
        client.optim_step(params)
    return [future.result(timeout=60).metrics["loss:sum"] for future in futures]


def weights_of(server: RunningServer, client: tinker.TrainingClient, name: str) -> dict[str, torch.Tensor]:
    path = client.save_state(name).result(timeout=60).path
    return load_file(server.checkpoint_folder(path) / "adapter_model.safetensors")


def logprobs_of(output: types.ForwardBackwardOutput) -> list[list[float]]:
    return [row["logprobs"].tolist() for row in output.loss_fn_outputs]


def test_capabilities_and_info(server: RunningServer, service: tinker.ServiceClient) -> None:
    models = tinker.RestClient(base_url=server.url, api_key=KEY).get_server_capabilities().result(timeout=20).supported_models
    assert [(m.model_name, m.max_context_length) for m in models] == [("nano", 1024)]
    client = new_run(service, rank=4)
    info = client.get_info()
    assert (info.lora_rank, info.is_lora, info.model_data.model_name) == (4, True, "nano")
    assert client.get_tokenizer().encode("hi", add_special_tokens=False) == text_tokens("hi")


def test_loss_falls(service: tinker.ServiceClient) -> None:
    losses = steps(new_run(service), 0, 16)
    assert np.mean(losses[-4:]) < 0.6 * np.mean(losses[:4])


def test_gradients_and_updates_equal_plain_pytorch_with_peft(exact_server: RunningServer) -> None:
    """The same three AdamW steps, done here with PEFT and PyTorch on the adapter the server began with."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    server, service = exact_server, exact_server.client()
    client = new_run(service, rank=8, seed=7)
    start = client.save_state("start").result(timeout=60).path
    steps(client, 0, 3, SMOOTH)
    ours = weights_of(server, client, "after-three")

    base = AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, server.checkpoint_folder(start), is_trainable=True)
    trained = {name.replace(".default", ""): p for name, p in model.named_parameters() if p.requires_grad}
    assert set(trained) == set(ours)
    optimizer = torch.optim.AdamW(trained.values(), lr=3e-2, betas=(0.9, 0.95), eps=1e-2, weight_decay=0.0)
    for step in range(3):
        total = torch.zeros(())
        for datum in batch(step * 6):
            tokens = torch.tensor([datum.model_input.to_ints()])
            targets = torch.tensor(datum.loss_fn_inputs["target_tokens"].data)
            weights = torch.tensor(datum.loss_fn_inputs["weights"].data)
            logprobs = torch.log_softmax(model(input_ids=tokens).logits[0], -1)
            total = total - (weights * logprobs[torch.arange(len(targets)), targets]).sum()
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(list(trained.values()), 1.0)
        optimizer.step()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, trained[name].detach(), atol=2e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


def test_resume_with_optimizer_equals_never_having_stopped(server: RunningServer, service: tinker.ServiceClient) -> None:
    straight = new_run(service, seed=3)
    expected = steps(straight, 0, 8)
    first = new_run(service, seed=3)
    before = steps(first, 0, 4)
    path = first.save_state("half").result(timeout=60).path
    second = service.create_training_client_from_state_with_optimizer(path).result(timeout=60)
    after = steps(second, 4, 8)
    np.testing.assert_allclose(before + after, expected, rtol=0, atol=1e-5)
    resumed = weights_of(server, second, "end")
    for name, tensor in weights_of(server, straight, "end").items():
        torch.testing.assert_close(resumed[name], tensor, atol=1e-6, rtol=0)


def test_resume_without_optimizer_starts_adam_afresh(service: tinker.ServiceClient) -> None:
    first = new_run(service, seed=4)
    steps(first, 0, 4)
    path = first.save_state("half").result(timeout=60).path
    with_state = service.create_training_client_from_state_with_optimizer(path).result(timeout=60)
    without = service.create_training_client_from_state(path).result(timeout=60)
    a, b = steps(with_state, 4, 8), steps(without, 4, 8)
    assert a[0] == pytest.approx(b[0], abs=1e-5)
    assert max(abs(x - y) for x, y in zip(a[1:], b[1:], strict=True)) > 1e-3


def test_a_sampler_snapshot_never_drifts_and_sampling_never_touches_training(service: tinker.ServiceClient) -> None:
    prompt = types.ModelInput.from_ints(text_tokens("<|user|>Pig Latin: stream<|end|><|assistant|>"))
    greedy = types.SamplingParams(max_tokens=12, temperature=0.0)
    quiet, sampled = new_run(service, seed=5), new_run(service, seed=5)
    expected = steps(quiet, 0, 6)
    losses = steps(sampled, 0, 3)
    named = service.create_sampling_client(model_path=sampled.save_weights_for_sampler("three").result(timeout=60).path).result(timeout=60)
    unnamed = sampled.save_weights_and_get_sampling_client().result(timeout=60)
    before = [list(s.sample(prompt, 1, greedy).result(timeout=60).sequences[0].logprobs) for s in (named, unnamed)]
    losses += steps(sampled, 3, 6)
    after = [list(s.sample(prompt, 1, greedy).result(timeout=60).sequences[0].logprobs) for s in (named, unnamed)]
    assert before == after and before[0] == before[1]
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-6)
    fresh = sampled.save_weights_and_get_sampling_client().result(timeout=60)
    assert list(fresh.sample(prompt, 1, greedy).result(timeout=60).sequences[0].logprobs) != before[0]


def test_compute_logprobs_equals_forward(service: tinker.ServiceClient) -> None:
    client = new_run(service, seed=6)
    steps(client, 0, 4)
    tokens = text_tokens("<|user|>Pig Latin: window<|end|><|assistant|>indow-way<|end|>")
    data = types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": types.TensorData(data=tokens[1:], dtype="int64", shape=[len(tokens) - 1]),
            "weights": types.TensorData(data=[1.0] * (len(tokens) - 1), dtype="float32", shape=[len(tokens) - 1]),
        },
    )
    forward = logprobs_of(client.forward([data], "cross_entropy").result(timeout=60))[0]
    sampler = client.save_weights_and_get_sampling_client().result(timeout=60)
    scored = sampler.compute_logprobs(types.ModelInput.from_ints(tokens)).result(timeout=60)
    assert scored[0] is None and len(scored) == len(tokens)
    np.testing.assert_allclose(scored[1:], forward, atol=1e-4)
    tail = sampler.compute_logprobs(types.ModelInput.from_ints(tokens), prompt_logprobs_last_n=3).result(timeout=60)
    assert tail[:-3] == [None] * (len(tokens) - 3)
    np.testing.assert_allclose(tail[-3:], scored[-3:], atol=1e-5)


def test_sampled_logprobs_are_the_models_own(service: tinker.ServiceClient) -> None:
    sampler = service.create_sampling_client(base_model="nano").result(timeout=60)
    prompt = text_tokens("<|user|>Spell keyboard<|end|><|assistant|>")
    params = types.SamplingParams(max_tokens=10, temperature=0.7, top_k=20, top_p=0.9, seed=11)
    got = sampler.sample(types.ModelInput.from_ints(prompt), 1, params).result(timeout=60).sequences[0]
    scored = sampler.compute_logprobs(types.ModelInput.from_ints(prompt + list(got.tokens))).result(timeout=60)
    np.testing.assert_allclose(list(got.logprobs), scored[len(prompt) :], atol=1e-4)


def test_forward_leaves_no_gradient(service: tinker.ServiceClient) -> None:
    client = new_run(service)
    client.forward(batch(), "cross_entropy").result(timeout=60)
    with pytest.raises(Exception, match="no gradients"):
        client.optim_step(ADAM).result(timeout=60)


def test_gradients_add_up_over_calls(exact_server: RunningServer) -> None:
    server, service = exact_server, exact_server.client()
    whole, parts = new_run(service, seed=8), new_run(service, seed=8)
    whole.forward_backward(batch(0, 8), "cross_entropy")
    whole.optim_step(SMOOTH).result(timeout=60)
    parts.forward_backward(batch(0, 3), "cross_entropy")
    parts.forward_backward(batch(3, 5), "cross_entropy")
    parts.optim_step(SMOOTH).result(timeout=60)
    a, b = weights_of(server, whole, "w"), weights_of(server, parts, "w")
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ({"train_mlp": False, "train_unembed": False}, ("q_proj", "k_proj", "v_proj", "o_proj")),
        ({"train_attn": False, "train_unembed": False}, ("gate_proj", "up_proj", "down_proj")),
        ({"train_attn": False, "train_mlp": False}, ("lm_head",)),
    ],
)
def test_only_the_chosen_layers_are_trained(
    server: RunningServer, service: tinker.ServiceClient, layers: dict[str, bool], words: tuple
) -> None:
    client = new_run(service, **layers)
    names = {name.split(".lora_")[0].rpartition(".")[2] for name in weights_of(server, client, "w")}
    assert names == set(words)
    losses = steps(client, 0, 3)
    assert losses[-1] < losses[0] * 1.5


def test_the_seed_decides_the_start(server: RunningServer, service: tinker.ServiceClient) -> None:
    same = [weights_of(server, new_run(service, seed=9), "w") for _ in range(2)]
    other = weights_of(server, new_run(service, seed=10), "w")
    name = next(name for name in other if "lora_A" in name)
    assert torch.equal(same[0][name], same[1][name]) and not torch.equal(same[0][name], other[name])


def test_grad_clip_and_weight_decay_act(server: RunningServer, service: tinker.ServiceClient) -> None:
    """With eps 1e3 far above the gradient, AdamW's first step is lr x gradient / eps: its length shows the clipping."""

    def length(clip: float, decay: float) -> tuple[float, float]:
        client = new_run(service, seed=12)
        before = weights_of(server, client, "before")
        client.forward_backward(batch(), "cross_entropy")
        params = types.AdamParams(learning_rate=1.0, beta1=0.9, beta2=0.95, eps=1e3, weight_decay=decay, grad_clip_norm=clip)
        norm = client.optim_step(params).result(timeout=60).metrics["grad_norm:mean"]
        after = weights_of(server, client, "after")
        moved = math.sqrt(sum(float(((after[n] - before[n]) ** 2).sum()) for n in before if "lora_B" in n))
        shrunk = next(float(after[n].norm() / before[n].norm()) for n in before if "lora_A" in n)
        return moved * 1e3 / norm, shrunk

    assert length(0.0, 0.0)[0] == pytest.approx(1.0, rel=0.05)
    clipped, kept = length(0.01, 0.0)
    assert clipped < 0.01 and kept == pytest.approx(1.0, abs=1e-4)
    assert length(0.0, 0.25)[1] == pytest.approx(0.75, abs=1e-3)


def test_losses_have_their_golden_values(service: tinker.ServiceClient) -> None:
    """Each loss worked out here in plain numpy from the log-probabilities that `forward` gives."""
    client = new_run(service, seed=13)
    p = np.array(logprobs_of(client.forward([sft_datum("Hi", "Hello")], "cross_entropy").result(timeout=60))[0])
    answer = len(text_tokens("Hello<|end|>"))
    q = p[-answer:] + np.linspace(-0.6, 0.6, answer)
    for advantage in (1.5, -0.7):
        datum = rl_datum("Hi", "Hello", q.tolist(), advantage)
        ratio = np.exp(p[-answer:] - q)
        sequence = np.exp(np.mean(p[-answer:] - q))
        # The prompt's p isn't given to the server as an advantage, so only dro's penalty sees it: there q is 0.
        penalty = ((p[:-answer] - 0) ** 2).sum() + ((p[-answer:] - q) ** 2).sum()
        expected = {
            "importance_sampling": -(ratio * advantage).sum(),
            "ppo": -np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage).sum(),
            "cispo": -(np.clip(ratio, 0.8, 1.2) * p[-answer:] * advantage).sum(),
            "dro": -(p[-answer:] * advantage).sum() + 0.025 * penalty,
            "gspo": -answer * min(sequence * advantage, np.clip(sequence, 0.9997, 1.0004) * advantage),
        }
        for name, value in expected.items():
            got = client.forward([datum], name).result(timeout=60).metrics["loss:sum"]
            assert got == pytest.approx(float(value), rel=1e-4), name
        tight = client.forward([datum], "ppo", {"clip_low_threshold": 0.95, "clip_high_threshold": 1.05}).result(timeout=60)
        value = -np.minimum(ratio * advantage, np.clip(ratio, 0.95, 1.05) * advantage).sum()
        assert tight.metrics["loss:sum"] == pytest.approx(float(value), rel=1e-4)


def test_cross_entropy_is_a_sum_and_takes_negative_weights(service: tinker.ServiceClient) -> None:
    client = new_run(service, seed=14)
    datum = sft_datum("Hi", "Hello")
    logprobs = np.array(logprobs_of(client.forward([datum], "cross_entropy").result(timeout=60))[0])
    weights = np.linspace(-2, 3, len(logprobs)).astype(np.float32)
    datum.loss_fn_inputs["weights"] = types.TensorData(data=weights.tolist(), dtype="float32", shape=[len(weights)])
    one = client.forward([datum], "cross_entropy").result(timeout=60).metrics["loss:sum"]
    assert one == pytest.approx(float(-(weights * logprobs).sum()), rel=1e-4)
    two = client.forward([datum, datum], "cross_entropy").result(timeout=60).metrics["loss:sum"]
    assert two == pytest.approx(2 * one, rel=1e-5)


def test_cross_entropy_over_several_targets_a_position(service: tinker.ServiceClient) -> None:
    client = new_run(service, seed=15)
    tokens = text_tokens("<|user|>Hi<|end|><|assistant|>Hello")
    n = len(tokens) - 1
    pairs = [[t, 65] for t in tokens[1:]]
    datum = types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": types.TensorData(data=[t for pair in pairs for t in pair], dtype="int64", shape=[n, 2]),
            "weights": types.TensorData(data=[0.75, 0.25] * n, dtype="float32", shape=[n, 2]),
        },
    )
    output = client.forward([datum], "cross_entropy").result(timeout=60)
    rows = np.array(output.loss_fn_outputs[0]["logprobs"].data).reshape(output.loss_fn_outputs[0]["logprobs"].shape)
    assert rows.shape == (n, 2)
    assert output.metrics["loss:sum"] == pytest.approx(float(-(rows * [0.75, 0.25]).sum()), rel=1e-4)


def test_custom_loss_equals_the_built_in_one(server: RunningServer, service: tinker.ServiceClient) -> None:
    built_in, custom = new_run(service, seed=16), new_run(service, seed=16)
    built_in.forward_backward(batch(), "cross_entropy")
    built_in.optim_step(SMOOTH).result(timeout=60)

    def loss(data: list[types.Datum], logprobs: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        rows = [-(lp * torch.tensor(d.loss_fn_inputs["weights"].data)).sum() for d, lp in zip(data, logprobs, strict=True)]
        return torch.stack(rows).sum(), {}

    custom.forward_backward_custom(batch(), loss)
    custom.optim_step(SMOOTH).result(timeout=60)
    a, b = weights_of(server, built_in, "w"), weights_of(server, custom, "w")
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


def test_a_large_batch_travels_in_chunks(service: tinker.ServiceClient) -> None:
    """The SDK cuts at 1,024 rows and posts the first chunk last; the sum must come out as from small calls."""
    client = new_run(service, seed=17)
    rows = batch(0, 12)
    small = client.forward(rows, "cross_entropy").result(timeout=60)
    large = client.forward(rows * 90, "cross_entropy").result(timeout=120)
    assert len(large.loss_fn_outputs) == 1080
    assert large.metrics["loss:sum"] == pytest.approx(90 * small.metrics["loss:sum"], rel=1e-4)
    np.testing.assert_allclose(logprobs_of(large)[1079], logprobs_of(small)[11], atol=1e-4)


class TestSampling:
    def test_n_seed_and_temperature(self, service: tinker.ServiceClient) -> None:
        sampler = service.create_sampling_client(base_model="nano").result(timeout=60)
        prompt = types.ModelInput.from_ints(text_tokens("<|user|>Say something<|end|><|assistant|>"))

        def draw(seed: int | None, temperature: float, n: int = 4) -> list[list[int]]:
            params = types.SamplingParams(max_tokens=16, temperature=temperature, seed=seed)
            return [list(s.tokens) for s in sampler.sample(prompt, n, params).result(timeout=60).sequences]

        assert draw(1, 4.0) == draw(1, 4.0)
        assert draw(1, 4.0) != draw(2, 4.0)
        assert len({tuple(tokens) for tokens in draw(1, 4.0)}) > 1
        assert len({tuple(tokens) for tokens in draw(None, 0.0)}) == 1
        assert draw(3, 4.0, n=2) == draw(3, 4.0, n=4)[:2]

    def test_stops(self, service: tinker.ServiceClient) -> None:
        sampler = service.create_sampling_client(base_model="nano").result(timeout=60)
        prompt = types.ModelInput.from_ints(text_tokens("<|user|>Spell the word keyboard with dashes<|end|><|assistant|>"))

        def ask(**params) -> types.SampledSequence:
            return sampler.sample(prompt, 1, types.SamplingParams(temperature=0.0, **params)).result(timeout=60).sequences[0]

        tokenizer = load_tokenizer(NANO)
        free = ask(max_tokens=40)
        assert free.stop_reason == "stop" and free.tokens[-1] == 1
        text = tokenizer.decode(free.tokens[:-1])
        assert text == "k-e-y-b-o-a-r-d"
        cut = ask(max_tokens=40, stop="-y-")
        assert cut.stop_reason == "stop" and tokenizer.decode(cut.tokens) == "k-e-y-"
        dash = text_tokens("-")[0]
        assert list(ask(max_tokens=40, stop=[dash]).tokens) == list(free.tokens[:2])
        endless = ask(max_tokens=40, stop=[])
        assert endless.stop_reason == "length" and len(endless.tokens) == 40
        assert ask(max_tokens=3).stop_reason == "length"

    def test_no_max_tokens_runs_to_the_end_or_the_context(self, service: tinker.ServiceClient) -> None:
        sampler = service.create_sampling_client(base_model="nano").result(timeout=60)
        prompt = types.ModelInput.from_ints(text_tokens("<|user|>Spell apple<|end|><|assistant|>"))
        got = sampler.sample(prompt, 1, types.SamplingParams(temperature=0.0)).result(timeout=60).sequences[0]
        assert got.stop_reason == "stop"
        long = types.ModelInput.from_ints(text_tokens("a" * 1020))
        got = sampler.sample(long, 1, types.SamplingParams(temperature=0.0, stop=[])).result(timeout=60).sequences[0]
        assert len(got.tokens) == 4 and got.stop_reason == "length"

    def test_top_k_one_is_greedy(self, service: tinker.ServiceClient) -> None:
        sampler = service.create_sampling_client(base_model="nano").result(timeout=60)
        prompt = types.ModelInput.from_ints(text_tokens("<|user|>Say something<|end|><|assistant|>"))
        greedy = sampler.sample(prompt, 1, types.SamplingParams(max_tokens=12, temperature=0.0)).result(timeout=60).sequences[0]
        for params in ({"top_k": 1}, {"top_p": 1e-6}):
            got = sampler.sample(prompt, 1, types.SamplingParams(max_tokens=12, temperature=1.0, **params)).result(timeout=60).sequences[0]
            assert list(got.tokens) == list(greedy.tokens)

    def test_many_at_once_equal_one_by_one(self, service: tinker.ServiceClient) -> None:
        sampler = service.create_sampling_client(base_model="nano").result(timeout=60)
        prompts = [
            types.ModelInput.from_ints(text_tokens(f"<|user|>{text}<|end|><|assistant|>"))
            for text in ("Hi", "Reverse stone", "Spell thread")
        ]
        params = types.SamplingParams(max_tokens=20, temperature=0.0)
        alone = [list(sampler.sample(p, 1, params).result(timeout=60).sequences[0].tokens) for p in prompts]
        futures = [sampler.sample(p, 1, params) for p in prompts * 5]
        together = [list(f.result(timeout=60).sequences[0].tokens) for f in futures]
        assert together == alone * 5


def test_a_checkpoint_is_complete_and_describes_itself(server: RunningServer, service: tinker.ServiceClient) -> None:
    client = new_run(service, rank=4, seed=18)
    steps(client, 0, 2)
    folder = server.checkpoint_folder(client.save_state("full", user_metadata={"renderer": "chat_template"}).result(timeout=60).path)
    files = {file.name for file in folder.iterdir()}
    assert files == {"adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors", "checkpoint.json"}
    info = json.loads((folder / "checkpoint.json").read_text())
    assert (info["base_model"], info["rank"], info["steps"], info["has_optimizer"]) == ("nano", 4, 2, True)
    assert info["user_metadata"] == {"renderer": "chat_template"}
    assert not list(folder.parent.glob(".*"))


def test_finish_ends_the_session(server: RunningServer) -> None:
    client = server.client()
    training = client.create_lora_training_client("nano", rank=4).result(timeout=60)
    model_id = training.model_id
    client.close("success", detail="done").result(timeout=20)
    with server.http() as http:
        assert http.post("get_info", json={"model_id": model_id}).status_code == 404
        assert http.post("session_heartbeat", json={"session_id": model_id.split(":")[0]}).status_code == 410
