"""The native backend: the compiled core behind the `Backend` protocol.

The forward pass is recorded once for each set of taps, with and without adapters, and then runs as one native call a
step. Results do not depend on the number of threads, the batch or the chunking, so `numerics_id` names none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from openherd import __version__
from openherd.checkpoints.source import Adapter, TensorSource
from openherd.config import ModelConfig
from openherd.engine.model import forward
from openherd.engine.protocols import (
    BLOCK_LEN,
    F32,
    I32,
    KVSpec,
    Limits,
    MemoryPlan,
    Sampled,
    SamplePlan,
    Step,
    TapSite,
    TokenBatch,
)
from openherd.errors import EngineError, InputError
from openherd.kernels import native
from openherd.kernels.cores import compute_threads
from openherd.kernels.program import Form, Program, scratch_bytes
from openherd.kernels.recorder import record
from openherd.kernels.rope import for_context
from openherd.quant.types import PLAIN_TYPES

# Rises when a kernel's results change in any bit.
KERNEL_REVISION = 4

_plan_arrays = attrgetter(*(array.name for array in fields(SamplePlan)))


@dataclass(frozen=True, slots=True)
class NativeStep:
    """A finished forward: its number, by which a step that is no longer there is told."""

    number: int
    num_logit_rows: int
    tap_widths: tuple[int, ...]


@dataclass(slots=True)
class _Loaded:
    """What `load` leaves behind and `close` gives back."""

    config: ModelConfig
    weights: TensorSource
    model: native.NativeModel
    programs: dict[tuple[tuple[TapSite, ...], bool], tuple[int, tuple[int, ...]]] = field(default_factory=dict)


class NativeBackend:
    """`Backend` on the CPU. Not safe for several threads at once. `threads` None: see `compute_threads`."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = compute_threads(threads)
        self._isa = native.default_isa()
        self._pool: native.ThreadPool | None = native.make_pool(self.threads)
        self._loaded: _Loaded | None = None
        self.numerics_id = self._numerics_id("f16")

    def plan(self, config: ModelConfig, weights: TensorSource, kv: KVSpec, limits: Limits) -> MemoryPlan:
        program = _record(config, weights, (), adapted=False)
        return MemoryPlan(
            weights=sum(native.packed_bytes(weights[name]) for name in weights),
            scratch=scratch_bytes(program, limits.max_batch_tokens, limits.max_logit_rows)
            + native.cut_records_bytes(config, limits.max_context, self.threads)
            + self.threads * native.linear_scratch_bytes(weights[name] for name in weights),
            kv_block=native.kv_block_bytes(config, half=kv.dtype == "f16"),
        )

    def load(self, config: ModelConfig, weights: TensorSource, kv: KVSpec, limits: Limits, num_blocks: int) -> None:
        if kv.block_len != BLOCK_LEN:
            raise InputError(f"the native cache has blocks of {BLOCK_LEN} positions, not {kv.block_len}")
        sizes = native.Sizes(
            limits.max_context,
            limits.max_seqs,
            limits.max_batch_tokens,
            limits.max_logit_rows,
            num_blocks,
            kv_half=kv.dtype == "f16",
        )
        if self._pool is None:
            raise EngineError("the backend was closed: make a new one")
        config = for_context(config, limits.max_context)
        model = native.NativeModel(self._pool, self._isa, config, sizes)
        model.add_tensors(weights[name] for name in weights)
        self._loaded = _Loaded(config, weights, model)
        self._program((), adapted=False)
        self.numerics_id = self._numerics_id(kv.dtype)

    def load_adapter(self, adapter: Adapter) -> int:
        return self._open().model.add_adapter(adapter.scale, adapter.pairs)

    def forward(self, batch: TokenBatch) -> NativeStep:
        loaded = self._open()
        if len(batch.block_tables) != 1:
            raise EngineError(f"this model has one KV shape; the batch has tables for {len(batch.block_tables)}")
        sites = tuple(tap.site for tap in batch.taps)
        program, widths = self._program(sites, adapted=max(batch.adapters.tolist()) >= 0)
        number = loaded.model.forward(
            program,
            batch.token_ids,
            batch.positions,
            batch.seq_starts,
            batch.kv_lens,
            batch.block_tables[0],
            batch.adapters,
            batch.logit_rows,
            tap_rows=[tap.rows for tap in batch.taps],
        )
        return NativeStep(number, len(batch.logit_rows), widths)

    def sample(self, step: Step, plan: SamplePlan) -> Sampled:
        return Sampled(*self._of(step).sample(*_plan_arrays(plan)))

    def score(self, step: Step, rows: I32, targets: I32) -> F32:
        return self._of(step).score(rows, targets)

    def logits(self, step: Step) -> F32:
        return self._of(step).logits()

    def hidden(self, step: Step, tap: int) -> F32:
        model = self._of(step)
        assert isinstance(step, NativeStep)
        return model.kept(tap).reshape(-1, step.tap_widths[tap])

    def copy_blocks(self, group: int, pairs: I32) -> None:
        self._cache(group).copy_blocks(pairs)

    def read_blocks(self, group: int, blocks: I32) -> NDArray[np.uint8]:
        return self._cache(group).read_blocks(blocks)

    def write_blocks(self, group: int, blocks: I32, data: NDArray[np.uint8]) -> None:
        self._cache(group).write_blocks(blocks, data)

    def close(self) -> None:
        self._loaded = None
        self._pool = None

    def _numerics_id(self, kv_dtype: str) -> str:
        return f"openherd-{__version__}/native-{KERNEL_REVISION}/{self._isa}/kv-{kv_dtype}"

    def _program(self, sites: tuple[TapSite, ...], *, adapted: bool) -> tuple[int, tuple[int, ...]]:
        """The program for these taps and the width of what each keeps; recorded when first asked for."""
        loaded = self._open()
        key = sites, adapted
        if key not in loaded.programs:
            program = _record(loaded.config, loaded.weights, sites, adapted=adapted)
            widths = {op.tap: program.buffers[op.reads[0]].width for op in program.operations if op.kind == "keep"}
            number = loaded.model.add_program(program)
            loaded.programs[key] = number, tuple(widths[tap] for tap in range(len(sites)))
        return loaded.programs[key]

    def _open(self) -> _Loaded:
        if self._loaded is None:
            raise EngineError("the backend has no model: it was closed, or `load` was never called")
        return self._loaded

    def _of(self, step: Step) -> native.NativeModel:
        """The model, if `step` is its last forward."""
        model = self._open().model
        if not isinstance(step, NativeStep):
            raise EngineError("the step belongs to another backend")
        if step.number != model.step:
            raise EngineError("the step is gone: another forward has run since")
        return model

    def _cache(self, group: int) -> native.NativeModel:
        if group != 0:
            raise EngineError(f"KV group {group} does not exist: this model has one KV shape")
        return self._open().model


def _record(config: ModelConfig, weights: TensorSource, sites: tuple[TapSite, ...], *, adapted: bool) -> Program:
    def width_of(name: str) -> int:
        return weights[f"{name}.weight"].shape[0]

    def form_of(name: str) -> Form:
        return "f32" if weights[f"{name}.weight"].type.name in PLAIN_TYPES else "q8"

    try:
        return record(forward, config, width_of=width_of, form_of=form_of, taps=sites, adapted=adapted)
    except ValueError as error:
        raise EngineError(str(error)) from error
