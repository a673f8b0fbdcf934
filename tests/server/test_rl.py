"""Reinforcement learning against a real server, written as the SDK's documentation has it: sample, reward, train, repeat."""

from __future__ import annotations

import numpy as np
import pytest
import tinker
from tinker import types

from tests.server.harness import text_tokens

PROMPT = text_tokens("the ")
WANTED = text_tokens("e")[0]
GROUP, LENGTH, STEPS = 48, 6, 5
CONFIG = {"gspo": {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}}


def share(sequences: list[types.SampledSequence]) -> np.ndarray:
    """The reward: how much of an answer is the letter e."""
    return np.array([np.mean(np.array(sequence.tokens) == WANTED) for sequence in sequences])


def datum(sequence: types.SampledSequence, prompt_logprobs: list[float], advantage: float) -> types.Datum:
    tokens = PROMPT + list(sequence.tokens)
    before = len(PROMPT) - 1
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": types.TensorData.from_numpy(np.array(tokens[1:])),
            "logprobs": types.TensorData.from_numpy(np.array([*prompt_logprobs, *sequence.logprobs], np.float32)),
            "advantages": types.TensorData.from_numpy(np.array([0.0] * before + [advantage] * len(sequence.tokens), np.float32)),
        },
    )


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["importance_sampling", "ppo", "cispo", "dro", "gspo"])
def test_the_reward_rises(service: tinker.ServiceClient, loss: str) -> None:
    client = service.create_lora_training_client("nano", rank=8, seed=4).result(timeout=60)
    rewards = []
    for step in range(STEPS):
        sampler = client.save_weights_and_get_sampling_client().result(timeout=60)
        params = types.SamplingParams(max_tokens=LENGTH, temperature=1.0, seed=step, stop=[])
        got = sampler.sample(types.ModelInput.from_ints(PROMPT), GROUP, params, include_prompt_logprobs=True).result(timeout=60)
        reward = share(got.sequences)
        rewards.append(reward.mean())
        advantages = (reward - reward.mean()) / (reward.std() + 1e-6)
        data = [datum(sequence, got.prompt_logprobs[1:], float(a)) for sequence, a in zip(got.sequences, advantages, strict=True)]
        # Two passes over the same samples, in two calls each: the second is off-policy, and gradients add up over calls.
        for _ in range(2):
            for half in (data[: GROUP // 2], data[GROUP // 2 :]):
                client.forward_backward(half, loss, CONFIG.get(loss))
            client.optim_step(types.AdamParams(learning_rate=5e-3)).result(timeout=60)
    assert rewards[-1] > 2 * rewards[0] + 0.1, rewards
