"""ModelConfig: everything the forward pass needs to know of a model, for every supported family.

Sizes of the architecture are `n_*`. A reader in `checkpoints/` makes the config; a key in a file that would
change the mathematics and has no field here must raise `UnsupportedError` there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

RopeKind = Literal["none", "linear", "dynamic", "llama3", "yarn"]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched beyond the trained context.

    none     Su et al. 2021, RoFormer, eq. 15: theta_i = base^(-2i/d).
    linear   position interpolation (Chen et al. 2023): positions divided by `factor`.
    dynamic  NTK-aware (bloc97 2023): base grows with `factor`; fixed at load here, never with the running length,
             because a frequency that changes with the length would make cached keys depend on when they were made.
    llama3   Llama 3.1: long wavelengths divided by `factor`, a smooth ramp between the two cut-offs.
    yarn     Peng et al. 2023: a ramp by number of rotations and a temperature on attention.
    """

    kind: RopeKind = "none"
    factor: float = 1.0
    original_max_seq_len: int = 0
    low_freq_factor: float = 1.0  # llama3
    high_freq_factor: float = 4.0  # llama3
    beta_fast: float = 32.0  # yarn
    beta_slow: float = 1.0  # yarn
    attention_factor: float | None = None  # yarn; None: 0.1 ln(factor) + 1


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

    @property
    def q_dim(self) -> int:
        return self.n_heads * self.head_dim

    @property
    def kv_dim(self) -> int:
        return self.n_kv_heads * self.head_dim

    @property
    def rotary_dim(self) -> int:
        return self.rope_dim or self.head_dim
