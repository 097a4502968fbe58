"""What a reader hands over: lazily mapped tensors under canonical names, and the facts beside them.

Canonical tensor names are Hugging Face's (`model.layers.0.self_attn.q_proj.weight`), rows are outputs:
shape [N, K] computes y[N] = W[N, K] x[K]. Query and key rows are in Hugging Face's order (rotary halves),
whatever order the file has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from openherd.config import ModelConfig
from openherd.quant.types import BlockType
from openherd.tokenizers.spec import TokenizerSpec

U8 = NDArray[np.uint8]

# Begins a `template_source` that was chosen for the model, because its files have none.
BUILT_IN = "built in: "


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file; nothing is read until `rows` is called."""

    name: str
    shape: tuple[int, ...]  # row-major: the last dimension is contiguous
    type: BlockType
    read: Callable[[], U8]  # the raw blocks, [N, row_bytes], in canonical row order
    give_back: Callable[[], None] = lambda: None  # lets go of the memory that reading took; reading again is allowed

    def rows(self) -> U8:
        """Raw blocks as [N, row_bytes] uint8, N the product of all but the last dimension (1 for a vector).

        A view of the map where the file's row order is canonical, else a copy.
        """
        return self.read()

    @property
    def n_rows(self) -> int:
        n = 1
        for size in self.shape[:-1]:
            n *= size
        return n

    @property
    def nbytes(self) -> int:
        return self.n_rows * self.type.row_bytes(self.shape[-1])


class TensorSource(Protocol):
    """A mapping of canonical names to tensors."""

    def __getitem__(self, name: str) -> Tensor: ...
    def __contains__(self, name: object) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model as it lies on disk: config, tensors, tokenizer, template and what the file says of itself."""

    path: Path
    format: str  # "GGUF v3", "Hugging Face (safetensors)", "Meta"
    config: ModelConfig
    tensors: TensorSource
    tokenizer: TokenizerSpec
    chat_template: str | None
    license: str | None
    metadata: Mapping[str, Any]  # the file's own keys, long arrays left out; for inspect
    template_source: str | None = None  # the template's file or key, or `BUILT_IN`, a name and why
    files: tuple[Path, ...] = ()  # the files that hold the tensors
    name: str | None = None  # what the files call the model
    notes: tuple[str, ...] = ()  # what the files leave open and was assumed

    @property
    def assumed(self) -> tuple[str, ...]:
        """`notes`, and the template if it was chosen for the model: what a person should hear before trusting it."""
        source = self.template_source or ""
        return (*self.notes, f"chat template {source}") if source.startswith(BUILT_IN) else self.notes


@dataclass(frozen=True, slots=True)
class LoraPair:
    """y += scale * B (A x) for one linear map: A [r, K], B [N, r]."""

    a: Tensor
    b: Tensor


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter (Hu et al. 2021): pairs by the canonical name of the weight they add to."""

    path: Path
    rank: int
    scale: float  # alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA
    pairs: Mapping[str, LoraPair]  # "model.layers.0.self_attn.q_proj.weight" -> pair
