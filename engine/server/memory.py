"""The memory there is, what running out of it looks like, and how much training may take at once. Knows nothing of models.

The same errors come in many words, one set for each allocator. After one, training goes on with less at once: `Room`
remembers how much, and tries for more after a while, for what took the memory may be gone.
"""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from engine import platforms
from engine.errors import EngineError, ModelError
from engine.system import free_memory

log = logging.getLogger("thinker.server")

SHARE = 0.6  # of the free memory, for what a forward pass keeps; gradients and scratch space take the rest
PATIENCE = 100  # requests that go well before more is tried again
BYTES_A_LOGIT = 12  # the logit, as float32, and its logarithm of a share
SMALL = 64 * 2**20  # bytes that needn't be asked for
LIMITED_BELOW = 8_192  # tokens; from here on nobody notices a limit
_WORDS = ("out of memory", "allocate memory", "not enough memory", "bad_alloc", "bad allocation", "alloc_failed")

T = TypeVar("T")


def ran_out(error: BaseException) -> bool:
    """Whether it says that there was no memory left."""
    if isinstance(error, EngineError):
        return False
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in str(error).lower() for word in _WORDS)


def out_of_memory(doing: str, advice: str = "Use smaller batches or shorter examples.") -> EngineError:
    """What a request hears that doesn't fit."""
    return EngineError(f"the memory of this machine didn't suffice for {doing}", advice)


def check_room(needed: float, what: str, advice: str, device: str) -> None:
    """Raises ModelError before an allocation that could end the whole process: an overcommitting kernel refuses none."""
    free = free_memory(device)
    if needed > free:
        text = f"{what} takes {needed / 2**30:,.1f} GiB beside the base model, and {free / 2**30:,.1f} GiB are free on the {device}"
        raise ModelError(text, advice)


def check_logits(places: int, vocabulary: int, device: str) -> None:
    """Raises EngineError where the likelihoods of a whole vocabulary at so many places at once don't fit."""
    needed = places * vocabulary * BYTES_A_LOGIT
    if needed > SMALL and needed > free_memory(device):
        raise out_of_memory(f"the log-probabilities of {places:,} tokens over the whole vocabulary", "Send a shorter text.")


def let_go(device: str) -> None:
    """Gives back what nothing uses any more, as after a failed attempt, or when there is nothing to do."""
    gc.collect()
    platforms.give_back_memory()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()


@dataclass(frozen=True)
class Needs:
    """Bytes of a forward pass that training keeps: `fixed`, and for each token with all layers' states or `recomputed` ones."""

    fixed: float = 0.0
    a_token: float = 0.0
    recomputed: float = 0.0


@dataclass
class Plan:
    """One attempt at a request: up to `tokens` at once. A row with more goes alone, and its layers are recomputed."""

    tokens: float
    trains: bool
    rows_now: int = 0
    tokens_now: int = 0
    largest: int = 0
    recomputed_rows: int = 0

    @property
    def recomputing(self) -> bool:
        """Whether the micro-batch under way is."""
        return self.trains and self.tokens_now > self.tokens

    def limit(self, usual: int) -> int:
        """Tokens of a micro-batch that usually holds so many."""
        return max(1, int(min(self.tokens, usual)))

    def begin(self, rows: int, tokens: int) -> bool:
        """Notes a micro-batch. -> whether it has to be recomputed."""
        self.rows_now, self.tokens_now, self.largest = rows, tokens, max(self.largest, tokens)
        self.recomputed_rows += rows * self.recomputing
        return self.recomputing

    def metrics(self) -> dict[str, float]:
        """What memory asked for; nothing where it asked for nothing."""
        if self.tokens >= LIMITED_BELOW:
            return {}
        return {"tokens_at_once:max": float(self.largest), "recomputed_rows:sum": float(self.recomputed_rows)}


class Room:
    """How much all runs of one server may put through the model at once."""

    def __init__(self, device: str):
        self.tokens = math.inf  # since the memory ran out
        self.shortages = 0
        self._device = device
        self._went_well = 0
        self._told = math.inf

    def fit(self, work: Callable[[Plan], T], *, longest: int, needs: Needs | None) -> T:
        """`work`, again and again with less at once until it fits. It starts from the beginning each time.

        `longest`: tokens of its longest row; `needs` is None where no gradients are wanted. Raises EngineError for a row that
        doesn't fit.
        """
        while True:
            plan = Plan(min(self.tokens, self._affordable(longest, needs) if needs else math.inf), needs is not None)
            try:
                found = work(plan)
            except Exception as error:
                if not ran_out(error):
                    raise
            else:
                self._well()
                return found
            # Only here, without the error, nothing holds on to the attempt's tensors any more.
            let_go(self._device)
            if plan.rows_now <= 1 and (plan.recomputing or not plan.trains):
                raise _too_long(plan.tokens_now)
            self._less(plan)

    def _affordable(self, longest: int, needs: Needs) -> float:
        free = free_memory(self._device)
        tokens = max(0.0, (SHARE * free - needs.fixed) / max(needs.a_token, 1))
        if longest > tokens and needs.fixed + longest * needs.recomputed > free:
            raise _too_long(longest)
        if tokens < min(self._told / 2, LIMITED_BELOW):
            self._told = tokens
            log.info("%.1f GiB are free: training takes %d tokens at once", free / 2**30, max(1, int(tokens)))
        return max(1.0, tokens)

    def _less(self, plan: Plan) -> None:
        now = plan.tokens_now
        self.tokens = max(1, now // 2 if plan.rows_now > 1 else now * 3 // 4)
        self.shortages += 1
        self._went_well = 0
        what = "longer rows are recomputed layer by layer (gradient checkpointing)" if plan.trains else "longer rows go alone"
        log.warning("the memory ran out at %d tokens: again with %d at once, %s", now, self.tokens, what)

    def _well(self) -> None:
        self._went_well += 1
        if self.tokens < math.inf and self._went_well >= PATIENCE:
            self._went_well = 0
            self.tokens = 2 * self.tokens if 2 * self.tokens < LIMITED_BELOW else math.inf
            log.info("training tries %s tokens at once again", self.tokens if self.tokens < math.inf else "as many as usual")


def _too_long(tokens: int) -> EngineError:
    return out_of_memory(f"an example of {tokens:,} tokens", "Shorten it, train fewer weights (a lower rank), or use a smaller model.")
