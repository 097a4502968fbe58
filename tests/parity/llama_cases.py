"""The small Llama models of the parity tests: one for each declared variation of the forward pass."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from openherd.config import ModelConfig, RopeScaling
from tests.parity.random_llama import RandomUniform

PLAIN = ModelConfig(
    family="llama",
    dim=48,
    n_layers=2,
    n_heads=6,
    n_kv_heads=2,
    head_dim=8,
    ffn_dim=80,
    vocab_size=97,
    max_seq_len=64,
)

CASES: dict[str, ModelConfig] = {
    "grouped": PLAIN,
    "tied": replace(PLAIN, tied_embeddings=True),
    "multi_head": replace(PLAIN, n_kv_heads=6),
    "one_kv_head": replace(PLAIN, n_kv_heads=1, norm_eps=1e-6),
    "wide_heads": replace(PLAIN, head_dim=20),
    "odd_sizes": replace(PLAIN, dim=39, n_heads=3, n_kv_heads=3, head_dim=14, ffn_dim=53, vocab_size=101),
    "biases": replace(PLAIN, qkv_bias=True, o_bias=True, mlp_bias=True),
    "linear": replace(PLAIN, rope_scaling=RopeScaling("linear", factor=2.5)),
    "llama3": replace(PLAIN, head_dim=16, rope_scaling=RopeScaling("llama3", 8.0, original_max_seq_len=24)),
    "yarn": replace(PLAIN, head_dim=16, rope_scaling=RopeScaling("yarn", 4.0, original_max_seq_len=32, beta_fast=4.0)),
}
SEED = 20261123
PROMPT_LENGTHS = (37, 21)  # neither ends on a block's end
RECORDED = (0, 1, 15, 16, -1)  # positions of each prompt whose logits are recorded: around a block's border


def prompts(config: ModelConfig) -> list[NDArray[np.int32]]:
    """The two prompts of a case."""
    uniform = RandomUniform(SEED + 1)
    return [uniform.ids(n, config.vocab_size) for n in PROMPT_LENGTHS]
