"""Small models and batches for the tests of training's model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.checkpoints.hf_folder import read_hf_folder, read_model
from openherd.checkpoints.source import Checkpoint, Tensor, TensorSource
from openherd.config import ModelConfig
from openherd.tokenizers.spec import TokenizerSpec
from openherd.train.batch import Batch
from openherd.train.model.decoder import Decoder
from openherd.train.model.initial import initialise
from openherd.train.packing import PackedRows
from tests.checkpoint_files import safetensors_of

F32 = NDArray[np.float32]
TINY = ModelConfig(
    family="llama",
    dim=32,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=8,
    ffn_dim=64,
    vocab_size=64,
    max_seq_len=64,
)
VARIATIONS: dict[str, ModelConfig] = {
    "plain": TINY,
    "window": replace(TINY, sliding_window=5, full_attention_every=2),
    "alibi": replace(TINY, alibi_max_bias=8.0),
    "capped": replace(TINY, attention_softcap=5.0, logit_softcap=3.0, logit_scale=0.5, tied_embeddings=True),
    "biases": replace(TINY, qkv_bias=True, o_bias=True, mlp_bias=True, norm="layer", norm_bias=True),
    "experts": replace(TINY, n_experts=4, n_experts_per_token=2),
}


def random_model(config: ModelConfig = TINY, seed: int = 1) -> Decoder:
    """With weights so large that attention is not flat."""
    model = Decoder(config)
    initialise(model, seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            parameter.data *= 50 / config.dim**0.5
        elif name.endswith("bias"):
            parameter.data += 0.1
    return model


def rows_of(rows: Sequence[Sequence[Sequence[int]]], seq_len: int) -> Batch:
    """Rows of documents, each a list of tokens; every token but a document's first is a target."""
    packed = PackedRows.empty(len(rows), seq_len)
    for row, documents in enumerate(rows):
        column = 0
        for ids in documents:
            column = packed.place(row, column, np.array(ids, np.int32), np.ones(len(ids), np.uint8))
    return Batch.from_arrays(packed)


def random_documents(lengths: Sequence[int], vocab_size: int = 64, seed: int = 5) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(vocab_size, size=n).tolist() for n in lengths]


def read_back(config: Mapping[str, Any], tensors: dict[str, F32], folder: Path) -> tuple[ModelConfig, TensorSource]:
    """Tensors under Hugging Face's names as the reader of that layout hands them over."""
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(safetensors_of(tensors))
    return read_model(read_hf_folder(folder))


def checkpoint_of(config: ModelConfig, tensors: TensorSource) -> Checkpoint:
    """As a reader would hand it over; nothing here looks at the tokenizer."""
    spec: TokenizerSpec = None  # type: ignore[assignment]
    return Checkpoint(Path("in-memory"), "test", config, tensors, spec, None, None, MappingProxyType({}))


def float_values(tensor: Tensor) -> F32:
    assert tensor.type.name == "F32"
    return tensor.rows().view(np.float32).reshape(tensor.shape)
