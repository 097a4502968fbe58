"""The tiny LLM with the templates of each tool format, and with markers that are control tokens or plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from openherd.engine.backends import make_backend
from openherd.engine.engine import Engine
from openherd.llm import LLM
from openherd.llm.loading import LoadedModel
from openherd.options import EngineOptions
from openherd.tokenizers import Tokenizer
from openherd.tokenizers.spec import TokenType
from tests.parity.random_llama import float_source, random_weights
from tests.unit.llm import tiny_llm
from tests.unit.llm.tiny_llm import SPEC, TEMPLATE

_CONTEXT = 4096  # a byte is a token here, and tools are long
CONFIG = replace(tiny_llm.CONFIG, max_seq_len=_CONTEXT)

_START = "{% if tools %}{{ tools | tojson }}{% endif %}" + TEMPLATE.removesuffix("<s>assistant\n")
TEMPLATES = {
    "fallback": TEMPLATE,
    "hermes": _START + '{#- <tool_call>{"name", "arguments"} #}<s>assistant\n',
    "mistral": _START + "{#- [TOOL_CALLS] #}<s>assistant\n",
    "llama-3": _START + '{#- <|start_header_id|> "parameters" #}<s>assistant\n',
    "thinking": _START + '{#- <tool_call> "arguments" </think> #}<s>assistant\n',
    "opened": _START + '{#- <tool_call> "arguments" </think> #}<s>assistant\n<think>\n',
}


def tool_llm(kind: str, *, control: Sequence[str] = (), backend: str = "native", seed: int = 3) -> LLM:
    """`control`: markers that take the place of tokens in the vocabulary."""
    tokens, types = list(SPEC.tokens), list(SPEC.token_types)
    free = [place for place in range(len(tokens) - 1, 0, -1) if types[place] == TokenType.NORMAL]
    for place, marker in zip(free, control, strict=False):
        tokens[place], types[place] = marker, int(TokenType.CONTROL)
    spec = replace(SPEC, tokens=tokens, token_types=bytes(types), merges=() if control else SPEC.merges)
    engine = Engine(
        make_backend(backend, 2),
        CONFIG,
        float_source(random_weights(CONFIG, seed=seed)),
        options=EngineOptions(context=_CONTEXT, max_seqs=16, max_batch_tokens=64, kv_memory=64 << 20),
        stop_ids=SPEC.stop_ids,
    )
    return LLM(LoadedModel("tiny", Path("tiny.gguf"), CONFIG, Tokenizer(spec), engine, {}, TEMPLATES[kind], 0.0))
