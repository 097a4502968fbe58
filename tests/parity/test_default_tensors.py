"""Every tensor of the default model: our reader and decoders against the `gguf` package, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize as gguf_dequantize

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.families import by_name
from openherd.quant.dequantize import dequantize


def test_every_tensor_of_the_default_model(default_model: Path) -> None:
    checkpoint = open_checkpoint(default_model)
    heads = {"q_proj": checkpoint.config.n_heads, "k_proj": checkpoint.config.n_kv_heads}
    names = by_name(checkpoint.config.family).names["gguf"]
    reader = GGUFReader(default_model)
    theirs = {tensor.name: tensor for tensor in reader.tensors}
    assert len(checkpoint.tensors) == len(theirs)
    for name in checkpoint.tensors:
        tensor = checkpoint.tensors[name]
        gguf_name = names.to_file(name)
        assert gguf_name is not None
        expected = gguf_dequantize(theirs[gguf_name].data, theirs[gguf_name].tensor_type)
        ours = dequantize(tensor.rows(), tensor.type).reshape(tensor.shape)
        projection = name.split(".")[-2]
        if projection in heads:  # to GGUF's row order, as the converters do
            n, k = ours.shape
            ours = ours.reshape(heads[projection], 2, -1, k).swapaxes(1, 2).reshape(n, k)
        np.testing.assert_array_equal(ours.view(np.uint32), expected.view(np.uint32), err_msg=name)


def test_the_vocabulary_of_the_default_model(default_model: Path) -> None:
    spec = open_checkpoint(default_model).tokenizer
    fields = GGUFReader(default_model).fields
    assert list(spec.tokens) == fields["tokenizer.ggml.tokens"].contents()
    assert list(spec.merges) == fields["tokenizer.ggml.merges"].contents()
    assert list(spec.token_types) == fields["tokenizer.ggml.token_type"].contents()
