"""Gradients and updates for one run's weights. Knows nothing of requests or order, nor how log-probabilities are come by.

Losses are sums over tokens, so a batch may be cut into micro-batches, and several calls may add to the gradient
before an update, without any change of meaning.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from engine.errors import DataError, EngineError, ModelError
from engine.server.losses import OF_WHOLE_SEQUENCES, get_loss
from engine.server.model import BaseModel
from engine.server.packing import Packed
from engine.server.padding import padded_batches, padded_logprobs
from engine.server.weights import Weights
from engine.server.wire import Datum


@dataclass(frozen=True)
class AdamParams:
    """One update's hyperparameters, named as in the Tinker API; AdamW as in torch.optim.AdamW."""

    learning_rate: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-12
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0

    def checked(self) -> AdamParams:
        """Itself. Raises DataError for values that AdamW can't take."""
        numbers = vars(self).values()
        if not all(np.isfinite(value) for value in numbers):
            raise DataError("the optimizer's parameters have to be finite", "Correct adam_params.", where="adam_params")
        sound = self.learning_rate >= 0 and 0 <= self.beta1 < 1 and 0 <= self.beta2 < 1 and self.eps >= 0 and self.weight_decay >= 0
        if not sound or self.grad_clip_norm < 0:
            raise DataError("the optimizer's parameters are out of range", "Betas in [0, 1), the rest not negative.", where="adam_params")
        return self


def check_data(data: list[Datum], loss_fn: str, loss_config: dict, base: BaseModel) -> None:
    """Everything that can be known to be wrong before the model is asked. Raises DataError or ModelError."""
    _, names = get_loss(loss_fn, loss_config)
    if not data:
        raise DataError("the batch is empty", "Send at least one datum.")
    for index, datum in enumerate(data):
        where = f"datum {index}"
        length = len(datum.tokens)
        if length == 0:
            raise DataError("the datum has no tokens", "Leave it out.", where=where)
        if length > base.context:
            raise DataError(f"{length:,} tokens are more than the model's context of {base.context:,}", "Cut it shorter.", where=where)
        _check_ids(datum.tokens, base.vocab_size, f"{where}, tokens")
        for name in names:
            if name not in datum.inputs:
                raise DataError(f"{loss_fn} needs the input {name!r}", f"It takes {', '.join(names)}.", where=where)
        for name, array in datum.inputs.items():
            if name not in names:
                raise DataError(f"{loss_fn} knows no input {name!r}", f"It takes {', '.join(names)}.", where=where)
            if array.shape != datum.inputs["target_tokens"].shape or array.shape[:1] != (length,) or array.ndim > 2:
                raise DataError(f"{name} has the shape {list(array.shape)} for {length} tokens", "One value a token.", where=where)
            if array.ndim == 2 and loss_fn != "cross_entropy":
                raise DataError(f"{loss_fn} takes one target a token", "Send 1-D inputs.", where=where)
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise DataError(f"{name} holds NaN or infinity", "Correct the values.", where=where)
        _check_ids(datum.inputs["target_tokens"], base.vocab_size, f"{where}, target_tokens")


class Trainer:
    """Trains an adapter or a whole copy. Gradients add up from call to call until `optim_step`."""

    def __init__(self, base: BaseModel, weights: Weights, packed: Packed | None = None):
        """`packed` is the fast way; without it every batch is padded, which is the reference."""
        self.base = base
        self.weights = weights
        self.packed = packed
        self.optimizer = torch.optim.AdamW(weights.parameters(), lr=0.0, betas=(0.9, 0.95), eps=1e-12, weight_decay=0.0)
        self.steps = 0

    def forward_backward(
        self, data: list[Datum], loss_fn: str, loss_config: dict, *, forward_only: bool
    ) -> tuple[list[dict[str, np.ndarray]], dict[str, float]]:
        """-> per datum {"logprobs": float32, shaped as target_tokens}, and {"loss:sum": ...}.

        Adds to the gradients, or when it raises leaves them as they were: a client has sent its optim_step by then, which must
        not act on half a batch.
        """
        gradients = [None if p.grad is None else p.grad.clone() for p in self.weights.parameters()]
        try:
            return self._forward_backward(data, loss_fn, loss_config, forward_only)
        except BaseException:
            for parameter, gradient in zip(self.weights.parameters(), gradients, strict=True):
                parameter.grad = gradient
            raise

    def _forward_backward(
        self, data: list[Datum], loss_fn: str, loss_config: dict, forward_only: bool
    ) -> tuple[list[dict[str, np.ndarray]], dict[str, float]]:
        outputs: list[dict[str, np.ndarray]] = [{} for _ in data]
        total = 0.0
        # One target a token can be packed; several (distributions to imitate) take the plain way.
        packed = self.packed if all(row.inputs["target_tokens"].ndim == 1 for row in data) else None
        batches = packed.batches(data) if packed else padded_batches(data, self.base.vocab_size)
        with self.base.using(self.weights), torch.set_grad_enabled(not forward_only):
            for batch in batches:
                rows = [data[i] for i in batch]
                if packed:
                    mixed = packed.mixes(loss_fn, forward_only=forward_only)
                    flat, order = packed.flat_logprobs(rows, [_looked_at(row) for row in rows], mixed=mixed)
                    batch = [batch[i] for i in order]
                else:
                    flat = torch.cat(padded_logprobs(self.base, rows))
                batch_loss = _loss(flat, [data[i] for i in batch], loss_fn, loss_config)
                if not torch.isfinite(batch_loss):
                    raise ModelError(
                        "the loss isn't finite", "The weights have diverged: go back to a checkpoint and lower the learning rate."
                    )
                if batch_loss.requires_grad:
                    batch_loss.backward()
                total += float(batch_loss.detach())
                for i, logprobs in zip(batch, flat.detach().cpu().split([len(data[i].tokens) for i in batch]), strict=True):
                    outputs[i] = {"logprobs": logprobs.numpy()}
        return outputs, {"loss:sum": total}

    def optim_step(self, params: AdamParams) -> dict[str, float]:
        """One AdamW update from the gathered gradients, which are cleared. -> {"grad_norm:mean": before clipping}."""
        trained = [p for p in self.weights.parameters() if p.grad is not None]
        if not trained:
            raise EngineError("there are no gradients to step on", "Call forward_backward before optim_step.")
        limit = params.grad_clip_norm or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(trained, limit))
        if not np.isfinite(norm):
            self.drop_gradients()
            raise ModelError(
                "the gradient isn't finite; the weights were left as they were", "Lower the learning rate or clip the gradient."
            )
        for group in self.optimizer.param_groups:
            group.update(lr=params.learning_rate, betas=(params.beta1, params.beta2), eps=params.eps, weight_decay=params.weight_decay)
        self.optimizer.step()
        self.drop_gradients()
        self.steps += 1
        return {"grad_norm:mean": norm}

    def drop_gradients(self) -> None:
        """Forget what was gathered."""
        self.optimizer.zero_grad(set_to_none=True)

    def optimizer_tensors(self) -> dict[str, torch.Tensor]:
        """AdamW's state by position, on the CPU: `N.exp_avg`, `N.exp_avg_sq`, `N.step`."""
        state = self.optimizer.state_dict()["state"]
        return {f"{i}.{name}": value.detach().cpu().clone() for i, slots in state.items() for name, value in slots.items()}

    def load_optimizer_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        """The state that `optimizer_tensors` gave. Raises ModelError where it doesn't fit."""
        state: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            position, _, name = key.partition(".")
            state.setdefault(int(position), {})[name] = value
        own = self.weights.parameters()
        if state and (max(state) >= len(own) or any(own[i].shape != slots["exp_avg"].shape for i, slots in state.items())):
            raise ModelError("the optimizer's state doesn't fit the weights", "Load the weights without the optimizer.")
        current = self.optimizer.state_dict()
        self.optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})


def _looked_at(row: Datum) -> np.ndarray:
    """[T], true where the loss depends on the token's probability."""
    weights = row.inputs.get("weights", row.inputs.get("advantages"))
    return np.ones(len(row.tokens), bool) if weights is None else weights != 0


def _loss(logprobs: torch.Tensor, rows: list[Datum], loss_fn: str, loss_config: dict) -> torch.Tensor:
    """Summed over the rows, whose log-probabilities [N] or [N, K] stand one after the other."""
    loss, names = get_loss(loss_fn, loss_config)

    def inputs(of: list[Datum]) -> dict[str, torch.Tensor]:
        arrays = {name: np.concatenate([row.inputs[name] for row in of]) for name in names}
        return {name: torch.as_tensor(array, device=logprobs.device) for name, array in arrays.items()}

    if loss_fn not in OF_WHOLE_SEQUENCES:
        return loss(logprobs, inputs(rows), loss_config)
    parts = logprobs.split([len(row.tokens) for row in rows])
    return torch.stack([loss(part, inputs([row]), loss_config) for part, row in zip(parts, rows, strict=True)]).sum()


def _check_ids(ids: np.ndarray, vocab_size: int, where: str) -> None:
    if ids.dtype.kind != "i":
        raise DataError("token ids have to be integers", "Send int64.", where=where)
    if ids.size and (ids.min() < 0 or ids.max() >= vocab_size):
        raise DataError(
            f"a token id lies outside the vocabulary of {vocab_size:,}", "Tokenize with the base model's own tokenizer.", where=where
        )
