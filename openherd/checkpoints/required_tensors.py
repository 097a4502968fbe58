"""Which tensors a config needs, and of which shape."""

from __future__ import annotations

from collections.abc import Iterator

from openherd.config import ModelConfig

# The linear maps of a layer, that a LoRA adapter may add to.
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


def has_bias(config: ModelConfig, linear: str) -> bool:
    """Whether the config declares a bias for one of `LINEAR_MAPS`."""
    if linear.startswith("mlp."):
        return config.mlp_bias
    return config.o_bias if linear == "self_attn.o_proj" else config.qkv_bias


def required_tensors(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Canonical names and row-major shapes, layer after layer. Lazy: a file may claim any number of layers."""
    table = (config.vocab_size, config.dim)
    yield "model.embed_tokens.weight", table
    yield "model.norm.weight", (config.dim,)
    if not config.tied_embeddings:
        yield "lm_head.weight", table
    for layer in range(config.n_layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (config.dim,)
        yield f"{prefix}.post_attention_layernorm.weight", (config.dim,)
        for linear in LINEAR_MAPS:
            n, k = linear_shape(config, linear)
            yield f"{prefix}.{linear}.weight", (n, k)
            if has_bias(config, linear):
                yield f"{prefix}.{linear}.bias", (n,)
