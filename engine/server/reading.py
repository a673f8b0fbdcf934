"""Log-probabilities of what is already written, for many requests at once: short prompts that are read one by one cost mostly overhead.

Prompts of like length stand in one batch, padded at their ends, which what comes before never looks at. Who wants only one token
besides gets it from the same pass. Knows the plain sampler; nothing of lanes and caches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from engine.server.memory import BYTES_A_LOGIT, check_logits
from engine.server.sampler import Sampler
from engine.server.weights import Weights

if TYPE_CHECKING:
    from engine.server.decode import Request

AT_ONCE = 64  # requests
ROOM = 2**28  # bytes of logits in one batch


@dataclass(frozen=True)
class Read:
    """Each token's log-probability (the first NaN), and the logits of what comes next [V]."""

    logprobs: list[float]
    after: torch.Tensor


def together(waiting: deque[Request]) -> list[Request]:
    """Takes what comes next: one request, or several that want their prompts read."""
    found = [waiting.popleft()]
    while found[0].job.prompt_logprobs and waiting and waiting[0].job.prompt_logprobs and len(found) < AT_ONCE:
        found.append(waiting.popleft())
    return found


@torch.no_grad()
def read_prompts(plain: Sampler, adapter: Weights | None, requests: Sequence[Request]) -> dict[Request, Read | Exception]:
    """What those get that want it; an error is of one request alone."""
    wanted = [request for request in requests if request.job.prompt_logprobs and not request.abandoned()]
    found: dict[Request, Read | Exception] = {}
    with plain.base.using(adapter):
        for batch in _batches(wanted, plain.base.vocab_size):
            try:
                found.update(zip(batch, _read(plain, [request.job.prompt for request in batch]), strict=True))
            except Exception as error:
                if len(batch) == 1:
                    found[batch[0]] = error
                    continue
                for request in batch:
                    try:
                        found[request] = _read(plain, [request.job.prompt])[0]
                    except Exception as own:
                        found[request] = own
    return found


def finish(plain: Sampler, request: Request, read: Read | Exception | None) -> None:
    """Gives the request its prompt's log-probabilities, if it wanted them; and each row its token, where one is all that it may have.
    Raises what went wrong."""
    if isinstance(read, Exception):
        raise read
    if read is None:
        return
    request.prompt_logprobs = read.logprobs
    if all(row.limit <= 1 for row in request.rows):
        logits = read.after.cpu()
        for row in request.rows:
            if row.limit == 1:
                plain.draw(row, logits)
                plain.finished(row)
                row.limit = 0


def _read(plain: Sampler, prompts: Sequence[list[int]]) -> list[Read]:
    base = plain.base
    width = max(map(len, prompts))
    check_logits(len(prompts) * width, base.vocab_size, base.device)
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = torch.tensor(prompt)
    ids = ids.to(base.device)
    logits = base.model(input_ids=ids, use_cache=False).logits
    found = []
    for row, prompt in enumerate(prompts):
        own = logits[row, : len(prompt)].float()
        logs = torch.log_softmax(own[:-1], dim=-1).gather(-1, ids[row, 1 : len(prompt), None])[:, 0]
        found.append(Read([float("nan"), *logs.tolist()], own[-1]))
    return found


def _batches(requests: Sequence[Request], vocabulary: int) -> Iterator[list[Request]]:
    """Shortest first, as many as their padded logits have room for."""
    batch: list[Request] = []
    for request in sorted(requests, key=lambda request: len(request.job.prompt)):
        if batch and (len(batch) + 1) * len(request.job.prompt) * vocabulary * BYTES_A_LOGIT > ROOM:
            yield batch
            batch = []
        batch.append(request)
    if batch:
        yield batch
