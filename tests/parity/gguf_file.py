"""Write an in-memory Llama as a GGUF file with the `gguf` package, rows of q and k in GGUF's order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from openherd.checkpoints.source import Tensor
from openherd.config import ModelConfig

_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_gguf(path: Path, config: ModelConfig, tensors: Mapping[str, Tensor]) -> None:
    """A file that openherd and llama.cpp read; its vocabulary is of placeholders. Rope scaling is not written."""
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(config.n_layers)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.dim)
    writer.add_feed_forward_length(config.ffn_dim)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"t{i}" for i in range(config.vocab_size)])
    writer.add_token_types([1] * config.vocab_size)
    writer.add_token_merges(["t 1"])
    for name, tensor in tensors.items():
        rows = tensor.rows()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = rows.reshape(-1, 2, config.head_dim // 2, rows.shape[-1])
            rows = heads.swapaxes(1, 2).reshape(rows.shape)  # pairs side by side
        if len(tensor.shape) == 1:
            writer.add_tensor(_gguf_name(name), rows.view(np.float32).reshape(tensor.shape))
        else:
            raw = np.ascontiguousarray(rows)
            writer.add_tensor(_gguf_name(name), raw, raw_dtype=GGMLQuantizationType(tensor.type.ggml_id))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_name(name: str) -> str:
    stem, _, kind = name.rpartition(".")
    if stem in _NAMES:
        return f"{_NAMES[stem]}.{kind}"
    layer, _, rest = stem.removeprefix("model.layers.").partition(".")
    return f"blk.{layer}.{_LAYER_NAMES[rest]}.{kind}"
