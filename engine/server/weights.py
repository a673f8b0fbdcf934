"""What a run trains, in two forms behind one interface: an adapter's low-rank pairs, or all weights of the model.

Knows tensors and the files of one folder; nothing of runs or requests. The base's weights are never touched: pairs work
beside them, and whole copies stand in their place only while a request of their run is at work (`Places.holding`).
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

import torch
from safetensors.torch import save_file
from torch import nn

from engine.server.layers import Layer, Pair
from engine.server.memory import check_room

LORA_ALPHA = 32
BYTES_A_PARAMETER = 16  # of a full run: weight, gradient and AdamW's two moments in float32
_SNAPSHOT_ADVICE = "Save a named checkpoint, and sample from it once the run has ended; or train an adapter (LoRA)."
_BESIDE_WEIGHTS = ("generation_config.json", "tokenizer*", "chat_template*", "special_tokens_map.json", "added_tokens.json")
_BESIDE_WEIGHTS += ("vocab.*", "merges.txt", "LICENSE*")


@dataclass(frozen=True)
class LoraSpec:
    """What an adapter consists of."""

    rank: int
    train_mlp: bool = True
    train_attn: bool = True
    train_unembed: bool = True
    is_lora: ClassVar[bool] = True

    def covers(self, kind: str) -> bool:
        """Whether layers of that kind (attn, mlp, unembed) are adapted."""
        return {"attn": self.train_attn, "mlp": self.train_mlp, "unembed": self.train_unembed}[kind]


@dataclass(frozen=True)
class FullSpec:
    """Every weight is trained: nothing to choose, and no rank."""

    is_lora: ClassVar[bool] = False
    rank: ClassVar[int] = 0
    train_mlp: ClassVar[bool] = True
    train_attn: ClassVar[bool] = True
    train_unembed: ClassVar[bool] = True


class Weights(Protocol):
    """What trainers, samplers and checkpoints ask of either form; BaseModel.using makes the model compute with it."""

    spec: LoraSpec | FullSpec
    pairs: Mapping[str, Pair]  # what to add beside layers, by name; nothing for whole copies
    scale: float

    def parameters(self) -> list[nn.Parameter]:
        """In an order that is the same in every life of the server: optimizers' states are kept by position."""

    def frozen_copy(self) -> Weights:
        """A snapshot that later training steps don't reach."""

    def write(self, folder: Path, *, to_train: bool) -> None:
        """Into an existing folder, for training on or for sampling. Raises OSError."""


class Adapter:
    """Low-rank pairs by layer name. float32 whatever the base is, trained in place or frozen."""

    def __init__(self, spec: LoraSpec, pairs: dict[str, Pair], layers: Mapping[str, Layer]):
        """`layers` are the base's, by name: those that the pairs are for, and maybe more."""
        self.spec = spec
        self.pairs = pairs
        self.layers = layers
        self.scale = LORA_ALPHA / spec.rank

    def parameters(self) -> list[nn.Parameter]:
        """A, B, A, B ... in the layers' order."""
        return [parameter for pair in self.pairs.values() for parameter in pair]

    def named_tensors(self) -> dict[str, torch.Tensor]:
        """PEFT's names (`base_model.model.LAYER.lora_A.weight`) to detached CPU copies."""
        named = {}
        for name, (a, b) in self.pairs.items():
            key = self.layers[name].peft_key
            named[f"{key}.lora_A.weight"] = a.detach().cpu().clone()
            named[f"{key}.lora_B.weight"] = b.detach().cpu().clone()
        return named

    def frozen_copy(self) -> Adapter:
        pairs = {
            layer: (nn.Parameter(a.detach().clone(), requires_grad=False), nn.Parameter(b.detach().clone(), requires_grad=False))
            for layer, (a, b) in self.pairs.items()
        }
        return Adapter(self.spec, pairs, self.layers)

    def write(self, folder: Path, *, to_train: bool = False) -> None:
        """A PEFT adapter: adapter_model.safetensors, adapter_config.json. The same for both purposes."""
        save_file(self.named_tensors(), folder / "adapter_model.safetensors", metadata={"format": "pt"})
        text = json.dumps(self.peft_config(), indent=1, ensure_ascii=False)
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")

    def peft_config(self) -> dict[str, Any]:
        """adapter_config.json but for the base model's name."""
        adapted = [self.layers[name] for name in self.pairs]
        mixture = any(layer.is_expert for layer in self.layers.values())
        # In mixtures PEFT takes a linear layer called gate_proj, up_proj or down_proj for experts of older transformers,
        # and rewrites the config wrongly; a target given as a parameter is left alone, and means the same.
        by_parameter = [layer for layer in adapted if layer.is_expert or (mixture and layer.kind == "mlp")]
        by_module = [layer for layer in adapted if layer not in by_parameter]
        config = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": self.spec.rank,
            "lora_alpha": LORA_ALPHA,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": any(layer.transposed and not layer.is_expert for layer in adapted),
            "target_modules": [layer.name for layer in by_module],
            "inference_mode": True,
        }
        if by_parameter:
            config["target_parameters"] = [layer.name if layer.is_expert else f"{layer.name}.weight" for layer in by_parameter]
        return config


class FullWeights:
    """A copy of every weight by name. float32 to train, in the base's own type when frozen."""

    spec = FullSpec()
    pairs: Mapping[str, Pair] = MappingProxyType({})
    scale = 1.0

    def __init__(self, tensors: dict[str, nn.Parameter], places: Places):
        self.tensors = tensors
        self.places = places

    def parameters(self) -> list[nn.Parameter]:
        return list(self.tensors.values())

    def frozen_copy(self) -> FullWeights:
        first, size = next(iter(self.tensors.values())), self.places.dtype.itemsize
        check_room(size * sum(p.numel() for p in self.tensors.values()), "A snapshot of all weights", _SNAPSHOT_ADVICE, str(first.device))
        kept = {name: nn.Parameter(p.detach().to(self.places.dtype, copy=True), requires_grad=False) for name, p in self.tensors.items()}
        return FullWeights(kept, self.places)

    def write(self, folder: Path, *, to_train: bool) -> None:
        """A model folder for AutoModelForCausalLM: as exact as it is trained, or as precise as the base."""
        dtype = torch.float32 if to_train else self.places.dtype
        self.places.write(folder, {name: p.detach().to("cpu", dtype) for name, p in self.tensors.items()}, dtype)


class Places:
    """Where each weight of a model stands. Made before any layer is put behind another, so its names are the model's own."""

    def __init__(self, model: nn.Module, folder: Path, dtype: torch.dtype):
        self.dtype = dtype
        self._model = model
        self._folder = folder
        self._by_name: dict[str, list[tuple[nn.Module, str]]] = {}
        names: dict[int, str] = {}
        for path, module in model.named_modules():
            for leaf, parameter in module.named_parameters(recurse=False):
                # Tied weights stand in several places under one name.
                name = names.setdefault(id(parameter), f"{path}.{leaf}".lstrip("."))
                self._by_name.setdefault(name, []).append((module, leaf))
        lasting = model.state_dict().keys()
        self._buffers = {name: buffer for name, buffer in model.named_buffers() if name in lasting}

    def weights(self) -> dict[str, nn.Parameter]:
        """What stands there now, tied weights once."""
        return {name: places[0][0]._parameters[places[0][1]] for name, places in self._by_name.items()}

    @contextmanager
    def holding(self, tensors: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """For this time the model computes with these; gradients go to them."""
        before = [(module, leaf, module._parameters[leaf]) for places in self._by_name.values() for module, leaf in places]
        try:
            for name, places in self._by_name.items():
                tensor = tensors[name].to(self.dtype)
                for module, leaf in places:
                    module._parameters[leaf] = tensor
            yield
        finally:
            for module, leaf, parameter in before:
                module._parameters[leaf] = parameter

    def write(self, folder: Path, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> None:
        """model.safetensors in the layout that the family has on disk, config.json, tokenizer. Raises OSError."""
        from transformers.core_model_loading import revert_weight_conversion

        kept = {name: buffer.detach().cpu() for name, buffer in self._buffers.items()}
        state = revert_weight_conversion(self._model, {**tensors, **kept})
        # Some conversions give views of one tensor, which a safetensors file can't hold.
        state = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        config = copy.deepcopy(self._model.config)
        config.dtype = str(dtype).removeprefix("torch.")
        config.architectures = [type(self._model).__name__]
        config.save_pretrained(folder)
        for file in (file for pattern in _BESIDE_WEIGHTS for file in self._folder.glob(pattern) if file.is_file()):
            shutil.copyfile(file, folder / file.name)
