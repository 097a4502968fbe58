"""The default model's file as a transformers model in float32, for the scripts that record expected values.

Shares nothing with openherd's reader: the `gguf` package parses and dequantises, and the row order of llama.cpp's
q and k (pairs side by side) is turned back to halves here by a loop over heads.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def halves_from_pairs(rows: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """Rows 0, 2, 4 ... of a head are its first half, rows 1, 3, 5 ... its second."""
    heads = [rows[start : start + head_dim] for start in range(0, len(rows), head_dim)]
    return np.concatenate([half for head in heads for half in (head[0::2], head[1::2])])


def transformers_name(name: str) -> str:
    """`blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`."""
    parts = name.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{NAMES[parts[2]]}.weight"
    return f"{NAMES[parts[0]]}.weight"


def load(path: Path) -> LlamaForCausalLM:
    """The model in float32, attention written out ("eager")."""
    reader = GGUFReader(path)

    def number(key: str) -> float:
        return reader.fields[f"llama.{key}"].contents()

    heads, dim = int(number("attention.head_count")), int(number("embedding_length"))
    config = LlamaConfig(
        hidden_size=dim,
        num_hidden_layers=int(number("block_count")),
        num_attention_heads=heads,
        num_key_value_heads=int(number("attention.head_count_kv")),
        head_dim=dim // heads,
        intermediate_size=int(number("feed_forward_length")),
        vocab_size=len(reader.fields["tokenizer.ggml.tokens"].data),
        max_position_embeddings=int(number("context_length")),
        rms_norm_eps=number("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": number("rope.freq_base")},
        tie_word_embeddings=True,
        attn_implementation="eager",
    )
    state = {}
    for tensor in reader.tensors:
        name = transformers_name(tensor.name)
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            values = halves_from_pairs(values, dim // heads)
        state[name] = torch.from_numpy(values.copy())
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model = LlamaForCausalLM(config).eval()
    model.load_state_dict(state)
    return model
