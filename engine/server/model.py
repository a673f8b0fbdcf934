"""The base model and what runs train of it. Knows tensors and module names; nothing of runs, requests or files' places.

An adapter is a set of low-rank pairs (A, B) beside linear layers (LoRA, Hu et al. 2021, arXiv:2106.09685):
y = W x + (alpha / rank) * B A x, A [rank, in] uniform, B [out, rank] zero at the start. The base's weights are never
touched: each wrapped layer looks up the adapter that is active for the request at hand, so training runs and any
number of frozen samplers share one copy of the base. A full run has a copy of all weights instead.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from torch import nn

from engine.errors import ModelError
from engine.server.folder import context_of, eos_of, load_causal_lm
from engine.server.layers import find_layers, wrap
from engine.server.weights import BYTES_A_PARAMETER, Adapter, FullWeights, LoraSpec, Places, Weights
from engine.system import cpu_multiplies_bfloat16, free_memory, pick_device

MAX_RANK = 512
LARGE = 3_000_000  # parameters, from which exact products cost too much where bfloat16's will do


class BaseModel:
    """One causal language model in memory, ready to be adapted. Not thread-safe: the worker owns it."""

    def __init__(self, folder: Path, device: str = "auto", dtype: str = "auto"):
        """Loads safetensors from a local folder. Raises ModelError.

        dtype auto: bfloat16 on CUDA, else float32, with products in bfloat16 in training on CPUs that have them (`can_mix`).
        """
        self.folder = Path(folder)
        self.device = pick_device(device)
        self.dtype = _dtype(dtype, self.device)
        self.model = model = load_causal_lm(self.folder, self.dtype).to(self.device)
        self.vocab_size = int(model.get_input_embeddings().weight.shape[0])
        self.context = context_of(model.config)
        self.architecture = (model.config.architectures or [type(model).__name__])[0]
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.is_large = self.parameters >= LARGE
        self.can_mix = dtype == "auto" and self.device == "cpu" and cpu_multiplies_bfloat16()
        self.in_use: Weights | None = None
        self.eos_tokens = eos_of(self.folder)
        self._active: list[Adapter | None] = [None]
        self._places = Places(model, self.folder, self.dtype)
        self.layers = {layer.name: layer for layer in find_layers(model)}
        if not self.layers:
            raise ModelError("the base model has no linear layers to adapt", "Use another model.", where=str(self.folder))
        wrap(model, list(self.layers.values()), self._active)

    def new_adapter(self, spec: LoraSpec, seed: int | None) -> Adapter:
        """A fresh adapter, the same for the same seed on any device. Raises ModelError."""
        if not 1 <= spec.rank <= MAX_RANK:
            raise ModelError(f"LoRA rank {spec.rank} is out of range", f"Use 1 to {MAX_RANK}.", where="lora_config.rank")
        generator = torch.Generator()
        generator.manual_seed(seed) if seed is not None else generator.seed()
        pairs = {}
        for name in self.target_modules(spec):
            layer = self.layers[name]
            a_shape, b_shape = layer.shapes(spec.rank)
            bound = 1 / math.sqrt(layer.in_features)
            a = torch.empty(a_shape).uniform_(-bound, bound, generator=generator)
            pairs[name] = (nn.Parameter(a.to(self.device)), nn.Parameter(torch.zeros(b_shape).to(self.device)))
        if not pairs:
            raise ModelError("the adapter would have no layers", "Switch on train_mlp, train_attn or train_unembed.", where="lora_config")
        return Adapter(spec, pairs, self.layers)

    def adapter_from_tensors(self, spec: LoraSpec, tensors: dict[str, torch.Tensor], *, trainable: bool) -> Adapter:
        """The adapter whose `named_tensors` these are. Raises ModelError where they don't fit this base."""
        pairs = {}
        for name in self.target_modules(spec):
            layer = self.layers[name]
            a, b = (tensors.get(f"{layer.peft_key}.lora_{side}.weight") for side in "AB")
            if a is None or b is None or (tuple(a.shape), tuple(b.shape)) != layer.shapes(spec.rank):
                raise ModelError(
                    f"the checkpoint doesn't fit the layer {name} of this base model", "Load it on the model it was trained on."
                )
            pairs[name] = tuple(nn.Parameter(t.to(self.device, torch.float32), requires_grad=trainable) for t in (a, b))
        return Adapter(spec, pairs, self.layers)

    def new_full(self) -> FullWeights:
        """A float32 copy of the base's weights, to train. Raises ModelError where the memory wouldn't suffice."""
        return self._full(self._places.weights(), trainable=True)

    def full_from_folder(self, folder: Path, *, trainable: bool) -> FullWeights:
        """What `FullWeights.write` left there. Raises ModelError where it doesn't fit this base."""
        return self._full(Places(load_causal_lm(folder, torch.float32), folder, torch.float32).weights(), trainable=trainable)

    @contextmanager
    def using(self, weights: Weights | None) -> Iterator[nn.Module]:
        """The model computing with these; None is the bare base."""
        before, in_use_before = self._active[0], self.in_use
        self._active[0], self.in_use = weights if isinstance(weights, Adapter) else None, weights
        try:
            with self._places.holding(weights.tensors) if isinstance(weights, FullWeights) else nullcontext():
                yield self.model
        finally:
            self._active[0], self.in_use = before, in_use_before

    def target_modules(self, spec: LoraSpec) -> list[str]:
        """Names of the layers that an adapter of this spec holds, in order."""
        return [name for name, layer in self.layers.items() if spec.covers(layer.kind)]

    def _full(self, source: dict[str, nn.Parameter], *, trainable: bool) -> FullWeights:
        own = self._places.weights()
        if {name: p.shape for name, p in source.items()} != {name: p.shape for name, p in own.items()}:
            raise ModelError("the checkpoint doesn't fit this base model", "Load it on the model it was trained on.")
        if not all(p.is_floating_point() for p in own.values()):
            raise ModelError("a quantized model can't be fully fine-tuned", "Train an adapter (LoRA), or use the unquantized model.")
        dtype = torch.float32 if trainable else self.dtype
        needed, free = self.parameters * (BYTES_A_PARAMETER if trainable else dtype.itemsize), free_memory(self.device)
        if needed > free:
            what = "Full fine-tuning" if trainable else "A fully fine-tuned copy"
            advice = "Train an adapter (LoRA), which needs a small part of that; or a smaller model, or a machine with more memory."
            raise ModelError(
                f"{what} of {self.parameters:,} parameters takes {needed / 2**30:,.1f} GiB beside the base model, "
                f"and {free / 2**30:,.1f} GiB are free on the {self.device}",
                advice,
            )
        # Always a copy: a weight that shared its memory with the base would change the base as it learns.
        tensors = {name: nn.Parameter(p.detach().to(self.device, dtype, copy=True), requires_grad=trainable) for name, p in source.items()}
        return FullWeights(tensors, self._places)


def _dtype(wanted: str, device: str) -> torch.dtype:
    if wanted == "auto":
        return torch.bfloat16 if device == "cuda" else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if wanted not in known:
        raise ModelError(f"dtype {wanted!r} isn't known", f"Use one of {', '.join(known)} or auto.", where="--dtype")
    return known[wanted]
