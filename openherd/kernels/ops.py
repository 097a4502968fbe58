"""The vocabulary in which a model's forward pass is written.

`engine/model.py` is written against `Ops` once. `reference.Reference` evaluates each operation at once in NumPy;
`recorder.Recorder` writes down a program of fused operations for the native core.

Legend: T rows (tokens of all sequences of the step), R rows whose logits are wanted, D width of the residual
stream, H query heads, K key/value heads, F width of the feed-forward, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias

from openherd.config import Activation

Value: TypeAlias = Any  # an activation: an array for the reference, a handle for the recorder
# An expert's gate, up and down maps.
ExpertNames: TypeAlias = tuple[str, str, str]
TapName: TypeAlias = Literal["resid", "qkv_in", "o_in", "ffn_in", "down_in", "final"]


class Ops(Protocol):
    """Operations on activations. Weights are named canonically, without the `.weight` suffix."""

    def embed(self, weight: str) -> Value:
        """Rows of the embedding table for the step's token ids: [T, D]."""

    def rms_norm(self, x: Value, weight: str) -> Value:
        """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, eq. 4): [T, D]."""

    def layer_norm(self, x: Value, weight: str) -> Value:
        """(x - mean) / sqrt(variance + eps) * weight (+ bias, if declared) (Ba et al. 2016, eq. 4): [T, D]."""

    def head_norm(self, x: Value, weight: str) -> Value:
        """RMSNorm of each head by itself, all by one weight [hd] (query-key norm, Henry et al. 2020): [T, H*hd]."""

    def linear(self, x: Value, *names: str) -> tuple[Value, ...]:
        """For each name, x W^T (+ bias where the config declares one, + the row's adapter): [T, N] each.

        Several maps of one input are one call, so that a backend reads the input once.
        """

    def rope(self, x: Value, *, local: bool = False) -> Value:
        """Rotate each head of x by its row's position (Su et al. 2021, eq. 34, halves paired as in GPT-NeoX).

        `local`: by the frequencies of layers with a sliding window, where a model has two sets (Gemma 3).
        """

    def attention(self, layer: int, q: Value, k: Value, v: Value) -> Value:
        """Write k, v to the paged cache, then causal attention of each row over its cache: [T, H * head_dim].

        Scores are scaled by 1/sqrt(head_dim) (Vaswani et al. 2017, eq. 1) or by `attention_scale`, then, where the
        config says so, capped, biased by distance (ALiBi), and counted in the last `window(layer)` positions only.
        """

    def gate(self, activation: Activation, gate: Value, up: Value) -> Value:
        """activation(gate) * up (Shazeer 2020: SwiGLU, GEGLU): [T, F]."""

    def activate(self, activation: Activation, x: Value) -> Value:
        """silu(x) = x / (1 + e^-x), gelu(x) = x Phi(x) (Hendrycks and Gimpel 2016) or its approximation by tanh."""

    def experts(self, x: Value, router: Value, experts: Sequence[ExpertNames]) -> Value:
        """Each row's `n_experts_per_token` experts with the highest router logits, ties to the lowest id: [T, D].

        The gated feed-forwards of the chosen are summed by ascending id, each times its softmax among the chosen
        (Jiang et al. 2024, "Mixtral of Experts", section 2.1). No expert has a capacity: no row is dropped. `router` is
        [T, E]. Adapters do not reach inside.
        """

    def scale(self, x: Value, factor: float) -> Value:
        """x * factor, element by element."""

    def clip(self, x: Value, bound: float) -> Value:
        """x clipped to [-bound, bound], element by element."""

    def softcap(self, x: Value, cap: float) -> Value:
        """cap * tanh(x / cap), element by element (Gemma Team 2024, "Gemma 2", section 2)."""

    def add(self, x: Value, y: Value) -> Value:
        """The residual: [T, D]."""

    def tap(self, x: Value, layer: int, site: TapName) -> Value:
        """Let a tap on (layer, site) see x, and return x unchanged."""

    def logit_rows(self, x: Value) -> Value:
        """The rows whose logits are wanted: [R, D]."""
