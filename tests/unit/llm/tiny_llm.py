"""An LLM of random weights over a small byte-level vocabulary, on the oracle unless another backend is named."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from openherd.config import ModelConfig
from openherd.engine.backends import make_backend
from openherd.engine.engine import Engine
from openherd.llm import LLM
from openherd.llm.loading import LoadedModel
from openherd.messages import Completion
from openherd.options import EngineOptions, SamplingParams
from openherd.tokenizers import Tokenizer
from tests.parity.random_llama import float_source, random_weights
from tests.unit.tokenizers.small_vocabularies import bpe_spec

SPEC = bpe_spec()
CONFIG = ModelConfig(
    family="llama",
    dim=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    ffn_dim=64,
    vocab_size=len(SPEC.tokens),
    max_seq_len=512,
)
PROMPTS = ["hello", "world, and then", "h", "once upon a time there was", "hello hello hello"]
TEMPLATE = "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}<|end|>{% endfor %}<s>assistant\n"


def tiny_llm(
    *,
    backend: str = "reference",
    context: int = 512,
    max_seqs: int = 16,
    stop_ids: Iterable[int] | None = None,
    seed: int = 3,
) -> LLM:
    """`stop_ids` None: the vocabulary's own end token."""
    stops = SPEC.stop_ids if stop_ids is None else frozenset(stop_ids)
    tokenizer = Tokenizer(replace(SPEC, stop_ids=stops))
    engine = Engine(
        make_backend(backend, 2),
        CONFIG,
        float_source(random_weights(CONFIG, seed=seed)),
        options=EngineOptions(context=context, max_seqs=max_seqs, max_batch_tokens=64, kv_memory=64 << 20),
        stop_ids=stops,
    )
    return LLM(LoadedModel("tiny", Path("tiny.gguf"), CONFIG, tokenizer, engine, {}, TEMPLATE, 0.0))


def num_used_blocks(llm: LLM) -> int:
    """Blocks that no finished or ended sequence holds any more are free, cached or not."""
    return llm.stats.num_total_blocks - llm.stats.num_free_blocks


def params(**changes: object) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 24, "temperature": 1.0, "top_p": 1.0, "seed": 11, **changes})  # type: ignore[arg-type]


def bits(completion: Completion) -> tuple[object, ...]:
    return completion.text, completion.token_ids, completion.logprobs, completion.finish_reason, completion.stop_match
