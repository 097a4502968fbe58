"""Every tensor type from file to logits: the native core against the float64 oracle, on one file of random blocks.

The tolerance is not tuned. For float types it is float32 rounding. For quantised types the native core rounds
activations to integers in blocks of 32; so does the oracle here, and what that costs it is the measure. Where float32
noise decides a rounding the other way, the two differ by that one step and by what follows from it: a fraction of the
cost.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from openherd import _native
from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.source import Checkpoint
from openherd.config import ModelConfig
from openherd.engine import reference_backend
from openherd.engine.native_backend import NativeBackend
from openherd.engine.protocols import Backend, KVSpec, Limits
from openherd.engine.reference_backend import ReferenceBackend
from openherd.kernels.reference import Reference
from openherd.quant.types import BLOCK_TYPES, PLAIN_TYPES
from tests.parity.batches import Rows, token_batch
from tests.parity.gguf_file import write_gguf
from tests.parity.random_blocks import random_block_tensor
from tests.parity.random_llama import RandomUniform, float_tensor, random_weights
from tests.unit.native.weight_blocks import fine_blocks

F32 = NDArray[np.float32]
FLOAT_TYPES = PLAIN_TYPES
N_TOKENS = 37  # no multiple of any tile
# norm_eps is a float32 in the file: a power of two is the same there
SUPER_BLOCKS = ModelConfig("llama", 256, 2, 4, 2, 64, 512, 131, 64, norm_eps=2**-17)
BLOCKS = replace(SUPER_BLOCKS, dim=96, n_heads=3, n_kv_heads=1, head_dim=32, ffn_dim=160)
FLOATS = replace(SUPER_BLOCKS, dim=39, n_heads=3, n_kv_heads=3, head_dim=14, ffn_dim=53)


class RoundedActivations(Reference):
    """The oracle with each linear map's input rounded in blocks of 32, one scale a block: to 15 bits where a block
    stands out of its row, else to 8; with a matrix unit all to 12."""

    isa = ""

    def _linear(self, x: F32, name: str) -> F32:
        blocks = x.astype(np.float64).reshape(len(x), -1, 32)
        absmax = np.abs(blocks).max(axis=-1)
        steps = np.where(fine_blocks(absmax.astype(np.float32)), 127 * 128, 127) if self.isa != "amx" else 127 * 16
        scale = (absmax / steps)[..., None]
        rounded = np.round(blocks / np.where(scale == 0, 1, scale)) * scale
        return super()._linear(rounded.reshape(x.shape), name)


def random_file(path: Path, config: ModelConfig, type_name: str) -> Checkpoint:
    """A GGUF file whose matrices, embedding and head included, are random blocks of one type; norms are float32."""
    uniform = RandomUniform(BLOCK_TYPES[type_name].ggml_id)
    tensors = {}
    for name, values in random_weights(config, 1).items():
        if values.ndim == 1:
            tensors[name] = float_tensor(name, values)
            continue
        deviation = 1.0 if "embed" in name else 1.5 / np.sqrt(values.shape[1])
        tensors[name] = random_block_tensor(name, values.shape, type_name, uniform, deviation=deviation)
    write_gguf(path, config, tensors)
    return open_checkpoint(path)


def logits(backend: Backend, checkpoint: Checkpoint) -> F32:
    limits = Limits(max_context=64, max_seqs=2, max_batch_tokens=64, max_logit_rows=64)
    backend.load(checkpoint.config, checkpoint.tensors, KVSpec(dtype="f32"), limits, num_blocks=4)
    ids = RandomUniform(9).ids(N_TOKENS, checkpoint.config.vocab_size)
    result = backend.logits(backend.forward(token_batch([Rows(ids, 0, (2, 0, 3))]))).copy()
    backend.close()
    return result


def config_for(type_name: str) -> ModelConfig:
    """The oddest sizes that rows of the type allow."""
    if type_name in FLOAT_TYPES:
        return FLOATS
    return SUPER_BLOCKS if BLOCK_TYPES[type_name].block_len == 256 else BLOCKS


def rms(x: F32) -> float:
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


@pytest.mark.parametrize("isa", _native.available_isas())
@pytest.mark.parametrize("tied", [False, True], ids=["separate", "tied"])
@pytest.mark.parametrize("type_name", BLOCK_TYPES)
def test_native_against_oracle(
    type_name: str, tied: bool, isa: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config_for(type_name), tied_embeddings=tied)
    checkpoint = random_file(tmp_path / "random.gguf", config, type_name)
    assert checkpoint.config == config
    exact = logits(ReferenceBackend(), checkpoint)
    assert rms(exact) > 0.5
    monkeypatch.setattr("openherd.kernels.native.default_isa", lambda: isa)
    native = logits(NativeBackend(2), checkpoint)
    if type_name in FLOAT_TYPES:
        np.testing.assert_allclose(native, exact, rtol=0, atol=1e-5 * np.abs(exact).max())
        return
    monkeypatch.setattr(reference_backend, "Reference", RoundedActivations)
    monkeypatch.setattr(RoundedActivations, "isa", isa)
    rounded = logits(ReferenceBackend(), checkpoint)
    cost = rms(rounded - exact)
    assert 0 < cost < 0.1 * rms(exact)
    # Sums in another order put single values, and blocks near the mean, on the other side of a rounding.
    assert rms(native - rounded) < 0.7 * cost
