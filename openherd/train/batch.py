"""One micro-batch as tensors, with what the model must know of it on the host.

Legend: B rows, T positions of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openherd.train.packing import PADDING, PackedRows

__all__ = ["PADDING", "Batch", "Layout"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Facts of a batch that choose code, kept on the host so that a step never waits for an accelerator."""

    num_learnt: float  # the sum of the weights
    one_document: bool  # each row is one document at positions 0, 1, ..., and then at most padding
    all_learnt: bool = False  # no weight is 0
    lengths: tuple[tuple[int, ...], ...] = ()  # otherwise: how long each row's documents (and its padding) are

    @classmethod
    def of(cls, positions: NDArray[np.int64], documents: NDArray[np.int64], weights: NDArray[np.float32]) -> Layout:
        first = documents == documents[:, :1]  # [B, T] of the row's first document
        padding = documents == PADDING
        ends_once = not np.any(first[:, 1:] & ~first[:, :-1])
        counted = np.all((positions == np.arange(positions.shape[1])) | ~first | padding)
        alone = bool(ends_once and counted and np.all(first | padding))
        total = float(weights.sum(dtype=np.float64))
        lengths = () if alone else tuple(_lengths(row) for row in documents)
        return cls(total, alone, bool(weights.all()), lengths)


def _lengths(documents: NDArray[np.int64]) -> tuple[int, ...]:
    """The lengths of the runs of one number in a row."""
    ends = np.flatnonzero(np.diff(documents)) + 1
    return tuple(np.diff(ends, prepend=0, append=len(documents)).tolist())


_UNKNOWN = Layout(0.0, False)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of documents. Documents of one row do not see each other; padding is a document of its own, `PADDING`."""

    token_ids: Tensor  # [B, T] int64
    positions: Tensor  # [B, T] int64, from 0 in each document, less than T
    documents: Tensor  # [B, T] int64, which document of its row a token belongs to
    targets: Tensor  # [B, T] int64, the next token of the same document; 0 where the weight is 0
    weights: Tensor  # [B, T] float32, 1 where the target is learnt, else 0
    layout: Layout = _UNKNOWN  # found from the tensors when it is not given

    def __post_init__(self) -> None:
        if self.layout is _UNKNOWN:
            arrays = (tensor.detach().cpu().numpy() for tensor in (self.positions, self.documents, self.weights))
            object.__setattr__(self, "layout", Layout.of(*arrays))

    @classmethod
    def from_arrays(cls, packed: PackedRows) -> Batch:
        """The batch of the same five arrays, whose memory it shares where the types agree."""
        ids, positions, documents, targets = (
            torch.from_numpy(np.ascontiguousarray(array, np.int64))
            for array in (packed.token_ids, packed.positions, packed.documents, packed.targets)
        )
        weights = torch.from_numpy(np.ascontiguousarray(packed.weights, np.float32))
        return cls(ids, positions, documents, targets, weights)

    @property
    def num_learnt(self) -> float:
        """The sum of the weights: what a mean loss is divided by."""
        return self.layout.num_learnt

    @property
    def num_tokens(self) -> int:
        """Positions that are no padding."""
        return int((self.documents != PADDING).sum())

    def to(self, device: torch.device | str) -> Batch:
        tensors = (self.token_ids, self.positions, self.documents, self.targets, self.weights)
        ids, positions, documents, targets, weights = (tensor.to(device, non_blocking=True) for tensor in tensors)
        return Batch(ids, positions, documents, targets, weights, self.layout)
