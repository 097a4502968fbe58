"""Which tensors a config needs, and of which shape."""

from __future__ import annotations

from collections.abc import Iterator

from openherd.config import ModelConfig

# The linear maps of a layer, that a LoRA adapter may add to. (Not covered: those of experts.)
LINEAR_MAPS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def linear_shape(config: ModelConfig, linear: str) -> tuple[int, int]:
    """[N, K] of one of `LINEAR_MAPS`: N outputs, K inputs."""
    D, F, H, K = config.dim, config.ffn_dim, config.q_dim, config.kv_dim
    return {
        "self_attn.q_proj": (H, D),
        "self_attn.k_proj": (K, D),
        "self_attn.v_proj": (K, D),
        "self_attn.o_proj": (D, H),
        "mlp.gate_proj": (F, D),
        "mlp.up_proj": (F, D),
        "mlp.down_proj": (D, F),
    }[linear]


def linear_maps(config: ModelConfig) -> tuple[str, ...]:
    """Those of `LINEAR_MAPS` that a layer has: without a gate in some families, attention's alone beside experts."""
    if config.n_experts:
        return LINEAR_MAPS[:4]
    return tuple(linear for linear in LINEAR_MAPS if config.gated or linear != "mlp.gate_proj")


def layer_norms(config: ModelConfig) -> tuple[str, ...]:
    """The norms of a layer that are [dim] wide."""
    if config.parallel_norms:
        return ("input_layernorm",) if config.parallel_norms == 1 else ("ln_attn", "ln_mlp")
    around = ("pre_feedforward_layernorm", "post_feedforward_layernorm") if config.post_norms else ()
    return ("input_layernorm", "post_attention_layernorm", *around)


def required_tensors(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Canonical names and row-major shapes, layer after layer. Lazy: a file may claim any number of layers."""
    table = (config.vocab_size, config.dim)
    yield "model.embed_tokens.weight", table
    yield from _norm(config, "model.norm")
    if not config.tied_embeddings:
        yield "lm_head.weight", table
    for layer in range(config.n_layers):
        prefix = f"model.layers.{layer}"
        for name in layer_norms(config):
            yield from _norm(config, f"{prefix}.{name}")
        if config.qk_norm:
            yield f"{prefix}.self_attn.q_norm.weight", (config.head_dim,)
            yield f"{prefix}.self_attn.k_norm.weight", (config.head_dim,)
        for linear in linear_maps(config):
            n, k = linear_shape(config, linear)
            yield f"{prefix}.{linear}.weight", (n, k)
            if config.has_bias(linear):
                yield f"{prefix}.{linear}.bias", (n,)
        if config.n_experts:
            yield from _experts(config, f"{prefix}.block_sparse_moe")


def _norm(config: ModelConfig, name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (config.dim,)
    if config.norm_bias:
        yield f"{name}.bias", (config.dim,)


def _experts(config: ModelConfig, prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The router, and of each expert gate (w1), down (w2) and up (w3), as Mixtral names them."""
    D, F = config.dim, config.ffn_dim
    yield f"{prefix}.gate.weight", (config.n_experts, D)
    for expert in range(config.n_experts):
        for name, shape in (("w1", (F, D)), ("w2", (D, F)), ("w3", (F, D))):
            yield f"{prefix}.experts.{expert}.{name}.weight", shape
