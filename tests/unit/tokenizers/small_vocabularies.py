"""Small vocabularies made in the test: every byte, a few merges, a few special tokens."""

from __future__ import annotations

from dataclasses import replace

from openherd.tokenizers.byte_level import BYTE_OF
from openherd.tokenizers.spec import TokenizerSpec, TokenType

BPE_MERGES = ("h e", "l l", "he ll", "hell o", "Ġ w", "o r", "Ġw or", "< |", "| >", "e n", "en d", "<| end", "<|end |>")
BPE_SPECIAL = {"<s>": TokenType.CONTROL, "<|end|>": TokenType.CONTROL, "<tab>": TokenType.USER_DEFINED}


def bpe_spec(pre: str = "gpt-2") -> TokenizerSpec:
    """Special tokens 0..2, then the 256 bytes, then what the merges make (one of which spells a control token)."""
    tokens = [*BPE_SPECIAL, *BYTE_OF]
    tokens += [made for merge in BPE_MERGES if (made := merge.replace(" ", "")) not in tokens]
    types = [BPE_SPECIAL.get(token, TokenType.NORMAL) for token in tokens]
    return TokenizerSpec(
        kind="bpe",
        pre=pre,
        tokens=tokens,
        token_types=types,
        merges=BPE_MERGES,
        bos_id=0,
        eos_id=1,
        stop_ids=frozenset({1}),
    )


SPM_PIECES = {"▁": -9.0, "a": -10.0, "b": -11.0, "s": -12.0, ">": -13.0, "<": -14.0, "/": -15.0, "▁a": -1.0, "ab": -2.0}
SPM_PIECES |= {"▁ab": -3.0, "s>": -4.0, "</": -5.0, "é": -16.0}


def spm_spec(*, add_space_prefix: bool = True) -> TokenizerSpec:
    """<unk> <s> </s>, the 256 byte pieces, then SPM_PIECES."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *SPM_PIECES]
    types = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    types += [TokenType.BYTE] * 256 + [TokenType.NORMAL] * len(SPM_PIECES)
    spec = TokenizerSpec(
        kind="spm",
        pre="",
        tokens=tokens,
        token_types=types,
        scores=[0.0] * 259 + list(SPM_PIECES.values()),
        bos_id=1,
        eos_id=2,
        unk_id=0,
        add_bos=True,
        stop_ids=frozenset({2}),
    )
    return replace(spec, add_space_prefix=add_space_prefix)


def pieces(spec: TokenizerSpec, ids: list[int]) -> list[str]:
    return [spec.tokens[i] for i in ids]
