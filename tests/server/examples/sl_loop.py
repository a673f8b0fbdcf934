"""Supervised learning as Tinker's documentation writes it: chat rows to datums, forward_backward, optim_step, sample.

    TINKER_BASE_URL=... TINKER_API_KEY=tml-... python sl_loop.py MODEL

Uses the public SDK and the model's own tokenizer, and knows nothing of who answers at that address. The task is Pig
Latin; the last line of the output is JSON with the losses, the answers and what resuming from a checkpoint gave.
"""

from __future__ import annotations

import json
import random
import sys

import numpy as np
import tinker
from tinker import types

WORDS = """apple banana basket bottle bridge brother button camera candle carpet castle chicken circle coffee copper corner
cotton dancer desert dinner doctor dragon engine family farmer finger flower forest friend garden guitar hammer harbor
honey island jacket jungle kitchen ladder lemon letter market mirror monkey morning mother motor needle number ocean
office orange painter paper pencil pepper picture pillow planet pocket potato rabbit ribbon river rocket school
season shadow shower silver singer sister spider spring stable summer sunset table teacher ticket tiger tunnel turtle
uncle valley village violin walnut water weather window winter wizard yellow zebra"""
HELD_OUT = ["silence", "dolphin", "marble", "thunder", "umbrella", "velvet"]
STEPS, BATCH_SIZE, LEARNING_RATE = 60, 16, 5e-3


def pig_latin(word: str) -> str:
    return f"{word[1:]}-{word[0]}ay"


def to_datum(messages: list[dict[str, str]], tokenizer) -> types.Datum:
    """Next-token prediction on the last answer: position i of the input predicts token i + 1 of the whole."""
    prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(messages, return_dict=False)
    weights = np.array([0] * len(prompt) + [1] * (len(whole) - len(prompt)), np.float32)
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens=whole[:-1]),
        loss_fn_inputs={"weights": weights[1:], "target_tokens": np.array(whole[1:], np.int64)},
    )


def mean_nll(output: types.ForwardBackwardOutput, batch: list[types.Datum]) -> float:
    """Negative log-likelihood per trained token, from the returned log-probabilities."""
    logprobs = np.concatenate([row["logprobs"].to_numpy() for row in output.loss_fn_outputs])
    weights = np.concatenate([datum.loss_fn_inputs["weights"].to_numpy() for datum in batch])
    return float(-np.dot(logprobs, weights) / weights.sum())


def main(model: str) -> None:
    service_client = tinker.ServiceClient()
    training_client = service_client.create_lora_training_client(base_model=model, rank=32).result()
    tokenizer = training_client.get_tokenizer()

    def question(word: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": f"Pig Latin: {word}"}]

    data = [to_datum([*question(word), {"role": "assistant", "content": pig_latin(word)}], tokenizer) for word in WORDS.split()]
    shuffle = random.Random(0)
    losses = []
    for step in range(STEPS):
        batch = shuffle.sample(data, BATCH_SIZE)
        adam_params = types.AdamParams(learning_rate=LEARNING_RATE * (1 - step / STEPS), beta1=0.9, beta2=0.95, eps=1e-8)
        # Both are sent before either is awaited, so that the server always has work.
        fwd_bwd_future = training_client.forward_backward(batch, loss_fn="cross_entropy")
        optim_step_future = training_client.optim_step(adam_params)
        losses.append(mean_nll(fwd_bwd_future.result(), batch))
        optim_step_future.result()

    batch = data[:BATCH_SIZE]
    before = mean_nll(training_client.forward(batch, loss_fn="cross_entropy").result(), batch)
    state_path = training_client.save_state(name="after-training").result().path
    resumed = service_client.create_training_client_from_state_with_optimizer(state_path).result()
    after = mean_nll(resumed.forward(batch, loss_fn="cross_entropy").result(), batch)
    resumed.forward_backward(batch, loss_fn="cross_entropy")
    resumed.optim_step(types.AdamParams(learning_rate=LEARNING_RATE)).result()
    resumed.load_state(state_path).result()
    loaded = mean_nll(resumed.forward(batch, loss_fn="cross_entropy").result(), batch)

    sampling_client = training_client.save_weights_and_get_sampling_client(name="pig-latin").result()
    params = types.SamplingParams(max_tokens=24, temperature=0.0, stop=[tokenizer.eos_token])
    futures = {}
    for word in HELD_OUT:
        prompt = tokenizer.apply_chat_template(question(word), add_generation_prompt=True, return_dict=False)
        futures[word] = sampling_client.sample(prompt=types.ModelInput.from_ints(prompt), num_samples=1, sampling_params=params)
    answers = {word: tokenizer.decode(future.result().sequences[0].tokens, skip_special_tokens=True) for word, future in futures.items()}
    right = sum(answer.strip() == pig_latin(word) for word, answer in answers.items())
    print(json.dumps({"losses": losses, "saved": before, "resumed": after, "loaded": loaded, "answers": answers, "right": right}))


if __name__ == "__main__":
    main(sys.argv[1])
