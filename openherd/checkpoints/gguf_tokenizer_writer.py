"""A TokenizerSpec as the keys under `tokenizer.ggml.`, so that reading them gives the spec back."""

from __future__ import annotations

import numpy as np

from openherd.checkpoints.gguf_tokenizer import NO_TOKEN
from openherd.checkpoints.gguf_writer import KeyValue
from openherd.checkpoints.tokenizer_rules import rule_keys
from openherd.tokenizers.spec import TokenizerSpec

_MODELS = {"bpe": "gpt2", "spm": "llama"}
_P = "tokenizer.ggml."


def tokenizer_keys(spec: TokenizerSpec, chat_template: str | None) -> dict[str, KeyValue]:
    """Rules that GGUF has no key for stand under keys of our own; see `tokenizer_rules`."""
    keys: dict[str, KeyValue] = {_P + "model": _MODELS[spec.kind]}
    if spec.kind == "bpe":
        keys[_P + "pre"] = spec.pre
    else:
        keys[_P + "pre"] = "default"
    keys[_P + "tokens"] = list(spec.tokens)
    keys[_P + "token_type"] = np.array(list(spec.token_types), np.int32)
    if spec.kind == "bpe":
        keys[_P + "merges"] = list(spec.merges)
    else:
        keys[_P + "scores"] = np.array(list(spec.scores), np.float32)
    for name, token in (
        ("bos", spec.bos_id),
        ("eos", spec.eos_id),
        ("eot", spec.eot_id),
        ("eom", spec.eom_id),
        ("unknown", spec.unk_id),
        ("padding", spec.pad_id),
    ):
        if token is not None:
            keys[f"{_P}{name}_token_id"] = token
        elif spec.kind == "spm" and name in ("bos", "eos", "unknown"):  # which have ids where nothing is said
            keys[f"{_P}{name}_token_id"] = NO_TOKEN
    keys[_P + "add_bos_token"] = spec.add_bos
    keys[_P + "add_eos_token"] = spec.add_eos
    if spec.kind == "spm":
        keys[_P + "add_space_prefix"] = spec.add_space_prefix
    keys |= rule_keys(spec)
    if chat_template is not None:
        keys["tokenizer.chat_template"] = chat_template
    return keys
