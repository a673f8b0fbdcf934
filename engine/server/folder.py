"""From a folder to a causal language model in memory, or to a plain word on why not. Runs no code that the folder brings.

Any family that transformers has a causal language model for will do; weights come from safetensors only, and a weight
that the folder lacks is an error, where transformers would make one up.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from engine.errors import ModelError

DEFAULT_CONTEXT = 2048  # where the config doesn't say
_STATE_INSIDE = ("recurrent_gemma",)  # between calls the model itself remembers the text: there is but one at a time


def load_causal_lm(folder: Path, dtype: torch.dtype) -> nn.Module:
    """On the CPU, frozen, in evaluation mode. Raises ModelError."""
    from transformers import AutoModelForCausalLM

    check_folder(folder)
    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, trust_remote_code=False, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, AttributeError, SafetensorError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"the model can't be loaded: {said}",
            "Give a folder with config.json and *.safetensors of a causal language model.",
            where=str(folder),
        ) from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise ModelError(
            f"the weights lack {len(missing)} of the model's tensors, {missing[0]} for one",
            "Download the model again; if it is made for another task (a classifier, say), take the causal language model.",
            where=str(folder),
        )
    if model.config.model_type in _STATE_INSIDE or "past_key_values" not in inspect.signature(model.forward).parameters:
        raise ModelError(
            f"models of the type {model.config.model_type!r} keep their state in a way that this server can't sample with",
            "Use a model with attention, be it in some of its layers only.",
            where=str(folder / "config.json"),
        )
    return model.eval().requires_grad_(False)


def check_folder(folder: Path) -> None:
    """What can be told from the files' names and config.json. Raises ModelError."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

    config = _config(folder)
    kind = config.get("model_type")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        if config.get("auto_map"):
            raise ModelError(
                "this model needs Python code that comes with it (trust_remote_code), which is never run here",
                "Use a model whose architecture transformers knows by itself.",
                where=str(folder / "config.json"),
            )
        raise ModelError(
            f"the installed transformers has no causal language model of the type {kind!r}",
            "Use a text-generating model of a known family (Llama, Qwen, Mistral, Gemma, Phi, GPT-2, ...).",
            where=str(folder / "config.json"),
        )
    if kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder"):
        raise ModelError(
            f"models of the type {kind!r} read in both directions: they fill gaps and don't continue a text",
            "Use a text-generating model.",
            where=str(folder / "config.json"),
        )
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth"))
        what = "only pickled weights, which can run code when loaded" if pickled else "no weights"
        raise ModelError(f"the model folder has {what}", "Use a version of the model with .safetensors files.", where=str(folder))


def context_of(config: Any) -> int:
    """The most tokens the model can look at."""
    text = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        value = getattr(text, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return DEFAULT_CONTEXT


def eos_of(folder: Path) -> tuple[int, ...]:
    """The end marks that the model's files name, perhaps none. A family's customary ones may mean something else here."""
    config = _config(folder)
    file = folder / "generation_config.json"
    sources = [_object(file) if file.is_file() else {}, config, config.get("text_config") or {}]
    for eos in (source.get("eos_token_id") for source in sources):
        if eos is not None:
            return tuple(int(token) for token in eos) if isinstance(eos, list) else (int(eos),)
    return ()


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise ModelError("the model folder has no config.json", "Give the folder that holds config.json.", where=str(folder))
    return _object(folder / "config.json")


def _object(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{file.name} can't be read: {error}", "Download the model again.", where=str(file)) from error
    if not isinstance(values, dict):
        raise ModelError(f"{file.name} holds no JSON object", "Download the model again.", where=str(file))
    return values
