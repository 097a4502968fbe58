"""The compiled core, typed: one class that holds a model's native state and speaks canonical names.

Names become ids here, and programs (see `program.py`) become what the core runs. Arrays of the wrong dtype, rank or
layout are a TypeError, contents that would lead outside the model's bounds a ValueError; both come from the core.
Not safe for several threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from mmap import mmap
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from openherd import _native
from openherd._native import ThreadPool
from openherd.config import ModelConfig
from openherd.errors import OptionError
from openherd.kernels.alibi import alibi_slopes
from openherd.kernels.program import Operation, Program
from openherd.kernels.rope import rotary_tables
from openherd.quant.dequantize import dequantize
from openherd.quant.types import PLAIN_TYPES, BlockType

__all__ = [
    "NativeModel",
    "Sizes",
    "ThreadPool",
    "cut_records_bytes",
    "default_isa",
    "kv_block_bytes",
    "linear_scratch_bytes",
    "make_pool",
    "packed_bytes",
]

F32: TypeAlias = NDArray[np.float32]
I32: TypeAlias = NDArray[np.int32]
U8: TypeAlias = NDArray[np.uint8]

# Weights of these types are multiplied by float32 activations, all others by activations in blocks of integers.

_NORMS = frozenset({"rms_norm", "layer_norm", "head_norm"})


# Rows that are no view of the file (Llama's queries and keys in GGUF are in another order) wait as copies to be packed.
MAX_COPIED_BYTES = 1 << 20


class Tensor(Protocol):
    """A tensor of a file in its blocks, as `checkpoints.source.Tensor` is one."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def type(self) -> BlockType: ...
    @property
    def give_back(self) -> Callable[[], None]: ...
    def rows(self) -> U8: ...


class LowRankPair(Protocol):
    """A [r, K] and B [N, r] of an adapter's term for one weight."""

    @property
    def a(self) -> Tensor: ...
    @property
    def b(self) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the core allocates: the largest step, and the blocks of the KV cache."""

    max_context: int
    max_seqs: int
    max_batch_tokens: int
    max_logit_rows: int
    num_blocks: int
    kv_half: bool


class NativeModel:
    """Weights, programs, adapters and the KV cache of one model in native memory."""

    def __init__(self, pool: ThreadPool, isa: str, config: ModelConfig, sizes: Sizes) -> None:
        tables = rotary_tables(config)
        self._config = config
        self._matrices: dict[str, int] = {}
        self._vectors: dict[str, int] = {}
        self._native = _native.Model(
            pool,
            isa,
            (
                config.n_layers,
                config.n_heads,
                config.n_kv_heads,
                config.head_dim,
                config.rotary_dim if tables else 0,
                config.vocab_size,
                config.norm_eps,
                config.attention_scale or 0.0,
                config.attention_softcap,
            ),
            (sizes.max_context, sizes.max_seqs, sizes.max_batch_tokens, sizes.max_logit_rows),
            sizes.kv_half,
            sizes.num_blocks,
            [(np.ascontiguousarray(frequencies, np.float64), scale) for frequencies, scale in tables],
            (alibi_slopes(config) if config.alibi_max_bias else np.zeros(0)).astype(np.float32),
        )

    def add_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Pack matrices in their block types, keep vectors in float32; the memory of the file's rows is given back.

        The largest matrix comes first, because while it is packed it is in memory twice. Packing leaves the GIL to
        other threads, and asks for it back only where rows had to be copied.
        """
        waiting: list[tuple[Tensor, tuple[int, U8, int]]] = []
        copied = 0
        for tensor in sorted(tensors, key=lambda tensor: -packed_bytes(tensor)):
            if len(tensor.shape) != 2:
                values = dequantize(tensor.rows(), tensor.type).reshape(-1)
                self._vectors[tensor.name] = self._native.add_vector(np.ascontiguousarray(values, np.float32))
                tensor.give_back()
                continue
            waiting.append((tensor, _file_tensor(tensor)))
            rows = waiting[-1][1][1]
            copied += 0 if _is_mapped(rows) else rows.nbytes
            if copied > MAX_COPIED_BYTES:
                self._add_matrices(waiting)
                waiting, copied = [], 0
        self._add_matrices(waiting)

    def _add_matrices(self, waiting: Sequence[tuple[Tensor, tuple[int, U8, int]]]) -> None:
        ids = self._native.add_matrices([(packable, _is_mapped(packable[1])) for _, packable in waiting])
        for number, (tensor, _) in zip(ids, waiting, strict=True):
            self._matrices[tensor.name] = number
            tensor.give_back()

    def add_program(self, program: Program) -> int:
        """The number by which `forward` runs it."""
        buffers = [(b.width, b.rows == "R", "f32" in b.forms, "q8" in b.forms) for b in program.buffers]
        operations = [self._operation(op) for op in program.operations]
        return self._native.add_program(buffers, operations, program.output)

    def add_adapter(self, scale: float, pairs: Mapping[str, LowRankPair]) -> int:
        """The number by which a sequence's rows ask for it. `pairs` by the full name of the weight they add to."""
        unknown = sorted(set(pairs) - set(self._matrices))
        if unknown:
            raise ValueError(f"the adapter changes {unknown[0]}, which the model does not have")
        triples = [(self._matrices[name], _file_tensor(p.a), _file_tensor(p.b)) for name, p in pairs.items()]
        return self._native.add_adapter(scale, triples)

    def forward(self, program: int, *arrays: I32, tap_rows: list[I32]) -> int:
        """Run one step. `arrays` in the order of the core's signature; returns the step's number."""
        self._native.forward(program, *arrays, tap_rows)
        return self._native.step

    @property
    def step(self) -> int:
        """The number of the last forward: what is left of it is valid until the next."""
        return self._native.step

    def logits(self) -> F32:
        """[R, V] of the last step."""
        return self._native.logits()

    def kept(self, tap: int) -> F32:
        """What the last step's tap saw, rows one after another."""
        return self._native.kept(tap)

    def sample(self, *arrays: NDArray[Any]) -> tuple[I32, F32, I32, F32]:
        """Draw from the last step's logits; arrays and results in the order of `SamplePlan` and `Sampled`."""
        return self._native.sample(*arrays)

    def score(self, rows: I32, targets: I32) -> F32:
        """Raw log-probability of targets[i] at logit row rows[i] of the last step."""
        return self._native.score(rows, targets)

    def copy_blocks(self, pairs: I32) -> None:
        self._native.copy_blocks(pairs)

    def read_blocks(self, blocks: I32) -> U8:
        return self._native.read_blocks(blocks)

    def write_blocks(self, blocks: I32, data: U8) -> None:
        self._native.write_blocks(blocks, data)

    def _operation(self, op: Operation) -> tuple[Any, ...]:
        """What the core reads: ids for names, -1 for nothing."""
        table = self._vectors if op.kind in _NORMS else self._matrices
        weights = [table[f"{name}.weight"] for name in op.names]
        biased = op.kind in ("linear", "layer_norm")
        biases = [self._vectors.get(f"{name}.bias", -1) for name in op.names] if biased else []
        residuals = [-1 if buffer is None else buffer for buffer in op.residuals]
        reads, writes = list(op.reads), list(op.writes)
        settings = op.rope, op.layer, op.tap, op.window, op.value
        return op.kind, reads, writes, weights, biases, residuals, *settings


def make_pool(threads: int) -> ThreadPool:
    """Compute threads that several models may share."""
    return ThreadPool(threads)


def default_isa() -> str:
    """The instruction set in use: OPENHERD_ISA, else the fastest this machine runs.

    Raises `OptionError` when the variable names a set that this build or this machine does not have.
    """
    try:
        return _native.default_isa()
    except ValueError as why:
        raise OptionError(f"OPENHERD_ISA: {why}") from None


def packed_bytes(tensor: Tensor) -> int:
    """Native memory that a tensor takes."""
    if len(tensor.shape) != 2:
        return 4 * int(np.prod(tensor.shape, dtype=np.int64))
    return _native.packed_bytes(tensor.type.ggml_id, *tensor.shape)


def kv_block_bytes(config: ModelConfig, *, half: bool) -> int:
    """Bytes of one block of the KV cache, all layers."""
    return _native.kv_block_bytes(config.n_layers, config.n_kv_heads, config.head_dim, half)


def cut_records_bytes(config: ModelConfig, max_context: int, threads: int) -> int:
    """Memory for attention over one long sequence that threads share."""
    return _native.cut_records_bytes(config.n_heads, config.n_kv_heads, config.head_dim, max_context, threads)


def linear_scratch_bytes(weights: Iterable[Tensor]) -> int:
    """Memory of each thread for linear maps of these weights."""
    widest = max((w.shape[1] for w in weights if len(w.shape) == 2 and w.type.name not in PLAIN_TYPES), default=0)
    return _native.linear_scratch_bytes(widest)


def _is_mapped(rows: U8) -> bool:
    """Whether the rows are a view of a mapped file, so that their pages can be given back and read again."""
    base: object = rows
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap)


def _file_tensor(tensor: Tensor) -> tuple[int, U8, int]:
    return tensor.type.ggml_id, np.ascontiguousarray(tensor.rows()), tensor.shape[-1]
