"""Folders of tokens in which every token says where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from openherd.train.encoding import Encoded
from openherd.train.token_file import Source, TokenFolder, TokenWriter, open_tokens

VOCAB = 1 << 24
MOST = 1 << 10  # tokens of a document


def token(document: int, at: int) -> int:
    """Token number `at` of a document; no two are alike."""
    return document * MOST + at


def document(number: int, length: int, given: int = 1) -> Encoded:
    """`length` tokens, of which the first `given` are not learnt."""
    mask = np.ones(length, np.uint8)
    mask[:given] = 0
    return Encoded(np.arange(number * MOST, number * MOST + length, dtype=np.int32), mask)


def write_folder(
    path: Path,
    sources: Sequence[Sequence[Encoded]],
    weights: Sequence[float] | None = None,
    *,
    kind: Literal["documents", "preferences"] = "documents",
    tokenizer: str = "t",
) -> TokenFolder:
    with TokenWriter(path, kind, vocab_size=VOCAB, tokenizer=tokenizer, template=None) as writer:
        for number, documents in enumerate(sources):
            writer.begin(Source(f"{number}.txt", "0" * 64, weights[number] if weights else 1.0))
            step = 2 if kind == "preferences" else 1
            for first in range(0, len(documents), step):
                writer.add(list(documents[first : first + step]))
    return open_tokens(path)
