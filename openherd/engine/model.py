"""The forward pass of a Llama-family decoder, in the words of the papers.

Runs eagerly on the NumPy oracle and once against a recorder, which leaves the native core's program
(see `kernels/ops.py` for the vocabulary and the legend of shapes).

Source: Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models", section 2.2; grouped-query
attention from Ainslie et al. 2023. Not covered here: mixtures of experts, sliding windows, LayerNorm, ALiBi.
"""

from __future__ import annotations

from openherd.config import ModelConfig
from openherd.kernels.ops import Ops, Value


def forward(ops: Ops, config: ModelConfig) -> Value:
    """Logits of the wanted rows, [R, V], for the batch that `ops` was made for."""
    x = ops.embed("model.embed_tokens")  # [T, D]
    for layer in range(config.n_layers):
        x = ops.add(x, attention(ops, x, layer))  # [T, D]
        x = ops.add(x, feed_forward(ops, x, layer))  # [T, D]
        x = ops.tap(x, layer, "resid")
    x = ops.tap(ops.rms_norm(x, "model.norm"), config.n_layers, "final")  # [T, D]
    lm_head = "model.embed_tokens" if config.tied_embeddings else "lm_head"
    (logits,) = ops.linear(ops.logit_rows(x), lm_head)  # [R, V]
    return logits


def attention(ops: Ops, x: Value, layer: int) -> Value:
    """Pre-normalised grouped-query attention: [T, D] -> [T, D]."""
    p = f"model.layers.{layer}"
    h = ops.tap(ops.rms_norm(x, f"{p}.input_layernorm"), layer, "qkv_in")  # [T, D]
    q, k, v = ops.linear(h, *(f"{p}.self_attn.{name}_proj" for name in "qkv"))  # [T, H*hd], [T, K*hd] twice
    a = ops.attention(layer, ops.rope(q), ops.rope(k), v)  # [T, H*hd]
    (o,) = ops.linear(ops.tap(a, layer, "o_in"), f"{p}.self_attn.o_proj")  # [T, D]
    return o


def feed_forward(ops: Ops, x: Value, layer: int) -> Value:
    """Pre-normalised SwiGLU: [T, D] -> [T, D]."""
    p = f"model.layers.{layer}"
    h = ops.tap(ops.rms_norm(x, f"{p}.post_attention_layernorm"), layer, "ffn_in")  # [T, D]
    gate, up = ops.linear(h, f"{p}.mlp.gate_proj", f"{p}.mlp.up_proj")  # [T, F] twice
    (down,) = ops.linear(ops.tap(ops.silu_mul(gate, up), layer, "down_in"), f"{p}.mlp.down_proj")  # [T, D]
    return down
