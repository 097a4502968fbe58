"""The small random models of every family: their weights and prompts, made again wherever they are needed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.parity.random_llama import RandomUniform

F32 = NDArray[np.float32]
FAMILY_FILE = Path(__file__).with_name("family_parity.json")
EXPECTED_FILE = Path(__file__).with_name("family_parity.npz")
PROMPT_LENGTHS = (150, 21)  # the first over two borders of attention's tiles; neither ends on a block's end
RECORDED = (0, 15, 16, -1)


def families() -> dict[str, dict[str, Any]]:
    """Of each case: config.json and the shapes of its tensors, under Hugging Face's names."""
    cases: dict[str, dict[str, Any]] = json.loads(FAMILY_FILE.read_text())
    return cases


def prompts(vocab_size: int) -> list[NDArray[np.int32]]:
    uniform = RandomUniform(7)
    return [uniform.ids(n, vocab_size) for n in PROMPT_LENGTHS]


def family_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, F32]:
    """Numbers for each tensor from its name alone, of a size that keeps activations near 1."""
    return {name: _values(name, tuple(shape)) for name, shape in shapes.items()}


def _values(name: str, shape: tuple[int, ...]) -> F32:
    uniform = RandomUniform(zlib.crc32(name.encode()))
    if name.endswith(".bias"):
        return uniform.array(shape, deviation=0.2)
    if len(shape) == 1:  # a norm's weight
        return uniform.array(shape, mean=1.0, deviation=0.1)
    if any(part in name for part in ("embed_tokens", "word_embeddings", "wte")):
        return uniform.array(shape)
    return uniform.array(shape, deviation=1.5 / np.sqrt(shape[-1]))
