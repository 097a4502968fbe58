"""The small random models whose gradients transformers has recorded: what to feed them, and where that is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.parity.family_cases import F32, family_weights
from tests.parity.random_llama import RandomUniform

EXPECTED = Path(__file__).parents[1] / "expected"
CASES_FILE = EXPECTED / "transformers_gradients.json"
EXPECTED_FILE = EXPECTED / "transformers_gradients.npz"
VOCAB, ROWS, LENGTH = 29, 2, 22
SPECIAL = 3  # the lowest ids; transformers gives the embedding of padding no gradient


def cases() -> dict[str, dict[str, Any]]:
    """Of each case: config.json and the shapes of its tensors, under Hugging Face's names."""
    read: dict[str, dict[str, Any]] = json.loads(CASES_FILE.read_text())
    return read


def weights(case: dict[str, Any]) -> dict[str, F32]:
    """Numbers from names; embeddings so small that logits stay near 1 where the two are tied, Gemma's norms (which
    multiply by 1 + w) near 0."""
    values = family_weights(case["shapes"])
    gemma = case["config"]["model_type"].startswith("gemma")
    for name, w in values.items():
        if any(part in name for part in ("embed_tokens", "word_embeddings", "wte")):
            w *= 0.25
        elif gemma and w.ndim == 1:
            w -= 1
    return values


def tokens() -> NDArray[np.int64]:
    """[ROWS, LENGTH + 1]: every token but a row's first is a target."""
    ids = SPECIAL + RandomUniform(23).ids(ROWS * (LENGTH + 1), VOCAB - SPECIAL)
    return ids.reshape(ROWS, LENGTH + 1).astype(np.int64)
