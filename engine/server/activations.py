"""What a forward pass keeps for the backward pass: how much that is, and how to keep less of it.

Layers that are recomputed keep only what went into them and run once more on the way back (gradient checkpointing, Chen et
al. 2016, arXiv:1604.06174): a third more work for a fraction of the memory. Knows nothing of memory's limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from engine.server.memory import Needs
from engine.server.model import BaseModel
from engine.server.padding import padded_logprobs
from engine.server.weights import Weights
from engine.server.wire import Datum

Resume = Callable[[], AbstractContextManager]  # -> what holds while a layer runs, to hold again when it is recomputed

_on = [False]


@contextmanager
def recomputing(model: nn.Module, resume: Resume = nullcontext) -> Iterator[None]:
    """For this time the model's layers are recomputed; the backward pass may come later."""
    layers = _outermost(model)
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward, resume)
    _on[0] = True
    try:
        yield
    finally:
        _on[0] = False
        for layer in layers:
            del layer.forward


def maybe_recomputed(work: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    """Beyond the layers: kept as it comes, or recomputed while layers are."""
    return _recomputed(work, nullcontext, *inputs) if _on[0] and torch.is_grad_enabled() else work(*inputs)


def measure(base: BaseModel, weights: Weights) -> Needs:
    """By the plain way on two short rows; what the fast ways keep is no more."""
    short, long = (min(n, base.context) for n in (16, 48))
    known = {p.untyped_storage().data_ptr() for p in (*base.model.parameters(), *base.model.buffers(), *weights.parameters())}
    few, many = _kept(base, weights, short, known), _kept(base, weights, long, known)
    a_token = (many - few) / max(1, long - short)
    layers = max(1, len(_outermost(base.model)))
    between = layers * base.model.get_input_embeddings().weight.shape[1] * base.dtype.itemsize
    return Needs(max(0.0, few - short * a_token), a_token, between + a_token / layers)


def _kept(base: BaseModel, weights: Weights, length: int, known: set[int]) -> int:
    """Bytes kept of a row of so many tokens, beyond the weights themselves."""
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            # Detached, and in no hands but ours: an operation that got its own result back to keep would hold itself, and the weights
            # with it, for good.
            kept[storage.data_ptr()] = tensor.detach()

    tokens = np.arange(length) % base.vocab_size
    with base.using(weights), torch.enable_grad(), saved_tensors_hooks(keep, lambda nothing: nothing):
        padded_logprobs(base, [Datum(tokens, {"target_tokens": tokens})])
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _recomputed(forward: Callable[..., Any], resume: Resume, *inputs: Any, **options: Any) -> Any:
    held = resume()
    # In evaluation mode nothing is drawn at random, so there is no generator's state to restore.
    run = partial(forward, **options)
    return checkpoint(run, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), held))


def _outermost(model: nn.Module) -> list[nn.Module]:
    """The decoder's layers, as transformers marks them."""
    found: list[nn.Module] = []
    within: set[int] = set()
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer) and id(module) not in within:
            found.append(module)
            within.update(id(inner) for inner in module.modules())
    return found
