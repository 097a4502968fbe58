"""Counters the engine keeps while it runs. Tests of a fault read them to prove that the fault fired."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class EngineStats:
    """Counters since the engine started (`num_*`) and gauges of now."""

    num_steps: int = 0
    num_prompt_tokens: int = 0  # computed, not found in the cache
    num_cached_tokens: int = 0  # prompt tokens found in the prefix cache or shared with a sibling
    num_generated_tokens: int = 0
    num_drafted_tokens: int = 0  # guessed by speculation and checked by a step
    num_accepted_tokens: int = 0  # of these, right and part of an answer
    num_finished: int = 0
    num_aborted: int = 0
    num_preemptions: int = 0
    num_split_prompts: int = 0  # prompts prefilled in more than one chunk
    num_evicted_blocks: int = 0  # cached blocks given to someone else
    num_forks: int = 0  # choices that share the prompt's blocks of a sibling
    step_s: float = 0.0  # seconds inside Engine.step
    backend_s: float = 0.0  # of these, inside the backend
    max_batch_seqs: int = 0  # most sequences in one step
    num_waiting: int = 0
    num_running: int = 0
    num_free_blocks: int = 0
    num_total_blocks: int = 0
