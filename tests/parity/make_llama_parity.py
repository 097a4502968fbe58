"""Record transformers' logits for the small random Llamas: llama_parity.npz.

Run in an environment with torch and transformers: `PYTHONPATH=. python tests/parity/make_llama_parity.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from openherd.config import ModelConfig
from tests.parity.llama_cases import CASES, RECORDED, SEED, prompts
from tests.parity.random_llama import random_weights


def rope_parameters(config: ModelConfig) -> dict[str, Any]:
    """A config's rotary scaling as transformers spells it."""
    s = config.rope_scaling
    parameters: dict[str, Any] = {"rope_type": s.kind, "rope_theta": config.rope_theta, "factor": s.factor}
    if s.kind == "none":
        parameters["rope_type"] = "default"
    if s.kind in ("llama3", "yarn"):
        parameters["original_max_position_embeddings"] = s.original_max_seq_len
    if s.kind == "llama3":
        parameters |= {"low_freq_factor": s.low_freq_factor, "high_freq_factor": s.high_freq_factor}
    if s.kind == "yarn":
        parameters |= {"beta_fast": s.beta_fast, "beta_slow": s.beta_slow}
    return parameters


def transformers_model(config: ModelConfig, weights: dict[str, NDArray[np.float32]]) -> LlamaForCausalLM:
    """The same model in transformers, in float32. Raises when a weight is missing or left over."""
    if config.qkv_bias != config.o_bias:
        raise ValueError("transformers' Llama has one switch for the biases of attention")
    model = LlamaForCausalLM(
        LlamaConfig(
            hidden_size=config.dim,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.ffn_dim,
            vocab_size=config.vocab_size,
            max_position_embeddings=config.max_seq_len,
            rms_norm_eps=config.norm_eps,
            rope_parameters=rope_parameters(config),
            tie_word_embeddings=config.tied_embeddings,
            attention_bias=config.qkv_bias,
            mlp_bias=config.mlp_bias,
            attn_implementation="eager",
        )
    ).eval()
    state = {name: torch.from_numpy(values) for name, values in weights.items()}
    if config.tied_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model


def record(config: ModelConfig) -> NDArray[np.float32]:
    """Logits of the recorded positions of both prompts: [2, 5, V]."""
    model = transformers_model(config, random_weights(config, SEED))
    with torch.inference_mode():
        logits = [model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0] for ids in prompts(config)]
    return np.stack([rows[list(RECORDED)].numpy() for rows in logits])


if __name__ == "__main__":
    expected = {name: record(config) for name, config in CASES.items()}
    np.savez_compressed(Path(__file__).with_name("llama_parity.npz"), **expected)
