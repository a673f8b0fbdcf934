"""Sampling, plainly: a left-padded batch, the model's own key-value cache, one token a row a turn. Knows no requests' order.

Each row draws from its own random generator, so what a seed gives doesn't depend on its neighbours in the batch.
Log-probabilities are the model's own (temperature 1, no filter), as compute_logprobs and training see them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from engine.errors import DataError
from engine.server.memory import check_logits
from engine.server.model import BaseModel
from engine.server.weights import Weights

MAX_ROWS = 128
MAX_SAMPLES = 1024
GREEDY_BELOW = 1e-5  # dividing logits by less overflows, and would give the likeliest token anyway


@dataclass
class SampleJob:
    """One request: `n` continuations of `prompt`, and the prompt's own log-probabilities if asked for."""

    prompt: list[int]
    n: int = 1
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    seed: int | None = None
    stop_tokens: tuple[int, ...] = ()
    stop_strings: tuple[str, ...] = ()
    prompt_logprobs: bool = False
    # Both are called on the worker's thread: (which sample, token, logprob) as each is drawn; whether nobody wants the rest.
    on_token: Callable[[int, int, float], None] | None = None
    abandoned: Callable[[], bool] | None = None


@dataclass(eq=False)
class Row:
    """One continuation on its way."""

    job: SampleJob
    generator: torch.Generator
    limit: int
    position: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stopped: bool = False

    def text(self) -> list[int]:
        """What it goes on from: the prompt and what it has written."""
        return [*self.job.prompt, *self.tokens]


Sequences = list[tuple[list[int], list[float], bool]]


def check_job(job: SampleJob, base: BaseModel) -> None:
    """What can be known to be wrong beforehand. Raises DataError."""
    if not job.prompt:
        raise DataError("the prompt is empty", "Send at least one token.", where="prompt")
    if min(job.prompt) < 0 or max(job.prompt) >= base.vocab_size:
        raise DataError(f"a token id lies outside the vocabulary of {base.vocab_size:,}", "Use the base model's tokenizer.", where="prompt")
    if len(job.prompt) > base.context:
        raise DataError(f"{len(job.prompt):,} tokens are more than the context of {base.context:,}", "Cut the prompt.", where="prompt")
    if not 1 <= job.n <= MAX_SAMPLES:
        raise DataError(f"num_samples has to be 1 to {MAX_SAMPLES}", "Ask several times.", where="num_samples")
    if job.max_tokens is not None and job.max_tokens < 1:
        raise DataError("max_tokens has to be 1 or more", "Leave it out for the model's limit.", where="max_tokens")
    if not 0 <= job.temperature <= 100:
        raise DataError("temperature has to be 0 or more", "0 always takes the likeliest token.", where="temperature")
    if not 0 < job.top_p <= 1:
        raise DataError("top_p has to be over 0 and at most 1", "1 switches it off.", where="top_p")
    if job.top_k < -1 or job.top_k == 0:
        raise DataError("top_k has to be 1 or more, or -1", "-1 switches it off.", where="top_k")


class Sampler:
    """Samples from the base, with an adapter, or with weights in its place."""

    def __init__(self, base: BaseModel, tokenizer=None):
        """`tokenizer` is needed for stop strings only."""
        self.base = base
        self.tokenizer = tokenizer

    @torch.no_grad()
    def sample(self, adapter: Weights | None, jobs: Sequence[SampleJob]) -> list[tuple[Sequences, list[float] | None]]:
        """Per job: n x (tokens, logprobs, stopped by itself), and prompt logprobs (first NaN) or None."""
        with self.base.using(adapter):
            rows = [[self.row(job, i) for i in range(job.n)] for job in jobs]
            flat = [row for group in rows for row in group if row.limit > 0]
            flat.sort(key=lambda row: len(row.job.prompt))
            for start in range(0, len(flat), MAX_ROWS):
                self._generate(flat[start : start + MAX_ROWS])
            prompts = [self.prompt_logprobs(job.prompt) if job.prompt_logprobs else None for job in jobs]
        return [
            ([(row.tokens, row.logprobs, row.stopped) for row in group], logprobs) for group, logprobs in zip(rows, prompts, strict=True)
        ]

    def row(self, job: SampleJob, position: int) -> Row:
        """The continuation at that position of the job's n."""
        generator = torch.Generator()
        # Distinct streams for the n samples of one request: neighbouring seeds are mixed by the generator's own seeding.
        generator.manual_seed((job.seed * MAX_SAMPLES + position) % 2**63) if job.seed is not None else generator.seed()
        room = self.base.context - len(job.prompt)
        return Row(job, generator, room if job.max_tokens is None else min(room, job.max_tokens), position)

    @torch.no_grad()
    def prompt_logprobs(self, prompt: list[int]) -> list[float]:
        """Of each token given those before it, the first NaN, with the adapter in use."""
        check_logits(len(prompt), self.base.vocab_size, self.base.device)
        tokens = torch.tensor([prompt], device=self.base.device)
        logits = self.base.model(input_ids=tokens, use_cache=False).logits[0, :-1].float()
        logs = torch.log_softmax(logits, dim=-1).gather(-1, tokens[0, 1:, None])[:, 0]
        return [float("nan"), *logs.tolist()]

    def _generate(self, rows: list[Row]) -> None:
        device = self.base.device
        width = max(len(row.job.prompt) for row in rows)
        tokens = torch.zeros(len(rows), width, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            tokens[i, width - len(row.job.prompt) :] = torch.tensor(row.job.prompt)
            mask[i, width - len(row.job.prompt) :] = 1
        tokens, mask = tokens.to(device), mask.to(device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        output = self.base.model(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
        live = list(range(len(rows)))
        while True:
            logits = output.logits[:, -1].float().cpu()
            drawn = [0] * len(rows)
            for i in live:
                drawn[i] = self.draw(rows[i], logits[i])
            live = [i for i in live if not self.finished(rows[i])]
            if not live:
                return
            mask = torch.cat([mask, torch.ones(len(rows), 1, dtype=torch.long, device=device)], dim=1)
            positions = positions[:, -1:] + 1
            output = self.base.model(
                input_ids=torch.tensor(drawn, device=device)[:, None],
                attention_mask=mask,
                position_ids=positions.clamp(max=self.base.context - 1),
                past_key_values=output.past_key_values,
                use_cache=True,
            )

    def draw(self, row: Row, logits: torch.Tensor) -> int:
        """The row's next token from its logits [V]."""
        logs = torch.log_softmax(logits, dim=-1)
        token = draw_token(logits, row.job.temperature, row.job.top_k, row.job.top_p, row.generator)
        row.tokens.append(token)
        row.logprobs.append(float(logs[token]))
        if row.job.on_token:
            row.job.on_token(row.position, token, row.logprobs[-1])
        return token

    def finished(self, row: Row) -> bool:
        """Whether its last token was the last one."""
        if row.tokens[-1] in row.job.stop_tokens or self._wrote_stop_string(row):
            row.stopped = True
        return row.stopped or len(row.tokens) >= row.limit or bool(row.job.abandoned and row.job.abandoned())

    def _wrote_stop_string(self, row: Row) -> bool:
        if not row.job.stop_strings:
            return False
        tail = self.tokenizer.decode(row.tokens[-_tail_length(row.job.stop_strings) :], skip_special_tokens=False)
        return any(stop in tail for stop in row.job.stop_strings)


def draw_token(logits: torch.Tensor, temperature: float, top_k: int, top_p: float, generator: torch.Generator) -> int:
    """One token id from logits [V]: temperature, then top-k, then nucleus (top-p); temperature 0 is greedy."""
    if temperature < GREEDY_BELOW:
        return int(logits.argmax())
    scaled = logits / temperature
    if 0 < top_k < scaled.numel():
        scaled = scaled.masked_fill(scaled < scaled.topk(top_k).values[-1], float("-inf"))
    probabilities = torch.softmax(scaled, dim=-1)
    if top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        # A token stays while the probability before it is below top_p, so the likeliest one always stays.
        dropped = ordered.cumsum(0) - ordered >= top_p
        probabilities[order[dropped]] = 0
    return int(torch.multinomial(probabilities, 1, generator=generator))


def _tail_length(stop_strings: Sequence[str]) -> int:
    """Tokens that surely hold the longest stop string: a token spells at least one byte, a character up to four."""
    return max(len(stop.encode()) for stop in stop_strings) + 4
