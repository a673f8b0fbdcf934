"""Log-probabilities beside the tokens' own, through the official SDK, against plain transformers in this process."""

from __future__ import annotations

import numpy as np
import pytest
import tinker
import torch
from tinker import types

from tests.server.harness import NANO, batch, text_tokens
from tests.server.raw import Session

PROMPT = text_tokens("<|user|>Pig Latin: stream<|end|><|assistant|>")
INPUT = types.ModelInput.from_ints(PROMPT)
ONE = types.SamplingParams(max_tokens=1)
EMPTY = -99999.0


@pytest.fixture(scope="module")
def sampler(service: tinker.ServiceClient) -> tinker.SamplingClient:
    return service.create_sampling_client(base_model="nano").result(timeout=60)


@pytest.fixture(scope="module")
def plain() -> torch.nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(NANO, dtype=torch.float32).eval()


def expected(plain: torch.nn.Module, tokens: list[int]) -> np.ndarray:
    """Row i: the log-probabilities of what may follow token i."""
    with torch.no_grad():
        return torch.log_softmax(plain(torch.tensor([tokens])).logits[0].double(), -1).numpy()


def test_top_k_of_the_prompt(sampler: tinker.SamplingClient, plain: torch.nn.Module) -> None:
    got = sampler.sample(INPUT, 1, ONE, include_prompt_logprobs=True, topk_prompt_logprobs=5).result(timeout=60)
    logs = expected(plain, PROMPT)
    table = got.topk_prompt_logprobs
    assert len(table) == len(PROMPT) and table[0] is None
    for place in range(1, len(PROMPT)):
        ids = np.argsort(-logs[place - 1], kind="stable")[:5]
        assert [token for token, _ in table[place]] == ids.tolist(), place
        np.testing.assert_allclose([value for _, value in table[place]], logs[place - 1][ids], atol=1e-4)
    np.testing.assert_allclose(got.prompt_logprobs[1:], logs[np.arange(len(PROMPT) - 1), PROMPT[1:]], atol=1e-4)
    alone = sampler.sample(INPUT, 1, ONE, topk_prompt_logprobs=5).result(timeout=60)
    assert alone.prompt_logprobs is None and alone.topk_prompt_logprobs == table


def test_only_the_last_of_the_prompt(sampler: tinker.SamplingClient) -> None:
    whole, tail = (
        sampler.sample(INPUT, 1, ONE, include_prompt_logprobs=True, topk_prompt_logprobs=3, prompt_logprobs_last_n=n).result(timeout=60)
        for n in (None, 4)
    )
    assert tail.topk_prompt_logprobs == [None] * (len(PROMPT) - 4) + whole.topk_prompt_logprobs[-4:]
    assert tail.topk_prompt_logprobs_np.logprobs[0, 0] == EMPTY


def test_top_k_of_what_was_sampled(sampler: tinker.SamplingClient, plain: torch.nn.Module) -> None:
    params = types.SamplingParams(max_tokens=8, temperature=4.0, seed=3, stop=[])
    got = sampler.sample(INPUT, 2, params, topk_sample_logprobs=4).result(timeout=60)
    assert list(got.sequences[0].tokens) != list(got.sequences[1].tokens)
    for sequence in got.sequences:
        logs = expected(plain, PROMPT + list(sequence.tokens))[len(PROMPT) - 1 : -1]
        table = sequence.topk_logprobs_np
        assert table.token_ids.shape == (8, 4)
        np.testing.assert_array_equal(table.token_ids, np.argsort(-logs, kind="stable")[:, :4])
        np.testing.assert_allclose(table.logprobs, np.sort(logs)[:, ::-1][:, :4], atol=1e-4)
        np.testing.assert_allclose(sequence.logprobs, logs[np.arange(8), list(sequence.tokens)], atol=1e-4)


def test_of_a_trained_adapter(service: tinker.ServiceClient, sampler: tinker.SamplingClient) -> None:
    client = service.create_lora_training_client("nano", rank=8, seed=21).result(timeout=60)
    for _ in range(3):
        client.forward_backward(batch(), "cross_entropy")
        client.optim_step(types.AdamParams(learning_rate=1e-2)).result(timeout=60)
    tuned = client.save_weights_and_get_sampling_client().result(timeout=60)
    greedy = types.SamplingParams(max_tokens=6, temperature=0.0, stop=[])
    got = tuned.sample(INPUT, 1, greedy, topk_sample_logprobs=1).result(timeout=60).sequences[0]
    assert [row[0][0] for row in got.topk_logprobs] == list(got.tokens)
    np.testing.assert_allclose([row[0][1] for row in got.topk_logprobs], got.logprobs, atol=1e-4)
    base = sampler.sample(INPUT, 1, greedy, topk_sample_logprobs=1).result(timeout=60).sequences[0]
    assert abs(base.logprobs[0] - got.logprobs[0]) > 1e-3, "the adapter made a difference"


@pytest.mark.parametrize("sparse", [False, True])
def test_chosen_tokens(sampler: tinker.SamplingClient, plain: torch.nn.Module, sparse: bool) -> None:
    logs = expected(plain, PROMPT)
    wanted = torch.full((len(PROMPT) - 1, 6), -1, dtype=torch.int64)
    wanted[2, 0], wanted[2, 5], wanted[7, 3] = 11, 250, 0
    data = types.TensorData.from_torch_sparse(wanted, pad_value=-1) if sparse else types.TensorData.from_torch(wanted)
    assert (data.sparse_crow_indices is not None) == sparse
    got = sampler.sample(INPUT, 1, ONE, target_prompt_logprobs=data).result(timeout=60).target_prompt_logprobs
    assert got.shape == [len(PROMPT) - 1, 6] and (got.sparse_crow_indices is not None) == sparse
    values = np.zeros((len(PROMPT) - 1, 6))
    values[2, 0], values[2, 5], values[7, 3] = logs[2, 11], logs[2, 250], logs[7, 0]
    np.testing.assert_allclose(got.to_numpy(), values, atol=1e-4)


def test_drawn_tokens(sampler: tinker.SamplingClient, plain: torch.nn.Module) -> None:
    logs, count = expected(plain, PROMPT), 400
    got = (
        sampler.sample(INPUT, 1, types.SamplingParams(max_tokens=1, seed=5), prompt_alt_tokens_k=count).result(timeout=60).prompt_alt_tokens
    )
    tokens, values = got.tokens.to_numpy(), got.logprobs.to_numpy()
    assert tokens.shape == values.shape == (len(PROMPT) - 1, count)
    np.testing.assert_allclose(values, np.take_along_axis(logs[:-1], tokens, axis=1), atol=1e-4)
    for place in range(len(PROMPT) - 1):
        token = int(logs[place].argmax())
        share = np.exp(logs[place, token])
        # Five standard deviations of a draw of that share.
        assert abs((tokens[place] == token).mean() - share) <= 5 * np.sqrt(share * (1 - share) / count) + 1e-9
    cold = sampler.sample(INPUT, 1, types.SamplingParams(max_tokens=1, temperature=0.0), prompt_alt_tokens_k=2).result(timeout=60)
    np.testing.assert_array_equal(cold.prompt_alt_tokens.tokens.to_numpy(), np.repeat(logs[:-1].argmax(-1)[:, None], 2, axis=1))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"topk_prompt_logprobs": -1}, "topk_prompt_logprobs has to be"),
        ({"topk_prompt_logprobs": 10**9}, "topk_prompt_logprobs has to be"),
        ({"topk_sample_logprobs": 10**9}, "topk_sample_logprobs has to be"),
        ({"topk_sample_logprobs": 200, "num_samples": 1000, "sampling_params": {"max_tokens": 100}}, "would hold more than"),
        ({"prompt_alt_tokens_k": -1}, "prompt_alt_tokens_k"),
        ({"prompt_alt_tokens_k": 10**8}, "would hold more than"),
        ({"target_prompt_logprobs": {"data": [1, 2], "dtype": "int64", "shape": [1, 2]}}, "[2, K]"),
        ({"target_prompt_logprobs": {"data": [1, 2, 3], "dtype": "int64", "shape": [2, 2]}}, "doesn't fit"),
        ({"target_prompt_logprobs": {"data": [1, 2], "dtype": "int64"}}, "[2, K]"),
        ({"target_prompt_logprobs": {"data": [], "dtype": "int64", "shape": [10**9, 10**9]}}, "[2, K]"),
        ({"target_prompt_logprobs": {"data": [], "dtype": "int64", "shape": [2, 10**9]}}, "[2, K]"),
        ({"target_prompt_logprobs": {"data": [], "dtype": "int64", "shape": [2, -1]}}, "[2, K]"),
        ({"target_prompt_logprobs": {"data": [1.5, 2], "dtype": "float32", "shape": [2, 1]}}, "[2, K]"),
        ({"target_prompt_logprobs": {"data": [10**6, 2], "dtype": "int64", "shape": [2, 1]}}, "outside the vocabulary"),
        ({"target_prompt_logprobs": {"data": [2**70, 2], "dtype": "int64", "shape": [2, 1]}}, "doesn't fit"),
        (
            {
                "target_prompt_logprobs": {
                    "data": [1, 2],
                    "dtype": "int64",
                    "shape": [2, 9],
                    "sparse_crow_indices": [0, 1, 2],
                    "sparse_col_indices": [0, 9],
                }
            },
            "contradict",
        ),
    ],
)
def test_what_can_not_be_asked(session: Session, fields: dict, words: str) -> None:
    body = session.sample_body(session.sampler(), 0, [5, 6, 7])
    reply = session.post("asample", {**body, **fields})
    assert reply.status_code == 400 and words in reply.json()["detail"], reply.text
