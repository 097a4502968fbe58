"""A float32 model to quantise, made of a quantised one: for where the original float weights are not at hand.

    python -m bench.dithered_model MODEL.gguf OUT.gguf [--widen]

Dequantised weights would be an unfair source: they lie on the grid of the type they had, which the same type finds
again without error. So every weight of a 4- or 5-bit block is moved by a random amount, even over the step of its
block's grid: the weight that was rounded there lay in that interval, and no type's grid is favoured. What comes out is
about as far from the quantised model as the original is, and is itself the model that is quantised and measured
against; what the quantised one answered plays no part. Finer types (Q6_K, Q8_0, floats) are taken as they are.

--widen makes a Llama of 9 heads of 64 (SmolLM2-135M) one of 12: columns and rows of zeros are added, so that every row
is whole blocks of 256 and the k-quants can be measured on trained weights. The wider model computes the same logits.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.gguf_writer import KeyValue, PlannedTensor, write_gguf
from openherd.quant import block32
from openherd.quant.dequantize import dequantize
from openherd.quant.types import BLOCK_TYPES
from openherd.workshop.quantize.source import Source, open_source

F32 = NDArray[np.float32]
HEADS, KV_HEADS, HEAD_DIM = 12, 4, 64  # of the widened model
WIDE = HEADS * HEAD_DIM
WIDE_ROWS = {
    "attn_q": WIDE,
    "attn_k": KV_HEADS * HEAD_DIM,
    "attn_v": KV_HEADS * HEAD_DIM,
    "attn_output": WIDE,
    "ffn_down": WIDE,
}


def write_dithered(model: Path, out: Path, *, widen: bool = False, seed: int = 0) -> None:
    source = open_source(model)
    tensors = [_planned(tensor, source, np.random.PCG64([seed, i]), widen) for i, tensor in enumerate(source.tensors)]
    keys: dict[str, KeyValue] = {**source.keys, "general.file_type": 0}
    write_gguf(out, keys | _wide_keys(source) if widen else keys, tensors)


def _planned(tensor: PlannedTensor, source: Source, bits: np.random.PCG64, widen: bool) -> PlannedTensor:
    shape = _wide_shape(tensor) if widen else tensor.shape

    def data() -> list[NDArray[np.uint8]]:
        values = dithered(tensor, np.random.Generator(bits))
        if widen:
            values = _widened(tensor.name, values, shape)
        return [np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8)]

    return PlannedTensor(tensor.name, shape, BLOCK_TYPES["F32"], data)


def dithered(tensor: PlannedTensor, random: np.random.Generator) -> F32:
    rows = np.concatenate(list(tensor.chunks()))
    values = dequantize(rows, tensor.type).reshape(tensor.shape)
    if tensor.type.name not in ("Q4_0", "Q4_1", "Q5_0", "Q5_1"):
        return values
    blocks = rows.reshape(-1).view(getattr(block32, tensor.type.name))
    within = random.random((len(blocks), 32), np.float32) - np.float32(0.5)
    moved: F32 = values.reshape(-1, 32) + within * block32.scale(blocks["d"])
    return moved.reshape(tensor.shape)


def _wide_shape(tensor: PlannedTensor) -> tuple[int, ...]:
    if len(tensor.shape) == 1:
        return (WIDE,)
    part = tensor.name.split(".")[-2]
    return WIDE_ROWS.get(part, tensor.shape[0]), tensor.shape[1] if part == "ffn_down" else WIDE


def _widened(name: str, values: F32, shape: tuple[int, ...]) -> F32:
    wide = np.zeros(shape, np.float32)
    wide[tuple(slice(size) for size in values.shape)] = values
    if values.ndim == 1:  # a norm divides by the root of the mean over more values, of which the new ones are 0
        wide *= np.float32(math.sqrt(len(values) / WIDE))
    return wide


def _wide_keys(source: Source) -> Mapping[str, KeyValue]:
    config = source.checkpoint.config
    if (config.n_heads, config.n_kv_heads, config.head_dim) != (9, 3, HEAD_DIM):
        raise SystemExit("--widen is made for SmolLM2-135M")
    return {
        "llama.embedding_length": WIDE,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.attention.layer_norm_rms_epsilon": config.norm_eps * config.dim / WIDE,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--widen", action="store_true")
    options = parser.parse_args()
    write_dithered(options.model, options.out, widen=options.widen)


if __name__ == "__main__":
    main()
