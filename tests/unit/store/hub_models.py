"""Small models for the stand-in hub: sound GGUF files of some size, and a safetensors folder."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from tests.checkpoint_files import GGUFFile, safetensors_of, tiny_llama, u32

REPOSITORY = "Some-Org/Tiny-GGUF"


def noise(size: int, seed: str = "") -> bytes:
    """Bytes that do not compress."""
    return b"".join(hashlib.sha256(f"{seed}{i}".encode()).digest() for i in range(size // 32 + 1))[:size]


def tiny_gguf(tail: int = 1_300_000, seed: str = "") -> bytes:
    """A model with a sound header, and bytes after its tensors that make it worth cutting."""
    file = tiny_llama()
    file.tail = noise(tail, seed)
    return file.build()


def safetensors_files() -> dict[str, bytes]:
    """A repository as a trainer leaves it: two shards, tokenizer, and what must not be fetched."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
    }
    index = {"metadata": {"total_size": 100_000}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    return {
        ".gitattributes": b"* lfs",
        "README.md": b"# Tiny",
        "LICENSE": b"Apache",
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": noise(9_000, "tokenizer"),
        "tokenizer_config.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-00001-of-00002.safetensors": noise(60_000, "one"),
        "model-00002-of-00002.safetensors": noise(40_000, "two"),
        "pytorch_model.bin": b"never",
        "modeling_tiny.py": b"import os",
        "original/consolidated.00.pth": b"never",
        "onnx/model.onnx": b"never",
    }


def sound_folder(model_type: str = "llama") -> dict[str, bytes]:
    """A Llama of two layers in two shards of some megabytes, without a tokenizer."""
    dim, ffn, heads, kv_heads, vocab = 64, 4096, 4, 2, 50
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": model_type,
        "hidden_size": dim,
        "intermediate_size": ffn,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
    }
    kv_dim = dim // heads * kv_heads
    shapes = {
        "input_layernorm": (dim,), "post_attention_layernorm": (dim,), "self_attn.q_proj": (dim, dim),
        "self_attn.k_proj": (kv_dim, dim), "self_attn.v_proj": (kv_dim, dim), "self_attn.o_proj": (dim, dim),
        "mlp.gate_proj": (ffn, dim), "mlp.up_proj": (ffn, dim), "mlp.down_proj": (dim, ffn),
    }  # fmt: skip
    shards: list[dict[str, np.ndarray]] = [
        {f"model.layers.{layer}.{name}.weight": np.full(shape, layer, np.float32) for name, shape in shapes.items()}
        for layer in range(2)
    ]
    shards[0]["model.embed_tokens.weight"] = np.ones((vocab, dim), np.float32)
    shards[1]["model.norm.weight"] = np.ones(dim, np.float32)
    names = [f"model-{i + 1:05}-of-00002.safetensors" for i in range(2)]
    places = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    size = sum(values.nbytes for shard in shards for values in shard.values())
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors.index.json": json.dumps({"metadata": {"total_size": size}, "weight_map": places}).encode(),
        **{name: safetensors_of(shard) for name, shard in zip(names, shards, strict=True)},
    }


def split_gguf(count: int = 3) -> dict[str, bytes]:
    """The tiny Llama as gguf-split cuts it: keys in the first part, tensors in all, and a long tail on each."""
    whole = tiny_llama()
    files = {}
    for i in range(count):
        part = GGUFFile(keys=whole.keys if i == 0 else {}, tensors=whole.tensors[i::count], tail=noise(2 << 20, str(i)))
        part.keys |= {"split.no": u32(i), "split.count": u32(count), "split.tensors.count": u32(len(whole.tensors))}
        files[f"tiny-F32-{i + 1:05}-of-{count:05}.gguf"] = part.build()
    return files


FETCHED_OF_SAFETENSORS = [
    "LICENSE",
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
]
