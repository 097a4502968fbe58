"""A tokenizer and a chat template for rows of training data: every byte, a few merges, ChatML-like markers."""

from __future__ import annotations

from dataclasses import replace

from openherd.tokenizers import ChatTemplate, Tokenizer
from tests.unit.tokenizers.small_vocabularies import bpe_spec

TEMPLATE = (
    "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
# Drops what an earlier turn thought, as templates of models that think aloud do.
FORGETFUL = (
    "{% for m in messages %}<s>{{ m.role }}\n"
    "{{ m.content if loop.last or m.role != 'assistant' else m.content.split('THOUGHT')[-1] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def tokenizer() -> Tokenizer:
    return Tokenizer(replace(bpe_spec(), add_bos=False))


def template(source: str = TEMPLATE) -> ChatTemplate:
    return ChatTemplate(source, bos_token="<s>", eos_token="<|end|>")
