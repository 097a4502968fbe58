"""The forward pass of a decoder, in the words of the papers: one for all families, varied as a config declares.

Runs eagerly on the NumPy oracle and once against a recorder, which leaves the native core's program
(see `kernels/ops.py` for the vocabulary and the legend of shapes).

Source: Touvron et al. 2023, "LLaMA: Open and Efficient Foundation Language Models", section 2.2; grouped-query
attention from Ainslie et al. 2023; the parallel block from Wang and Komatsuzaki 2021 (GPT-J) as in Almazrouei et al.
2023 ("The Falcon Series"); norms around both halves from Gemma Team 2024 ("Gemma 2").
"""

from __future__ import annotations

from openherd.config import ModelConfig
from openherd.kernels.ops import Ops, Value


def forward(ops: Ops, config: ModelConfig) -> Value:
    """Logits of the wanted rows, [R, V], for the batch that `ops` was made for."""
    x = ops.embed("model.embed_tokens")  # [T, D]
    if config.embedding_scale != 1.0:
        x = ops.scale(x, config.embedding_scale)
    for layer in range(config.n_layers):
        x = ops.tap(block(ops, config, x, layer), layer, "resid")  # [T, D]
    x = ops.tap(norm(ops, config, x, "model.norm"), config.n_layers, "final")  # [T, D]
    lm_head = "model.embed_tokens" if config.tied_embeddings else "lm_head"
    (logits,) = ops.linear(ops.logit_rows(x), lm_head)  # [R, V]
    if config.logit_scale != 1.0:
        logits = ops.scale(logits, config.logit_scale)
    return ops.softcap(logits, config.logit_softcap) if config.logit_softcap else logits


def block(ops: Ops, config: ModelConfig, x: Value, layer: int) -> Value:
    """One layer on the residual stream, attention and feed-forward: [T, D] -> [T, D]."""
    p = f"model.layers.{layer}"
    if config.parallel_norms == 2:
        h, g = (norm(ops, config, x, f"{p}.{name}") for name in ("ln_attn", "ln_mlp"))  # [T, D]
    else:
        h = g = norm(ops, config, x, f"{p}.input_layernorm")  # [T, D]
    a = attention(ops, config, h, layer)
    if config.parallel_norms:
        return ops.add(ops.add(x, a), feed_forward(ops, config, g, layer))
    if not config.post_norms:
        x = ops.add(x, a)
        return ops.add(x, feed_forward(ops, config, norm(ops, config, x, f"{p}.post_attention_layernorm"), layer))
    x = ops.add(x, norm(ops, config, a, f"{p}.post_attention_layernorm"))
    f = feed_forward(ops, config, norm(ops, config, x, f"{p}.pre_feedforward_layernorm"), layer)
    return ops.add(x, norm(ops, config, f, f"{p}.post_feedforward_layernorm"))


def norm(ops: Ops, config: ModelConfig, x: Value, name: str) -> Value:
    return ops.rms_norm(x, name) if config.norm == "rms" else ops.layer_norm(x, name)


def attention(ops: Ops, config: ModelConfig, x: Value, layer: int) -> Value:
    """Grouped-query attention of normalised rows: [T, D] -> [T, D]."""
    p = f"model.layers.{layer}.self_attn"
    h = ops.tap(x, layer, "qkv_in")
    q, k, v = ops.linear(h, *(f"{p}.{name}_proj" for name in "qkv"))  # [T, H*hd], [T, K*hd] twice
    if config.clip_qkv:
        q, k, v = (ops.clip(y, config.clip_qkv) for y in (q, k, v))
    if config.qk_norm:
        q, k = ops.head_norm(q, f"{p}.q_norm"), ops.head_norm(k, f"{p}.k_norm")
    if config.rotates(layer):
        q, k = (ops.rope(y, local=config.is_local(layer)) for y in (q, k))
    a = ops.attention(layer, q, k, v)  # [T, H*hd]
    (o,) = ops.linear(ops.tap(a, layer, "o_in"), f"{p}.o_proj")  # [T, D]
    return o


def feed_forward(ops: Ops, config: ModelConfig, x: Value, layer: int) -> Value:
    """The feed-forward of normalised rows, gated or not, or a mixture of gated ones: [T, D] -> [T, D]."""
    p = f"model.layers.{layer}.mlp"
    h = ops.tap(x, layer, "ffn_in")
    if config.n_experts:
        return experts(ops, config, h, layer)
    if config.gated:
        gate, up = ops.linear(h, f"{p}.gate_proj", f"{p}.up_proj")  # [T, F] twice
        inner = ops.gate(config.activation, gate, up)
    else:
        (up,) = ops.linear(h, f"{p}.up_proj")  # [T, F]
        inner = ops.activate(config.activation, up)
    (down,) = ops.linear(ops.tap(inner, layer, "down_in"), f"{p}.down_proj")  # [T, D]
    return down


def experts(ops: Ops, config: ModelConfig, x: Value, layer: int) -> Value:
    """A sparse mixture of experts: [T, D] -> [T, D]."""
    p = f"model.layers.{layer}.block_sparse_moe"
    (router,) = ops.linear(x, f"{p}.gate")  # [T, E]
    each = [(f"{p}.experts.{e}.w1", f"{p}.experts.{e}.w3", f"{p}.experts.{e}.w2") for e in range(config.n_experts)]
    return ops.experts(x, router, each)
