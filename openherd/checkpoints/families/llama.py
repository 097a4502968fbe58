"""Llama 1, 2 and 3, and what has the same form: Code Llama, SmolLM 1 and 2, TinyLlama, Falcon 3; and, because GGUF has
them under the same name, Mistral (a sliding window) and Mixtral (experts).

Source: transformers' `LlamaForCausalLM`; ggml's docs/gguf.md, "Standardized tensor names"; Meta's `model.py`.
"""

from __future__ import annotations

from dataclasses import replace

from openherd.checkpoints.families import gguf_config, hf_config
from openherd.checkpoints.families.family import Family, Present
from openherd.checkpoints.families.key_table import KeyTable
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.json_keys import JsonKeys
from openherd.checkpoints.name_table import NameTable, Source, expert_rows
from openherd.config import ModelConfig

NAME = "llama"
# Far above any Mixtral's 8; a file may claim more than its tensors have.
MAX_EXPERTS = 1024

# Canonical (Hugging Face's own), GGUF's, Meta's.
STEMS: tuple[tuple[str, str, str], ...] = (
    ("model.embed_tokens", "token_embd", "tok_embeddings"),
    ("model.norm", "output_norm", "norm"),
    ("lm_head", "output", "output"),
    ("model.layers.{}.input_layernorm", "blk.{}.attn_norm", "layers.{}.attention_norm"),
    ("model.layers.{}.self_attn.q_proj", "blk.{}.attn_q", "layers.{}.attention.wq"),
    ("model.layers.{}.self_attn.k_proj", "blk.{}.attn_k", "layers.{}.attention.wk"),
    ("model.layers.{}.self_attn.v_proj", "blk.{}.attn_v", "layers.{}.attention.wv"),
    ("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output", "layers.{}.attention.wo"),
    ("model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm", "layers.{}.ffn_norm"),
    ("model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate", "layers.{}.feed_forward.w1"),
    ("model.layers.{}.mlp.up_proj", "blk.{}.ffn_up", "layers.{}.feed_forward.w3"),
    ("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down", "layers.{}.feed_forward.w2"),
)

# A router and stacks of experts. Files that have a tensor for each expert are of an early form, and refused.
_MOE = "model.layers.{}.block_sparse_moe"
EXPERTS: dict[str, str | Source] = {
    f"{_MOE}.gate": "blk.{}.ffn_gate_inp",
    f"{_MOE}.experts.{{}}.w1": Source("blk.{}.ffn_gate_exps", expert_rows(lambda config: config.ffn_dim)),
    f"{_MOE}.experts.{{}}.w2": Source("blk.{}.ffn_down_exps", expert_rows(lambda config: config.dim)),
    f"{_MOE}.experts.{{}}.w3": Source("blk.{}.ffn_up_exps", expert_rows(lambda config: config.ffn_dim)),
}

_FALCON3_KEYS = KeyTable(frozenset(), neutral={"activation": ("swiglu",)})  # what hidden_act says too
_MIXTRAL_KEYS = KeyTable(
    read=frozenset({"num_experts_per_tok", "num_local_experts"}),
    harmless=frozenset({"router_aux_loss_coef", "router_jitter_noise"}),  # of training
)
_GGUF_KEYS = KeyTable(frozenset({"attention.sliding_window", "expert_count", "expert_used_count"}))
# transformers masks all layers of Mistral and Mixtral alike.
_WINDOW_KEYS = KeyTable(frozenset({"sliding_window"}))
_WINDOWS = {"mistral": hf_config.DEFAULT_WINDOW, "mixtral": 0}
_DEFAULTS = {
    "llama": hf_config.Defaults(2048),
    "mistral": hf_config.Defaults(131072, n_kv_heads=8),
    "mixtral": hf_config.Defaults(131072, n_kv_heads=8, norm_eps=1e-5, theta=1e6),
}


def _hf_config(keys: JsonKeys, present: Present) -> ModelConfig:
    kind = keys.text("model_type", NAME)
    table = hf_config.DECODER_KEYS | _FALCON3_KEYS
    if kind != NAME:
        keys.refuse_null("num_key_value_heads")
        table = table | _WINDOW_KEYS
    if kind == "mixtral":
        table = table | _MIXTRAL_KEYS
    table.refuse_unknown(keys)
    hf_config.require(keys, "hidden_act", "silu", "swish")
    config = hf_config.read_decoder(keys, NAME, present, _DEFAULTS[kind])
    if kind == NAME:
        return config
    config = replace(config, sliding_window=hf_config.window_length(keys, _WINDOWS[kind]))
    if kind != "mixtral":
        return config
    keys.refuse_null("num_experts_per_tok", "num_local_experts")
    n_experts = keys.whole("num_local_experts", 8, least=1, most=MAX_EXPERTS)
    chosen = keys.whole("num_experts_per_tok", 2, least=1, most=n_experts)
    return replace(config, n_experts=n_experts, n_experts_per_token=chosen)


def _gguf_config(keys: Keys, present: Present) -> ModelConfig:
    (gguf_config.DECODER_KEYS | _GGUF_KEYS).refuse_unknown(keys, f"{NAME}.")
    config = gguf_config.read_decoder(keys, NAME, present)
    n_experts = keys.whole(f"{NAME}.expert_count", 0, most=MAX_EXPERTS)
    return replace(
        config,
        sliding_window=keys.whole(f"{NAME}.attention.sliding_window", 0),
        n_experts=n_experts,
        n_experts_per_token=keys.whole(f"{NAME}.expert_used_count", least=1, most=n_experts) if n_experts else 0,
    )


LLAMA = Family(
    name=NAME,
    shown="Llama 1 to 3, Code Llama, SmolLM 1 and 2, Falcon 3, Mistral, Mixtral and others of the same form",
    model_types=("llama", "mistral", "mixtral"),
    architecture=NAME,
    hf_config=_hf_config,
    gguf_config=_gguf_config,
    names={
        "hf": NameTable({canonical: canonical for canonical in (*(stem for stem, _, _ in STEMS), *EXPERTS)}),
        "gguf": NameTable({canonical: gguf for canonical, gguf, _ in STEMS} | EXPERTS),
        "meta": NameTable({canonical: meta for canonical, _, meta in STEMS}),
    },
    interleaved=frozenset({"gguf", "meta"}),
    ignored=(".rotary_emb.inv_freq", ".attn_rot_embd.inv_freq", "rope.freqs"),
)
