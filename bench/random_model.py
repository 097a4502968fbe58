"""A random-weight Llama of Llama-3.2-1B's dimensions as a GGUF file, to measure a larger shape without a download.

    python -m bench.random_model OUT.gguf [--type Q4_0 | Q4_K]

Any bits are a valid block once its scales are finite, so codes are random words and only scales are chosen: values
have mean 0 and a size that keeps activations near 1 from layer to layer. The mixtures are llama.cpp's: the embedding,
which is also the head, is Q6_K, and with Q4_K (its Q4_K_M) so are half of the v_proj and down_proj. The text is noise,
the speed a trained model's: no kernel's work depends on the numbers.

The vocabulary is byte-level BPE of Llama 3's size: 256 bytes, merges of small letters to words of up to four, and 256
control tokens under Llama 3's names. The same arguments give the same file, byte for byte. Tensors are made and written
one at a time; the largest takes 215 MB.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice, product
from pathlib import Path
from string import ascii_lowercase

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from numpy.typing import NDArray

from openherd.config import ModelConfig, RopeScaling
from openherd.kernels.rope import inverse_frequencies
from openherd.quant.dequantize import dequantize
from openherd.quant.types import BLOCK_TYPES, BlockType

U8 = NDArray[np.uint8]

LLAMA_3_2_1B = ModelConfig(
    family="llama",
    dim=2048,
    n_layers=16,
    n_heads=32,
    n_kv_heads=8,
    head_dim=64,
    ffn_dim=8192,
    vocab_size=128256,
    max_seq_len=131072,
    norm_eps=1e-5,
    rope_theta=500000.0,
    rope_scaling=RopeScaling("llama3", factor=32.0, original_max_seq_len=8192),
    tied_embeddings=True,
)

FILE_TYPES = {"Q4_0": 2, "Q4_K": 15}  # llama.cpp's names of the mixtures: MOSTLY_Q4_0, MOSTLY_Q4_K_M
SCALE_AT = {"Q4_0": 0, "Q4_K": 0, "Q6_K": 208}  # a block's float16 scale
NUM_CONTROL = 256
CONTROL_NAMES = {
    0: "begin_of_text",
    1: "end_of_text",
    6: "start_header_id",
    7: "end_header_id",
    8: "eom_id",
    9: "eot_id",
}
EMBEDDING_DEVIATION = 0.03  # the head is the same matrix: logits spread by 0.03 * sqrt(2048) = 1.4
WEIGHT_GAIN = 1.5  # of a linear map: attention is then neither flat nor one-hot
SAMPLE_BLOCKS = 4096  # their deviation stands for a tensor's, to within 1 %


def write_model(path: Path, type_name: str, *, config: ModelConfig = LLAMA_3_2_1B, seed: int = 0) -> None:
    """Write the file; `type_name` is a key of FILE_TYPES."""
    writer = GGUFWriter(path, "llama")
    _add_config(writer, config, FILE_TYPES[type_name])
    _add_tokenizer(writer, config.vocab_size)
    tensors = list(tensor_types(config, type_name))
    for name, shape, block_type in tensors:
        _add_place(writer, name, shape, block_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    words = np.random.PCG64(seed)
    for name, shape, block_type in tensors:
        writer.write_tensor_data(_data(name, shape, block_type, config, words))
    writer.close()


def tensor_types(config: ModelConfig, type_name: str) -> Iterator[tuple[str, tuple[int, ...], BlockType]]:
    """Name, shape ([N, K] or [n]) and type of each tensor, in the order of the file."""
    c, f32 = config, BLOCK_TYPES["F32"]
    yield "token_embd.weight", (c.vocab_size, c.dim), BLOCK_TYPES["Q6_K"]
    yield "rope_freqs.weight", (c.rotary_dim // 2,), f32
    for layer in range(c.n_layers):
        shapes = {
            "attn_q": (c.q_dim, c.dim),
            "attn_k": (c.kv_dim, c.dim),
            "attn_v": (c.kv_dim, c.dim),
            "attn_output": (c.dim, c.q_dim),
            "ffn_gate": (c.ffn_dim, c.dim),
            "ffn_up": (c.ffn_dim, c.dim),
            "ffn_down": (c.dim, c.ffn_dim),
        }
        yield f"blk.{layer}.attn_norm.weight", (c.dim,), f32
        yield f"blk.{layer}.ffn_norm.weight", (c.dim,), f32
        for name, shape in shapes.items():
            finer = type_name == "Q4_K" and name in ("attn_v", "ffn_down") and _more_bits(layer, c.n_layers)
            yield f"blk.{layer}.{name}.weight", shape, BLOCK_TYPES["Q6_K" if finer else type_name]
    yield "output_norm.weight", (c.dim,), f32


def _more_bits(layer: int, n_layers: int) -> bool:
    """Layers that llama.cpp's Q4_K_M keeps finer: the first and last eighth, and every third between."""
    return layer < n_layers // 8 or layer >= 7 * n_layers // 8 or (layer - n_layers // 8) % 3 == 2


def _data(
    name: str, shape: tuple[int, ...], block_type: BlockType, config: ModelConfig, words: np.random.PCG64
) -> NDArray[np.float32] | U8:
    if name == "rope_freqs.weight":
        plain, _ = inverse_frequencies(replace(config, rope_scaling=RopeScaling()))
        return (plain / inverse_frequencies(config)[0]).astype(np.float32)
    if len(shape) == 1:
        return np.ones(shape, np.float32)  # norms
    deviation = EMBEDDING_DEVIATION if name == "token_embd.weight" else WEIGHT_GAIN / math.sqrt(shape[-1])
    return random_blocks(shape, block_type, deviation, words)


def random_blocks(shape: tuple[int, ...], block_type: BlockType, deviation: float, words: np.random.PCG64) -> U8:
    """[N, K] of random blocks as raw rows, whose values have about this standard deviation and mean 0."""
    size = shape[0] * block_type.row_bytes(shape[1])
    # raw words, which every NumPy release keeps; distributions may change
    blocks = words.random_raw(-(-size // 8)).view(np.uint8)[:size].reshape(-1, block_type.block_bytes)
    at = SCALE_AT[block_type.name]
    if block_type.name == "Q4_K":
        # scale and minimum of a sub-block alike, and dmin = 7.5 d: codes 0..15 then have mean 0
        blocks[:, 8:12] = blocks[:, 4:8]
        blocks[:, 12:16] = blocks[:, 12:16] & 15 | blocks[:, 12:16] << 4
        _write_half(blocks, 2, 7.5)
    _write_half(blocks, at, 1.0)
    scale = deviation / float(np.std(dequantize(blocks[:SAMPLE_BLOCKS], block_type)))
    _write_half(blocks, at, scale)
    if block_type.name == "Q4_K":
        _write_half(blocks, 2, 7.5 * scale)
    return blocks.reshape(shape[0], -1)


def _write_half(blocks: U8, at: int, value: float) -> None:
    blocks[:, at : at + 2] = np.array([value], "<f2").view(np.uint8)


def _add_place(writer: GGUFWriter, name: str, shape: tuple[int, ...], block_type: BlockType) -> None:
    row_bytes = block_type.row_bytes(shape[-1])
    size = math.prod(shape[:-1]) * row_bytes
    if block_type.name == "F32":
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size)
    else:  # of blocks the writer wants the shape in bytes
        ggml_type = GGMLQuantizationType(block_type.ggml_id)
        writer.add_tensor_info(name, (*shape[:-1], row_bytes), np.dtype(np.uint8), size, raw_dtype=ggml_type)


def _add_config(writer: GGUFWriter, config: ModelConfig, file_type: int) -> None:
    writer.add_name("Random weights of Llama-3.2-1B's dimensions")
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    writer.add_block_count(config.n_layers)
    writer.add_context_length(config.max_seq_len)
    writer.add_embedding_length(config.dim)
    writer.add_feed_forward_length(config.ffn_dim)
    writer.add_head_count(config.n_heads)
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.rotary_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: GGUFWriter, vocab_size: int) -> None:
    num_plain = vocab_size - NUM_CONTROL
    alphabet = byte_alphabet()
    merges = list(islice(_merges(), num_plain - len(alphabet)))
    control = [f"<|{CONTROL_NAMES.get(i, f'reserved_special_token_{i}')}|>" for i in range(NUM_CONTROL)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([*alphabet, *(left + right for left, right in merges), *control])
    writer.add_token_types([1] * num_plain + [3] * NUM_CONTROL)  # normal, control
    writer.add_token_merges([f"{left} {right}" for left, right in merges])
    writer.add_bos_token_id(num_plain)
    writer.add_eos_token_id(num_plain + 9)  # <|eot_id|>, as the instruct models have it
    writer.add_add_bos_token(True)


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in byte-level BPE (Radford et al. 2019): itself where it can be seen."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = iter(range(0x100, 0x200))
    return [chr(byte if byte in seen else next(hidden)) for byte in range(256)]


def _merges() -> Iterator[tuple[str, str]]:
    """Pairs of letters, then those with a space before or a letter behind, then pairs of pairs; 492,960 in all."""
    letters, space = ascii_lowercase, "Ġ"
    pairs = ["".join(pair) for pair in product(letters, repeat=2)]
    return chain(
        product(letters, letters),
        product([space], pairs),
        product(pairs, letters),
        product([space + pair for pair in pairs], letters),
        product(pairs, pairs),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--type", choices=FILE_TYPES, default="Q4_0", help="mixture of block types")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write_model(options.out, options.type, seed=options.seed)


if __name__ == "__main__":
    main()
