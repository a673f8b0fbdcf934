"""Reinforcement learning as Tinker's documentation writes it: sample in groups, reward, centre, importance_sampling, update.

    TINKER_BASE_URL=... TINKER_API_KEY=tml-... python rl_loop.py MODEL

Uses the public SDK, asynchronously, and knows nothing of who answers at that address. The reward is the share of vowels
in an answer, a rule that any model can come to follow; the last line of the output is JSON with the mean rewards.
"""

from __future__ import annotations

import asyncio
import json
import sys

import tinker
import torch
from tinker import TensorData

TOPICS = ["the sea", "a long walk", "bread", "winter", "an old house", "music", "a river", "the moon", "a garden", "rain"]
STEPS, BATCH_SIZE, GROUP_SIZE, MAX_TOKENS, LEARNING_RATE = 8, 5, 12, 16, 5e-3


class RoleColon:
    """The plainest of the documented renderers: who speaks, a colon, what is said."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer

    def build_generation_prompt(self, messages: list[dict[str, str]]) -> tinker.ModelInput:
        text = "".join(f"{message['role'].capitalize()}: {message['content']}\n\n" for message in messages) + "Assistant:"
        return tinker.ModelInput.from_ints(self.tokenizer.encode(text, add_special_tokens=False))

    def get_stop_sequences(self) -> list[str]:
        return ["\n\nUser:"]

    def parse_response(self, tokens: list[int]) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True).split("\n\nUser:")[0].strip()


def reward_of(answer: str) -> float:
    return sum(letter in "aeiou" for letter in answer) / max(len(answer), 1)


async def main(model: str) -> None:
    service_client = tinker.ServiceClient()
    training_client = await service_client.create_lora_training_client_async(base_model=model, rank=16)
    renderer = RoleColon(training_client.get_tokenizer())
    sampling_params = tinker.SamplingParams(max_tokens=MAX_TOKENS, temperature=1.0, stop=renderer.get_stop_sequences())
    adam_params = tinker.AdamParams(learning_rate=LEARNING_RATE, beta1=0.9, beta2=0.95)

    rewards = []
    for step in range(STEPS):
        topics = [TOPICS[(step * BATCH_SIZE + i) % len(TOPICS)] for i in range(BATCH_SIZE)]
        sampling_client = await training_client.save_weights_and_get_sampling_client_async()
        prompts = [renderer.build_generation_prompt([{"role": "user", "content": f"Tell me about {topic}."}]) for topic in topics]
        sampled = await asyncio.gather(
            *(sampling_client.sample_async(prompt=prompt, num_samples=GROUP_SIZE, sampling_params=sampling_params) for prompt in prompts)
        )
        datums, batch_rewards = [], []
        for prompt, result in zip(prompts, sampled, strict=True):
            group = [reward_of(renderer.parse_response(sequence.tokens)) for sequence in result.sequences]
            mean = sum(group) / len(group)
            batch_rewards.append(mean)
            for sequence, reward in zip(result.sequences, group, strict=True):
                if reward != mean:
                    datums.append(to_datum(prompt, sequence, reward - mean))
        rewards.append(sum(batch_rewards) / len(batch_rewards))
        if datums:
            fwd_bwd_future = await training_client.forward_backward_async(datums, loss_fn="importance_sampling")
            optim_future = await training_client.optim_step_async(adam_params)
            await fwd_bwd_future.result_async()
            await optim_future.result_async()

    path = (await (await training_client.save_weights_for_sampler_async(name="final")).result_async()).path
    sampling_client = await service_client.create_sampling_client_async(model_path=path)
    prompt = renderer.build_generation_prompt([{"role": "user", "content": "Tell me about the wind."}])
    last = await sampling_client.sample_async(prompt=prompt, num_samples=GROUP_SIZE, sampling_params=sampling_params)
    answers = [renderer.parse_response(sequence.tokens) for sequence in last.sequences]
    print(json.dumps({"rewards": rewards, "path": path, "answers": answers, "new_topic": sum(map(reward_of, answers)) / len(answers)}))


def to_datum(prompt: tinker.ModelInput, sequence: tinker.SampledSequence, advantage: float) -> tinker.Datum:
    """Advantage 0 on the prompt, the group-relative one on what was sampled; targets are shifted by one."""
    before = prompt.length - 1
    model_input = prompt
    if len(sequence.tokens) > 1:
        model_input = prompt.append(tinker.EncodedTextChunk(tokens=sequence.tokens[:-1]))
    return tinker.Datum(
        model_input=model_input,
        loss_fn_inputs={
            "target_tokens": TensorData.from_torch(torch.tensor([0] * before + list(sequence.tokens))),
            "logprobs": TensorData.from_torch(torch.tensor([0.0] * before + list(sequence.logprobs))),
            "advantages": TensorData.from_torch(torch.tensor([0.0] * before + [advantage] * len(sequence.tokens))),
        },
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
