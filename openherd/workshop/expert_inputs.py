"""What the experts' maps read on a text: each expert its own rows alone, and its down map what it computes of them.

No tap of the engine sees that, so it is computed here from the inputs of the layer's feed-forward, in float32 by NumPy,
with the weights that the file has. That takes a few times as long as the engine's own pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.source import Tensor, TensorSource
from openherd.config import ModelConfig
from openherd.engine.protocols import F32
from openherd.kernels.reference import activated
from openherd.quant.dequantize import dequantize

F64 = NDArray[np.float64]
_CHUNK_VALUES = 16 << 20  # of a weight at a time, as float32


class ExpertInputs:
    """Sums of squares by layer and by "in" or "down": [E, K]; `counts` are the rows that each expert of a layer got."""

    def __init__(self, config: ModelConfig, tensors: TensorSource) -> None:
        self._config = config
        self._tensors = tensors
        self.sums: dict[tuple[int, str], F64] = {}
        self.counts: dict[int, F64] = {}

    def add(self, layer: int, rows: F32) -> None:
        """`rows` [T, D] are inputs of the feed-forward of `layer`."""
        c = self._config
        chosen = self._chosen(layer, rows)
        inputs = self.sums.setdefault((layer, "in"), np.zeros((c.n_experts, c.dim)))
        hidden = self.sums.setdefault((layer, "down"), np.zeros((c.n_experts, c.ffn_dim)))
        counts = self.counts.setdefault(layer, np.zeros(c.n_experts))
        for expert in range(c.n_experts):
            own = rows[(chosen == expert).any(axis=1)]
            if len(own):
                inputs[expert] += _squares(own)
                hidden[expert] += self._squares_within(layer, expert, own)
                counts[expert] += len(own)

    def by_weight(self) -> Iterator[tuple[str, F64, F64]]:
        """(GGUF's name of a weight, its sums, the rows that were summed)."""
        for (layer, part), sums in self.sums.items():
            for stem in ("ffn_down_exps",) if part == "down" else ("ffn_gate_exps", "ffn_up_exps"):
                yield f"blk.{layer}.{stem}.weight", sums, self.counts[layer]

    def _chosen(self, layer: int, rows: F32) -> NDArray[np.int64]:
        """[T, k]: the experts of each row, ties to the lowest."""
        router = self._tensors[f"model.layers.{layer}.block_sparse_moe.gate.weight"]
        logits = rows @ _values(router, 0, router.shape[0]).T
        return np.argsort(-logits, axis=1, kind="stable")[:, : self._config.n_experts_per_token]

    def _squares_within(self, layer: int, expert: int, rows: F32) -> F64:
        """Of act(gate x) * up x, some outputs at a time."""
        gate, up = (
            self._tensors[f"model.layers.{layer}.block_sparse_moe.experts.{expert}.{name}.weight"]
            for name in ("w1", "w3")
        )
        step = max(1, _CHUNK_VALUES // gate.shape[1])
        parts = []
        for start in range(0, gate.shape[0], step):
            end = min(start + step, gate.shape[0])
            x = activated(self._config.activation, (rows @ _values(gate, start, end).T).astype(np.float64))
            parts.append(_squares((x * (rows @ _values(up, start, end).T)).astype(np.float32)))
        gate.give_back()
        up.give_back()
        return np.concatenate(parts)


def _values(tensor: Tensor, start: int, end: int) -> F32:
    return dequantize(tensor.rows()[start:end], tensor.type)


def _squares(rows: F32) -> F64:
    total: F64 = np.einsum("tk,tk->k", rows, rows, dtype=np.float64)
    return total
