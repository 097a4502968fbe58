"""The keys under `tokenizer.ggml.` as a TokenizerSpec. The vocabulary is not decoded here.

Defaults that a file leaves out are llama.cpp's, because files are written to work with it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from openherd.checkpoints.end_tokens import END_OF_MESSAGE, end_of_turn, stop_ids
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.string_array import StringArray
from openherd.checkpoints.tokenizer_rules import with_rules
from openherd.errors import FormatError, UnsupportedError
from openherd.tokenizers.spec import TokenizerSpec, TokenType, ids_of_types

KINDS: dict[str, Literal["bpe", "spm"]] = {"gpt2": "bpe", "llama": "spm"}

# Byte-level BPE adds no beginning-of-text token unless the file says so, except with these pre-tokenizers.
PRE_ADDS_BOS = frozenset(
    {"llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken", "chameleon"}
)

NO_TOKEN = 2**32 - 1
_P = "tokenizer.ggml."


def read_tokenizer(keys: Keys, vocab_size: int) -> TokenizerSpec:
    """The tokenizer of a model with `vocab_size` embeddings.

    Raises UnsupportedError for a tokenizer model that openherd does not build, FormatError for a vocabulary of
    another size, ids outside of it, or keys of a wrong type.
    """
    model = keys.text(_P + "model", "none")
    if model not in KINDS:
        built = " and ".join(map(repr, KINDS))
        shown = keys.shown(_P + "model")
        raise UnsupportedError(f"{keys.path}: {_P}model is {shown}; openherd builds {built} tokenizers")
    kind = KINDS[model]
    bpe = kind == "bpe"
    pre = keys.text(_P + "pre", "default") if bpe else ""
    tokens = keys.strings(_P + "tokens")
    if len(tokens) != vocab_size:
        raise FormatError(f"{keys.path}: {len(tokens)} tokens do not fit an embedding of {vocab_size} rows")
    types = _token_types(keys, vocab_size)
    by_name = _special_by_name(tokens, types)
    eos_id = _id(keys, "eos", vocab_size, None if bpe else 2)
    eot_id = _id(keys, "eot", vocab_size, end_of_turn(by_name))
    eom_id = _id(keys, "eom", vocab_size, by_name.get(END_OF_MESSAGE))
    spec = TokenizerSpec(
        kind=kind,
        pre=pre,
        tokens=tokens,
        token_types=types,
        merges=keys.strings(_P + "merges") if bpe else (),
        scores=() if bpe else keys.numbers(_P + "scores", "f", vocab_size).tolist(),
        bos_id=_id(keys, "bos", vocab_size, None if bpe else 1),
        eos_id=eos_id,
        eot_id=eot_id,
        eom_id=eom_id,
        unk_id=_id(keys, "unknown", vocab_size, None if bpe else 0),
        pad_id=_id(keys, "padding", vocab_size, None),
        add_bos=keys.truth(_P + "add_bos_token", not bpe or pre in PRE_ADDS_BOS),
        add_eos=keys.truth(_P + "add_eos_token", False),
        add_space_prefix=keys.truth(_P + "add_space_prefix", not bpe),
        stop_ids=stop_ids(by_name, eos_id, eot_id, eom_id),
    )
    return with_rules(keys, spec)


def _token_types(keys: Keys, vocab_size: int) -> bytes:
    """The type of each token, a byte for each; without the key every token is a normal one."""
    key = _P + "token_type"
    if key not in keys:
        return bytes([TokenType.NORMAL]) * vocab_size
    types = keys.numbers(key, "iu", vocab_size)
    if types.min() < 0 or types.max() > max(TokenType):
        raise FormatError(f"{keys.path}: {key} has values outside 0 to {max(TokenType)}")
    return types.astype(np.uint8).tobytes()


def _special_by_name(tokens: StringArray, types: bytes) -> dict[str, int]:
    """Ids of control and user-defined tokens by their text: the few strings that are decoded to open a file."""
    special = ids_of_types(types, TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN)
    return {tokens[i]: i for i in special}


def _id(keys: Keys, name: str, vocab_size: int, default: int | None) -> int | None:
    """The id under `{name}_token_id`; 2^32 - 1, an unsigned -1, says that there is none."""
    key = f"{_P}{name}_token_id"
    if key not in keys:
        return default if default is None or default < vocab_size else None
    if keys[key] == NO_TOKEN:
        return None
    return keys.whole(key, most=vocab_size - 1)
