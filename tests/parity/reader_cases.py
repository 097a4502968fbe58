"""The small checkpoints of `tests/parity/readers`: one Llama of each generation, in the layouts that people meet.

Every folder is a whole model that `make_reader_cases.py` wrote with torch, transformers, sentencepiece and tokenizers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.parity.random_llama import RandomUniform
from tests.parity.token_strings import token_strings

FOLDER = Path(__file__).parent / "readers"
SEED = 20261126
VOCAB = 400
PROMPT_LENGTHS = (37, 21)
RECORDED = (0, 16, -1)  # positions whose logits are recorded

# Folder: the expected logits it must give (folders of one model share them).
MODELS = {
    "llama1-meta": "llama1",
    "llama1-meta-2": "llama1",
    "llama2-meta": "llama2",
    "llama2-meta-2": "llama2",
    "llama2-hf-bin": "llama2",
    "llama3-meta": "llama3",
    "llama3-meta-2": "llama3",
    "llama3-hf": "llama3",
}
ADDED = {"llama2-hf-legacy": 2, "llama2-hf-new": 2}  # tokens beyond the vocabulary of the models


def prompts() -> list[NDArray[np.int32]]:
    """The two prompts of every model."""
    uniform = RandomUniform(SEED + 1)
    return [uniform.ids(n, VOCAB) for n in PROMPT_LENGTHS]


def strings() -> list[str]:
    """Three thousand strings, a quarter of each kind of `token_strings`."""
    return token_strings()[::4]
