"""The base model and the adapters on it. Knows tensors and module names; nothing of runs, requests or files' places.

An adapter is a set of low-rank pairs (A, B) beside linear layers (LoRA, Hu et al. 2021, arXiv:2106.09685):
y = W x + (alpha / rank) * B A x, A [rank, in] uniform, B [out, rank] zero at the start. The base's weights are never
touched: each wrapped layer looks up the adapter that is active for the request at hand, so training runs and any
number of frozen samplers share one copy of the base. The pairs are saved in PEFT's layout, so PEFT reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from engine.errors import ModelError
from engine.system import pick_device

LORA_ALPHA = 32
MAX_RANK = 512
NARROW_COST = 3  # how much slower a product over few columns runs, a multiplication, than one over many (measured on CPUs)
_ATTENTION_WORDS = ("attn", "attention")
_ROUTER_NAMES = ("gate", "router")


@dataclass(frozen=True)
class LoraSpec:
    """What an adapter consists of."""

    rank: int
    train_mlp: bool = True
    train_attn: bool = True
    train_unembed: bool = True

    def covers(self, kind: str) -> bool:
        """Whether layers of that kind (attn, mlp, unembed) are adapted."""
        return {"attn": self.train_attn, "mlp": self.train_mlp, "unembed": self.train_unembed}[kind]


class Adapter:
    """Low-rank pairs by layer name. float32 whatever the base is, trained in place or frozen."""

    def __init__(self, spec: LoraSpec, pairs: dict[str, tuple[nn.Parameter, nn.Parameter]]):
        self.spec = spec
        self.pairs = pairs
        self.scale = LORA_ALPHA / spec.rank

    def parameters(self) -> list[nn.Parameter]:
        """A, B, A, B ... in the layers' order."""
        return [parameter for pair in self.pairs.values() for parameter in pair]

    def named_tensors(self) -> dict[str, torch.Tensor]:
        """PEFT's names (`base_model.model.LAYER.lora_A.weight`) to detached CPU copies."""
        named = {}
        for layer, (a, b) in self.pairs.items():
            named[f"base_model.model.{layer}.lora_A.weight"] = a.detach().cpu().clone()
            named[f"base_model.model.{layer}.lora_B.weight"] = b.detach().cpu().clone()
        return named

    def frozen_copy(self) -> Adapter:
        """A snapshot that later training steps don't reach."""
        pairs = {
            layer: (nn.Parameter(a.detach().clone(), requires_grad=False), nn.Parameter(b.detach().clone(), requires_grad=False))
            for layer, (a, b) in self.pairs.items()
        }
        return Adapter(self.spec, pairs)


class _AdaptedLinear(nn.Module):
    """A frozen linear layer plus the pair of whichever adapter is active."""

    def __init__(self, base: nn.Linear, name: str, active: list[Adapter | None]):
        super().__init__()
        self.base = base
        self._name = name
        self._active = active

    @property
    def weight(self) -> torch.Tensor:
        return self.base.weight

    @property
    def bias(self) -> torch.Tensor | None:
        return self.base.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        adapter = self._active[0]
        pair = adapter.pairs.get(self._name) if adapter else None
        if pair is None:
            return self.base(x)
        a, b = pair
        weight = self.base.weight
        if weight.dtype == a.dtype and _merging_pays(x.numel() // x.shape[-1], weight.shape, a.shape[0]):
            return F.linear(x, torch.addmm(weight, b, a, alpha=adapter.scale), self.base.bias)
        y = self.base(x)
        return y + (F.linear(F.linear(x.to(a.dtype), a), b) * adapter.scale).to(y.dtype)


class BaseModel:
    """One causal language model in memory, ready to be adapted. Not thread-safe: the worker owns it."""

    def __init__(self, folder: Path, device: str = "auto", dtype: str = "auto"):
        """Loads safetensors from a local folder. dtype auto: bfloat16 on CUDA, else float32. Raises ModelError."""
        from transformers import AutoModelForCausalLM

        self.folder = Path(folder)
        self.device = pick_device(device)
        self.dtype = _dtype(dtype, self.device)
        try:
            model = AutoModelForCausalLM.from_pretrained(
                self.folder,
                dtype=self.dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(
                f"the base model can't be loaded: {str(error).splitlines()[0]}",
                "Give a folder with config.json and *.safetensors of a causal language model.",
                where=str(self.folder),
            ) from error
        model.eval().requires_grad_(False).to(self.device)
        self.model = model
        self.vocab_size = int(model.get_input_embeddings().weight.shape[0])
        self.context = int(getattr(model.config, "max_position_embeddings", 0) or 2**31 - 1)
        self.architecture = (model.config.architectures or [type(model).__name__])[0]
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        eos = model.generation_config.eos_token_id if model.generation_config else model.config.eos_token_id
        self.eos_tokens: tuple[int, ...] = tuple(eos) if isinstance(eos, (list, tuple)) else (() if eos is None else (int(eos),))
        self._active: list[Adapter | None] = [None]
        self.layers = self._wrap_linear_layers()

    def new_adapter(self, spec: LoraSpec, seed: int | None) -> Adapter:
        """A fresh adapter, the same for the same seed on any device. Raises ModelError."""
        if not 1 <= spec.rank <= MAX_RANK:
            raise ModelError(f"LoRA rank {spec.rank} is out of range", f"Use 1 to {MAX_RANK}.", where="lora_config.rank")
        generator = torch.Generator()
        generator.manual_seed(seed) if seed is not None else generator.seed()
        pairs = {}
        for name, (kind, layer) in self.layers.items():
            if not spec.covers(kind):
                continue
            bound = 1 / math.sqrt(layer.in_features)
            a = torch.empty(spec.rank, layer.in_features).uniform_(-bound, bound, generator=generator)
            b = torch.zeros(layer.out_features, spec.rank)
            pairs[name] = (nn.Parameter(a.to(self.device)), nn.Parameter(b.to(self.device)))
        if not pairs:
            raise ModelError("the adapter would have no layers", "Switch on train_mlp, train_attn or train_unembed.", where="lora_config")
        return Adapter(spec, pairs)

    def adapter_from_tensors(self, spec: LoraSpec, tensors: dict[str, torch.Tensor], *, trainable: bool) -> Adapter:
        """The adapter whose `named_tensors` these are. Raises ModelError where they don't fit this base."""
        pairs = {}
        for name, (kind, layer) in self.layers.items():
            if not spec.covers(kind):
                continue
            a = tensors.get(f"base_model.model.{name}.lora_A.weight")
            b = tensors.get(f"base_model.model.{name}.lora_B.weight")
            if a is None or b is None or a.shape != (spec.rank, layer.in_features) or b.shape != (layer.out_features, spec.rank):
                raise ModelError(
                    f"the checkpoint doesn't fit the layer {name} of this base model", "Load it on the model it was trained on."
                )
            pairs[name] = tuple(nn.Parameter(t.to(self.device, torch.float32), requires_grad=trainable) for t in (a, b))
        return Adapter(spec, pairs)

    @contextmanager
    def using(self, adapter: Adapter | None) -> Iterator[nn.Module]:
        """The model with that adapter active; None is the bare base."""
        before = self._active[0]
        self._active[0] = adapter
        try:
            yield self.model
        finally:
            self._active[0] = before

    def target_modules(self, spec: LoraSpec) -> list[str]:
        """Names of the layers that an adapter of this spec holds, as PEFT's config lists them."""
        return [name for name, (kind, _) in self.layers.items() if spec.covers(kind)]

    def _wrap_linear_layers(self) -> dict[str, tuple[str, nn.Linear]]:
        """Puts every linear layer behind an adapter's look-up. -> name: (attn | mlp | unembed, layer)."""
        head = self.model.get_output_embeddings()
        found = {}
        for name, module in list(self.model.named_modules()):
            if not isinstance(module, nn.Linear):
                continue
            last = name.rpartition(".")[2]
            if module is head:
                kind = "unembed"
            elif any(word in name.lower() for word in _ATTENTION_WORDS):
                kind = "attn"
            elif last in _ROUTER_NAMES:
                continue
            else:
                kind = "mlp"
            found[name] = (kind, module)
        if not found:
            raise ModelError("the base model has no linear layers to adapt", "Use another model.", where=str(self.folder))
        for name, (_, layer) in found.items():
            parent_name, _, last = name.rpartition(".")
            setattr(self.model.get_submodule(parent_name), last, _AdaptedLinear(layer, name, self._active))
        return found


def _dtype(wanted: str, device: str) -> torch.dtype:
    if wanted == "auto":
        return torch.bfloat16 if device == "cuda" else torch.float32
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if wanted not in known:
        raise ModelError(f"dtype {wanted!r} isn't known", f"Use one of {', '.join(known)} or auto.", where="--dtype")
    return known[wanted]


def _merging_pays(tokens: int, shape: torch.Size, rank: int) -> bool:
    """Whether W + BA, made anew for this call, costs less than A and B beside W (multiplications, backward ones included)."""
    out_features, in_features = shape
    passes = 3 if torch.is_grad_enabled() else 1
    apart = passes * tokens * rank * (in_features + out_features) * NARROW_COST
    merged = passes * in_features * out_features * rank + (tokens * in_features * out_features if passes > 1 else 0)
    return merged < apart
