"""The oracle as a backend: the whole of `Backend` in NumPy, for tests and for `backend = "reference"`.

Every row is computed by itself (see `kernels/reference.py`), so the engine's promise of equal bits under any load can
be tested on it. Weights are dequantised from the file's raw blocks to float64 and kept: eight bytes a weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.source import Adapter, Tensor, TensorSource
from openherd.config import ModelConfig
from openherd.engine.model import forward
from openherd.engine.protocols import (
    F32,
    I32,
    KVSpec,
    Limits,
    MemoryPlan,
    Sampled,
    SamplePlan,
    Step,
    TokenBatch,
)
from openherd.errors import EngineError
from openherd.kernels.reference import F64, KVCache, LowRank, Reference
from openherd.kernels.reference_sampler import Draw, draw_token, log_softmax
from openherd.kernels.rope import for_context
from openherd.quant.dequantize import dequantize

_KV_DTYPES: dict[str, type[np.floating]] = {"f16": np.float16, "f32": np.float32}


@dataclass(frozen=True, slots=True)
class ReferenceStep:
    """Logits [R, V] and the activations of each tap."""

    logits: F32
    tapped: tuple[F32, ...]

    @property
    def num_logit_rows(self) -> int:
        return len(self.logits)


@dataclass(slots=True)
class _Loaded:
    """What `load` leaves behind and `close` gives back."""

    config: ModelConfig
    weights: TensorSource
    cache: KVCache
    values: dict[str, F64]
    adapters: dict[int, dict[str, LowRank]]

    def weight(self, name: str) -> F64:
        """A weight by its full name, dequantised when first asked for."""
        if name not in self.values:
            self.values[name] = float_values(self.weights[name])
        return self.values[name]


class ReferenceBackend:
    """`Backend` in NumPy. Not safe for several threads at once, like every backend."""

    def __init__(self) -> None:
        self.numerics_id = f"reference/numpy-{np.__version__}"
        self._loaded: _Loaded | None = None

    def plan(self, config: ModelConfig, weights: TensorSource, kv: KVSpec, limits: Limits) -> MemoryPlan:
        weight_bytes = sum(8 * math.prod(weights[name].shape) for name in weights)
        widest = max(config.vocab_size, config.ffn_dim, config.q_dim)
        rows = max(limits.max_batch_tokens, limits.max_logit_rows)
        itemsize = np.dtype(_KV_DTYPES[kv.dtype]).itemsize
        kv_block = 2 * config.n_layers * kv.block_len * config.kv_dim * itemsize
        return MemoryPlan(weights=weight_bytes, scratch=8 * rows * widest, kv_block=kv_block)

    def load(self, config: ModelConfig, weights: TensorSource, kv: KVSpec, limits: Limits, num_blocks: int) -> None:
        config = for_context(config, limits.max_context)  # nothing is preallocated by the limits
        shape = (num_blocks, config.n_layers, 2, kv.block_len, config.n_kv_heads, config.head_dim)
        cache = np.zeros(shape, _KV_DTYPES[kv.dtype])
        self._loaded = _Loaded(config, weights, cache, values={}, adapters={})
        self.numerics_id = f"reference/numpy-{np.__version__}/kv-{kv.dtype}"

    def load_adapter(self, adapter: Adapter) -> int:
        adapters = self._open().adapters
        adapter_id = len(adapters)
        adapters[adapter_id] = {
            name: LowRank(float_values(pair.a), float_values(pair.b), adapter.scale)
            for name, pair in adapter.pairs.items()
        }
        return adapter_id

    def forward(self, batch: TokenBatch) -> ReferenceStep:
        model = self._open()
        ops = Reference(
            model.config,
            model.weight,
            model.cache,
            batch,
            adapters=model.adapters,
            tap_rows=[(*tap.site, tap.rows) for tap in batch.taps],
        )
        logits: F32 = forward(ops, model.config)
        missing = [tap.site for i, tap in enumerate(batch.taps) if i not in ops.tapped]
        if missing:
            raise EngineError(f"the model has no tap site {missing[0]}")
        return ReferenceStep(logits, tuple(ops.tapped[i] for i in range(len(batch.taps))))

    def sample(self, step: Step, plan: SamplePlan) -> Sampled:
        logits = self.logits(step)
        n = len(plan.rows)
        num_top = int(plan.num_top.max(initial=0))
        sampled = Sampled(
            token_ids=np.array([draw_token(logits[plan.rows[i]], draw_of(plan, i)) for i in range(n)], np.int32),
            logprobs=np.zeros(n, np.float32),
            top_ids=np.full((n, num_top), -1, np.int32),
            top_logprobs=np.zeros((n, num_top), np.float32),
        )
        for i in np.flatnonzero((plan.num_top >= 0) & (sampled.token_ids >= 0)):
            logprobs = log_softmax(logits[plan.rows[i]])
            best = np.lexsort((np.arange(len(logprobs)), -logits[plan.rows[i]]))[: plan.num_top[i]]
            sampled.logprobs[i] = logprobs[sampled.token_ids[i]]
            sampled.top_ids[i, : len(best)] = best
            sampled.top_logprobs[i, : len(best)] = logprobs[best]
        return sampled

    def score(self, step: Step, rows: I32, targets: I32) -> F32:
        logits = self.logits(step)
        scores = [log_softmax(logits[row])[target] for row, target in zip(rows, targets, strict=True)]
        return np.array(scores, np.float32)

    def logits(self, step: Step) -> F32:
        return self._own(step).logits

    def hidden(self, step: Step, tap: int) -> F32:
        return self._own(step).tapped[tap]

    def copy_blocks(self, group: int, pairs: I32) -> None:
        cache = self._group(group)
        for source, target in pairs:
            cache[target] = cache[source]

    def read_blocks(self, group: int, blocks: I32) -> NDArray[np.uint8]:
        kept = np.ascontiguousarray(self._group(group)[blocks])
        return kept.view(np.uint8).reshape(len(blocks), -1)

    def write_blocks(self, group: int, blocks: I32, data: NDArray[np.uint8]) -> None:
        cache = self._group(group)
        cache[blocks] = np.ascontiguousarray(data).view(cache.dtype).reshape(len(blocks), *cache.shape[1:])

    def close(self) -> None:
        self._loaded = None

    def _open(self) -> _Loaded:
        if self._loaded is None:
            raise EngineError("the backend has no model: it was closed, or `load` was never called")
        return self._loaded

    def _own(self, step: Step) -> ReferenceStep:
        self._open()
        if not isinstance(step, ReferenceStep):
            raise EngineError("the step belongs to another backend")
        return step

    def _group(self, group: int) -> KVCache:
        if group != 0:
            raise EngineError(f"KV group {group} does not exist: this model has one KV shape")
        return self._open().cache


def float_values(tensor: Tensor) -> F64:
    """A tensor's values by the executable specification of its block type: [*shape] float64."""
    return dequantize(tensor.rows(), tensor.type).reshape(tensor.shape).astype(np.float64)


def draw_of(plan: SamplePlan, i: int) -> Draw:
    """The plan's i-th entry as the oracle's sampler takes it."""
    counted = slice(plan.count_starts[i], plan.count_starts[i + 1])
    biased = slice(plan.bias_starts[i], plan.bias_starts[i + 1])
    return Draw(
        temperature=float(plan.temperature[i]),
        top_k=int(plan.top_k[i]),
        top_p=float(plan.top_p[i]),
        min_p=float(plan.min_p[i]),
        repetition_penalty=float(plan.repetition_penalty[i]),
        presence_penalty=float(plan.presence_penalty[i]),
        frequency_penalty=float(plan.frequency_penalty[i]),
        key=(int(plan.keys[i, 0]), int(plan.keys[i, 1])),
        count_ids=plan.count_ids[counted],
        counts=plan.counts[counted],
        bias_ids=plan.bias_ids[biased],
        bias_values=plan.bias_values[biased],
        mask=plan.masks[plan.mask_rows[i]] if plan.mask_rows[i] >= 0 else None,
        dense=plan.dense[plan.dense_rows[i]] if plan.dense_rows[i] >= 0 else None,
    )
