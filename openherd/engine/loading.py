"""Puts a model on a backend: the limits of a step, the plan of the KV cache, the load itself."""

from __future__ import annotations

from dataclasses import replace

from openherd.checkpoints.source import TensorSource
from openherd.config import ModelConfig
from openherd.engine.memory import KVBounds, KVPlan, bound_kv, plan_kv
from openherd.engine.protocols import Backend, KVSpec, Limits, MemoryPlan
from openherd.options import EngineOptions

# Prompt rows that a step scores (`prompt_logprobs`): enough to use the head's weights well, and 64 rows of logits of a
# vocabulary of 128k are 32 MiB.
MAX_SCORE_ROWS = 64


def load_on(
    backend: Backend, config: ModelConfig, weights: TensorSource, options: EngineOptions
) -> tuple[KVPlan, Limits]:
    """Load the model. Raises `OptionError` and `CapacityError` as `plan_kv` does, before anything is loaded."""
    kv = KVSpec(options.kv_dtype)
    limits = _limits(config, options)
    plan = plan_kv(
        backend.plan(config, weights, kv, limits),
        kv.block_len,
        context=options.context,
        max_context=config.max_seq_len,
        max_seqs=limits.max_seqs,
        kv_memory=options.kv_memory,
    )
    limits = replace(limits, max_context=plan.context)
    backend.load(config, weights, kv, limits, plan.num_blocks)
    return plan, limits


def memory_of(
    backend: Backend, config: ModelConfig, weights: TensorSource, options: EngineOptions
) -> tuple[MemoryPlan, KVBounds]:
    """What `load_on` would take, without loading: the fixed part, and how small and large the KV cache may be."""
    kv = KVSpec(options.kv_dtype)
    limits = _limits(config, options)
    memory = backend.plan(config, weights, kv, limits)
    bounds = bound_kv(
        memory.kv_block,
        kv.block_len,
        context=options.context,
        max_context=config.max_seq_len,
        max_seqs=limits.max_seqs,
    )
    return memory, bounds


def _limits(config: ModelConfig, options: EngineOptions) -> Limits:
    # A row of the batch for each running sequence, so that every step advances every decode.
    max_seqs = min(options.max_seqs, options.max_batch_tokens)
    return Limits(
        max_context=options.context or config.max_seq_len,
        max_seqs=max_seqs,
        max_batch_tokens=options.max_batch_tokens,
        max_logit_rows=max_seqs + MAX_SCORE_ROWS,
    )
