"""The vocabulary in which a model's forward pass is written.

`engine/model.py` is written against `Ops` once. `reference.Reference` evaluates each operation at once in NumPy;
`recorder.Recorder` writes down a program of fused operations for the native core.

Legend: T rows (tokens of all sequences of the step), R rows whose logits are wanted, D width of the residual
stream, H query heads, K key/value heads, F width of the feed-forward, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias

Value: TypeAlias = Any  # an activation: an array for the reference, a handle for the recorder
TapName: TypeAlias = Literal["resid", "qkv_in", "o_in", "ffn_in", "down_in", "final"]


class Ops(Protocol):
    """Operations on activations. Weights are named canonically, without the `.weight` suffix."""

    def embed(self, weight: str) -> Value:
        """Rows of the embedding table for the step's token ids: [T, D]."""

    def rms_norm(self, x: Value, weight: str) -> Value:
        """x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, eq. 4): [T, D]."""

    def linear(self, x: Value, *names: str) -> tuple[Value, ...]:
        """For each name, x W^T (+ bias where the config declares one, + the row's adapter): [T, N] each.

        Several maps of one input are one call, so that a backend reads the input once.
        """

    def rope(self, x: Value) -> Value:
        """Rotate each head of x by its row's position (Su et al. 2021, eq. 34, halves paired as in GPT-NeoX)."""

    def attention(self, layer: int, q: Value, k: Value, v: Value) -> Value:
        """Write k, v to the paged cache, then causal attention of each row over its cache: [T, H * head_dim].

        Scores are scaled by 1/sqrt(head_dim) (Vaswani et al. 2017, eq. 1).
        """

    def silu_mul(self, gate: Value, up: Value) -> Value:
        """silu(gate) * up (Shazeer 2020, SwiGLU): [T, F]."""

    def add(self, x: Value, y: Value) -> Value:
        """The residual: [T, D]."""

    def tap(self, x: Value, layer: int, site: TapName) -> Value:
        """Let a tap on (layer, site) see x, and return x unchanged."""

    def logit_rows(self, x: Value) -> Value:
        """The rows whose logits are wanted: [R, D]."""
