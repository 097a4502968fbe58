"""GGUF and safetensors files put together from their pieces, so that any piece can be wrong."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from openherd.quant.quantize import quantize
from openherd.quant.types import BLOCK_TYPES

Encoded = tuple[int, bytes]  # GGUF's value type and the value's bytes


def u32(value: int) -> Encoded:
    return 4, struct.pack("<I", value)


def u64(value: int) -> Encoded:
    return 10, struct.pack("<Q", value)


def f32(value: float) -> Encoded:
    return 6, struct.pack("<f", value)


def truth(value: int) -> Encoded:
    return 7, struct.pack("<B", value)


def text(value: str | bytes) -> Encoded:
    raw = value.encode() if isinstance(value, str) else value
    return 8, struct.pack("<Q", len(raw)) + raw


def texts(values: Sequence[str | bytes]) -> Encoded:
    return 9, struct.pack("<IQ", 8, len(values)) + b"".join(text(v)[1] for v in values)


def array(element_type: int, values: np.ndarray, count: int | None = None) -> Encoded:
    return 9, struct.pack("<IQ", element_type, len(values) if count is None else count) + values.tobytes()


@dataclass
class Entry:
    """A tensor's entry: `dims` in GGUF's order (contiguous first); `offset` None places it after the one before."""

    name: str | bytes
    dims: Sequence[int]
    type_id: int
    data: bytes
    offset: int | None = None
    num_dims: int | None = None


@dataclass
class GGUFFile:
    keys: dict[str, Encoded] = field(default_factory=dict)
    tensors: list[Entry] = field(default_factory=list)
    magic: bytes = b"GGUF"
    version: int = 3
    num_tensors: int | None = None
    num_keys: int | None = None
    alignment: int = 32
    tail: bytes = b""

    def build(self) -> bytes:
        return self.head() + b"".join(self.places()[1]) + self.tail

    def places(self) -> tuple[list[int], list[bytes]]:
        """Each tensor's offset, and its data padded to the alignment."""
        offsets, pieces, pos = [], [], 0
        for t in self.tensors:
            offsets.append(pos if t.offset is None else t.offset)
            pieces.append(t.data + bytes(-len(t.data) % self.alignment))
            pos += len(pieces[-1])
        return offsets, pieces

    def head(self) -> bytes:
        out = bytearray(self.magic + struct.pack("<I", self.version))
        out += struct.pack("<Q", len(self.tensors) if self.num_tensors is None else self.num_tensors)
        out += struct.pack("<Q", len(self.keys) if self.num_keys is None else self.num_keys)
        for key, (value_type, raw) in self.keys.items():
            out += text(key)[1] + struct.pack("<I", value_type) + raw
        for t, offset in zip(self.tensors, self.places()[0], strict=True):
            num_dims = len(t.dims) if t.num_dims is None else t.num_dims
            out += text(t.name)[1] + struct.pack("<I", num_dims) + b"".join(struct.pack("<Q", d) for d in t.dims)
            out += struct.pack("<IQ", t.type_id, offset)
        return bytes(out + bytes(-len(out) % self.alignment))

    def without(self, *tensor_names: str) -> GGUFFile:
        self.tensors = [t for t in self.tensors if t.name not in tensor_names]
        return self


def entry(name: str, values: np.ndarray, type_name: str = "F32") -> Entry:
    """A tensor of float32 `values` [N, K], stored as `type_name`."""
    block_type = BLOCK_TYPES[type_name]
    return Entry(name, values.shape[::-1], block_type.ggml_id, quantize(values, block_type).tobytes())


# A Llama of two layers, small and odd enough that no two sizes are equal by chance.
DIM, HEADS, KV_HEADS, HEAD_DIM, FFN, VOCAB, LAYERS = 32, 4, 2, 8, 96, 50, 2


def tiny_llama(*, linear_type: str = "F32", tied: bool = True, biases: Sequence[str] = (), seed: int = 0) -> GGUFFile:
    """A sound GGUF file; `biases` are GGUF stems ("attn_q") of the linear maps that have one."""
    rng = np.random.default_rng(seed)
    file = GGUFFile(keys=tiny_keys())

    def add(name: str, *shape: int, type_name: str = "F32") -> None:
        file.tensors.append(entry(name, rng.standard_normal(shape, np.float32), type_name))

    add("token_embd.weight", VOCAB, DIM)
    add("output_norm.weight", DIM)
    if not tied:
        add("output.weight", VOCAB, DIM)
    maps = {
        "attn_q": (HEADS * HEAD_DIM, DIM),
        "attn_k": (KV_HEADS * HEAD_DIM, DIM),
        "attn_v": (KV_HEADS * HEAD_DIM, DIM),
        "attn_output": (DIM, HEADS * HEAD_DIM),
        "ffn_gate": (FFN, DIM),
        "ffn_up": (FFN, DIM),
        "ffn_down": (DIM, FFN),
    }
    for layer in range(LAYERS):
        add(f"blk.{layer}.attn_norm.weight", DIM)
        add(f"blk.{layer}.ffn_norm.weight", DIM)
        for stem, shape in maps.items():
            add(f"blk.{layer}.{stem}.weight", *shape, type_name=linear_type)
            if stem in biases:
                add(f"blk.{layer}.{stem}.bias", shape[0])
    return file


def tiny_keys() -> dict[str, Encoded]:
    tokens = ["<|endoftext|>", "<s>", "</s>", "<|im_end|>", *(f"t{i}" for i in range(VOCAB - 4))]
    return {
        "general.architecture": text("llama"),
        "general.license": text("apache-2.0"),
        "llama.block_count": u32(LAYERS),
        "llama.context_length": u32(128),
        "llama.embedding_length": u32(DIM),
        "llama.feed_forward_length": u32(FFN),
        "llama.attention.head_count": u32(HEADS),
        "llama.attention.head_count_kv": u32(KV_HEADS),
        "llama.attention.layer_norm_rms_epsilon": f32(1e-5),
        "tokenizer.ggml.model": text("gpt2"),
        "tokenizer.ggml.pre": text("smollm"),
        "tokenizer.ggml.tokens": texts(tokens),
        "tokenizer.ggml.token_type": array(5, np.array([3] * 4 + [1] * (VOCAB - 4), "<i4")),
        "tokenizer.ggml.merges": texts(["t 1", "t 2"]),
        "tokenizer.ggml.bos_token_id": u32(1),
        "tokenizer.ggml.eos_token_id": u32(2),
    }


def safetensors_file(header: Mapping[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """`header` as a dict, or as raw bytes where JSON itself is to be wrong."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def safetensors_of(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A sound file of float32 tensors."""
    header, pieces, pos = {}, [], 0
    for name, values in tensors.items():
        raw = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [pos, pos + len(raw)]}
        pieces.append(raw)
        pos += len(raw)
    return safetensors_file(header, b"".join(pieces))
