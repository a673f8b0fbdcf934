"""Tiny random models of many families, as folders with safetensors and nano's tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.server.harness import NANO

VOCABULARY = 264
_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 3,
}
_MIXTURE = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
_OLD = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "eos_token_id": 3, "bos_token_id": None, "vocab_size": VOCABULARY}
_LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
_LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}

# Family -> what makes its config; several differ in just the way that breaks code written for Llama.
FAMILIES: dict[str, dict] = {
    "llama": _COMMON,
    "qwen2": {**_COMMON, "tie_word_embeddings": True},  # biases on q, k, v
    "qwen3": _COMMON,
    "qwen3_moe": {**_COMMON, **_MIXTURE, "num_experts": 4, "decoder_sparse_step": 1},  # experts as one 3-D parameter
    "qwen2_moe": {**_COMMON, **_MIXTURE, "num_experts": 4, "shared_expert_intermediate_size": 16},  # a shared expert and its gate
    "deepseek_v3": {
        **_COMMON,
        **_MIXTURE,
        **_LATENT,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "n_group": 2,
        "topk_group": 1,
        "first_k_dense_replace": 1,
    },
    "gpt_oss": {**_COMMON, "num_local_experts": 4, "num_experts_per_tok": 2},  # experts stored the other way round, with biases
    "gemma2": {**_COMMON, "sliding_window": 8, "query_pre_attn_scalar": 8},  # soft-capped logits, tied
    "gemma3_text": {**_COMMON, "sliding_window": 8},
    "mistral": {**_COMMON, "sliding_window": 8},
    "phi": _COMMON,  # partial rotation, parallel layers
    "phi3": _COMMON,  # fused qkv and gate_up
    "gpt_neox": _COMMON,  # fused qkv
    "gpt2": _OLD,  # Conv1D, learned positions, tied
    "opt": {**_COMMON, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "olmo2": _COMMON,  # norms after
    "bloom": {**_OLD, "hidden_size": 32},  # no positions at all
    "jetmoe": {**_COMMON, "num_local_experts": 4, "num_experts_per_tok": 2, "kv_channels": 8},  # experts and a router within attention
    "lfm2": {**_COMMON, "layer_types": ["conv", "full_attention"]},
    "qwen3_5_text": {**_COMMON, **_LINEAR, "layer_types": ["linear_attention", "full_attention"]},
    "jamba": {**_COMMON, "num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "mamba_d_state": 8},
}


def make(folder: Path, family: str, **changes: object) -> Path:
    """The folder of a new model. Weights large enough that what it says depends on what it reads."""
    wanted = {**FAMILIES.get(family, _COMMON), **changes}
    config = AutoConfig.for_model(family)
    known = {name for name in wanted if hasattr(config, name) or name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    settable = {name: value for name, value in wanted.items() if name in known}
    config = AutoConfig.for_model(family, **settable)
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.25, generator=generator)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(NANO / name, folder / name)
    return folder
