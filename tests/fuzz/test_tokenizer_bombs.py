"""Texts made to be slow: time never grows with the square of the length, and what cannot fit is refused at once."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from openherd.errors import ContextLengthError
from openherd.tokenizers.byte_level import BYTE_OF
from openherd.tokenizers.spec import TokenizerSpec, TokenType
from openherd.tokenizers.tokenizer import Tokenizer
from tests.bounds import only_new_objects, within_cpu

MB = 10**6
# Per doubling: n log n is 2.1, and up to 2.9 where the merges' heap leaves the cache of a small machine; a square is 4.
GROWTH = 3.4
BOMBS = {"letter": "a", "space": " ", "digit": "7", "mark": "\u0301", "newline": "\n", "look-alike": "<|end|>"}


def _tokenizer(pre: str) -> Tokenizer:
    """Bytes, merges that double runs of each bomb's character, and a control token that text spells."""
    chars = [next(c for c, byte in BYTE_OF.items() if byte == ord(char)) for char in "a 7\n"]
    merges = [f"{char * n} {char * n}" for n in (1, 2, 4, 8) for char in chars]
    tokens = ["<|end|>", *BYTE_OF, *(merge.replace(" ", "") for merge in merges)]
    types = [TokenType.CONTROL] + [TokenType.NORMAL] * (len(tokens) - 1)
    return Tokenizer(
        TokenizerSpec(kind="bpe", pre=pre, tokens=tokens, token_types=types, merges=merges, stop_ids=frozenset({0}))
    )


def _spm_tokenizer() -> Tokenizer:
    runs = [char * n for n in (1, 2, 4, 8) for char in "a▁7\n"]
    tokens = ["<|end|>", *(f"<0x{byte:02X}>" for byte in range(256)), *runs]
    types = [TokenType.CONTROL] + [TokenType.BYTE] * 256 + [TokenType.NORMAL] * len(runs)
    scores = [0.0] * 257 + [-float(n) for n in range(len(runs))]
    spec = TokenizerSpec(kind="spm", pre="", tokens=tokens, token_types=types, scores=scores)
    return Tokenizer(replace(spec, stop_ids=frozenset({0})))


TOKENIZERS = {pre: _tokenizer(pre) for pre in ("smollm", "llama-bpe")} | {"spm": _spm_tokenizer()}


def _seconds(tokenizer: Tokenizer, text: str) -> float:
    def once() -> float:
        with only_new_objects():
            start = time.process_time()
            assert tokenizer.encode(text)
            return time.process_time() - start

    return min(once(), once(), once())


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_time_grows_far_slower_than_a_square(name: str, bomb: str) -> None:
    """Two doublings are measured together, which halves the noise of the allocator."""
    char = BOMBS[bomb]
    small, large = (char * (size // len(char.encode())) for size in (MB // 4, MB))
    assert _seconds(TOKENIZERS[name], large) <= GROWTH**2 * _seconds(TOKENIZERS[name], small)


def test_a_text_beyond_any_context_is_refused_without_a_context_to_compare() -> None:
    """Ten million spaces make the regular expressions panic, which Python cannot catch as an exception."""
    with pytest.raises(ContextLengthError, match="encode it in parts"):
        TOKENIZERS["llama-bpe"].encode(" " * 12_000_000)
    assert TOKENIZERS["llama-bpe"].encode(" " * 2**23)


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_cannot_fit_is_refused_before_any_work(name: str, bomb: str) -> None:
    text = BOMBS[bomb] * (8 * MB // len(BOMBS[bomb]))

    def refuse() -> None:
        with pytest.raises(ContextLengthError):
            TOKENIZERS[name].encode(text, max_tokens=4096)

    within_cpu(0.01, refuse)
