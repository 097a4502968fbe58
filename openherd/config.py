"""ModelConfig: everything the forward pass needs to know of a model, for every supported family.

Sizes of the architecture are `n_*`. A reader in `checkpoints/` makes the config; a key in a file that would
change the mathematics and has no field here must raise `UnsupportedError` there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

RopeKind = Literal["none", "linear", "llama3", "yarn", "longrope"]
NormKind = Literal["rms", "layer"]
Activation = Literal["silu", "gelu", "gelu_tanh"]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained context.

    none     Su et al. 2021, RoFormer, eq. 15: theta_i = base^(-2i/d).
    linear   position interpolation (Chen et al. 2023): positions divided by `factor`.
    llama3   Llama 3.1: long wavelengths divided by `factor`, a smooth ramp between the two cut-offs.
    yarn     Peng et al. 2023: a ramp by number of rotations and a temperature on attention.
    longrope Ding et al. 2024 ("su" in early files): a divisor for each pair, one list for contexts up to the original
             one and one beyond it, and a temperature. Which list is in use is decided at load, by the context asked.
    """

    kind: RopeKind = "none"
    factor: float = 1.0
    original_max_seq_len: int = 0
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    attention_factor: float | None = None  # yarn, longrope; None: the method's own rule from `factor`
    short_factors: tuple[float, ...] = ()  # longrope: contexts up to original_max_seq_len
    long_factors: tuple[float, ...] = ()  # longrope: longer contexts

    @property
    def longrope_temperature(self) -> float:
        """What longrope's cosines and sines are multiplied by: as the file says, else Phi-3's rule."""
        if self.attention_factor is not None:
            return self.attention_factor
        original = max(2, self.original_max_seq_len)
        return math.sqrt(1 + math.log(self.factor) / math.log(original)) if self.factor > 1 else 1.0


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape and declared variations of one decoder. Frozen: two equal configs compute the same function."""

    family: str  # "llama", as the table of families names it
    dim: int  # D, width of the residual stream
    n_layers: int
    n_heads: int  # H, query heads
    n_kv_heads: int  # K, key and value heads; H % K == 0
    head_dim: int
    ffn_dim: int  # F
    vocab_size: int  # V
    max_seq_len: int  # the context the model was trained for
    norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_dim: int = 0  # rotated dimensions of a head; 0: all of head_dim
    rope_scaling: RopeScaling = field(default_factory=RopeScaling)
    rope_factors: tuple[float, ...] = ()  # per-pair divisors a file carries ready-made (GGUF rope_freqs.weight)
    tied_embeddings: bool = False  # lm_head is embed_tokens
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    norm: NormKind = "rms"
    norm_bias: bool = False  # of the LayerNorms
    post_norms: bool = False  # a norm after attention and after the feed-forward too, before the residual (Gemma 2)
    qk_norm: bool = False  # RMSNorm of each query and key head before it is rotated (Qwen 3)
    parallel_norms: int = 0  # attention and feed-forward side by side, behind one norm or two; 0: one after the other
    activation: Activation = "silu"
    gated: bool = True  # act(gate_proj x) * up_proj x; else act(up_proj x)
    embedding_scale: float = 1.0
    attention_scale: float | None = None  # of scores; None: 1 / sqrt(head_dim)
    attention_softcap: float = 0.0  # c tanh(score / c); 0: none
    logit_scale: float = 1.0
    logit_softcap: float = 0.0
    clip_qkv: float = 0.0  # queries, keys and values are clipped to [-c, c]; 0: not
    sliding_window: int = 0  # positions that a query sees, its own the last; 0: all
    full_attention_every: int = 0  # layers n - 1, 2n - 1, ... see all positions in spite of a window; 0: none does
    local_rope_theta: float = 0.0  # of layers with a window, unscaled; 0: as the others
    no_rope_every: int = 0  # layers n - 1, 2n - 1, ... are not rotated; 0: all are
    alibi_max_bias: float = 0.0  # linear biases instead of rotation (Press et al. 2022); 0: rotation
    alibi_scale: float = 1.0  # times every slope
    n_experts: int = 0  # 0: one dense feed-forward
    n_experts_per_token: int = 0

    def has_bias(self, linear: str) -> bool:
        """Whether a linear map has one, by the last part of its name ("q_proj")."""
        match linear.rpartition(".")[2]:
            case "q_proj" | "k_proj" | "v_proj":
                return self.qkv_bias
            case "o_proj":
                return self.o_bias
            case "gate_proj" | "up_proj" | "down_proj":
                return self.mlp_bias
            case _:
                return False

    def window(self, layer: int) -> int:
        """Positions that a query of `layer` sees; 0: all before it."""
        full = self.full_attention_every and (layer + 1) % self.full_attention_every == 0
        return 0 if full else self.sliding_window

    def rotates(self, layer: int) -> bool:
        """Whether queries and keys of `layer` are rotated by their positions."""
        if self.alibi_max_bias:
            return False
        return not (self.no_rope_every and (layer + 1) % self.no_rope_every == 0)

    def is_local(self, layer: int) -> bool:
        """Whether `layer` rotates by `local_rope_theta`."""
        return bool(self.local_rope_theta and self.window(layer))

    @property
    def q_dim(self) -> int:
        return self.n_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        return self.n_kv_heads * self.head_dim

    @property
    def rotary_dim(self) -> int:
        return self.rope_dim or self.head_dim
