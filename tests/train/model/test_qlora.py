"""QLoRA: a base in blocks under adapters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from openherd.checkpoints.source import Tensor as FileTensor
from openherd.errors import FormatError, OptionError, UnsupportedError
from openherd.quant.dequantize import dequantize
from openherd.quant.quantize import quantize
from openherd.quant.types import BLOCK_TYPES
from openherd.train.loss import nll_sum
from openherd.train.model.blocks import decode
from openherd.train.model.decoder import Decoder
from openherd.train.model.loading import load_weights, model_from, named_tensors
from openherd.train.model.lora import add_lora, lora_parameters
from openherd.train.model.quantized import BASE_TYPES, QuantizedLinear, quantize_base
from tests.parity.random_llama import float_source
from tests.train.model.tiny_models import TINY, VARIATIONS, checkpoint_of, random_documents, random_model, rows_of

BATCH = rows_of([random_documents([9, 14]), random_documents([20], seed=6)], 24)


def adapted(model: Decoder) -> Decoder:
    add_lora(model, rank=3, alpha=6.0, seed=4)
    generator = torch.Generator().manual_seed(9)
    for name, parameter in lora_parameters(model):
        if ".lora_B." in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def loss_of(model: Decoder) -> Tensor:
    return nll_sum(model, model(BATCH), BATCH)


@pytest.mark.parametrize("name", BASE_TYPES)
def test_blocks_decode_to_the_bit(name: str) -> None:
    type = BLOCK_TYPES[name.upper()]
    values = np.random.default_rng(3).standard_normal((5, 96)).astype(np.float32)
    rows = quantize(values, type)
    expected = dequantize(rows, type)
    np.testing.assert_array_equal(decode(torch.from_numpy(rows), type, torch.float32).numpy(), expected)
    rounded = decode(torch.from_numpy(rows), type, torch.bfloat16)
    assert torch.equal(rounded, torch.from_numpy(expected).bfloat16())


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", BASE_TYPES)
def test_loss_and_gradients_are_those_of_the_decoded_base(name: str, checkpointing: bool) -> None:
    model = random_model(VARIATIONS["biases"])
    quantize_base(model, name)
    floats = Decoder(model.config)
    load_weights(floats, checkpoint_of(model.config, float_source({n: t.numpy() for n, t in named_tensors(model)})))
    model, floats = adapted(model), adapted(floats)
    model.activation_checkpointing = checkpointing
    losses = loss_of(model), loss_of(floats)
    torch.testing.assert_close(*losses, rtol=1e-6, atol=0)
    for loss in losses:
        loss.backward()
    for (n, mine), (_, plain) in zip(lora_parameters(model), lora_parameters(floats), strict=True):
        assert mine.grad is not None
        assert plain.grad is not None
        assert plain.grad.abs().max() > 0.01, n
        torch.testing.assert_close(mine.grad, plain.grad, rtol=1e-5, atol=1e-4)
    assert all(p.grad is None for n, p in model.named_parameters() if ".lora_" not in n)


def test_only_blocks_are_kept_for_the_backward_pass() -> None:
    """No tensor of a weight's size in floats waits between forward and backward, and none is in the model."""
    kept: list[tuple[torch.dtype, torch.Size]] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append((tensor.dtype, tensor.shape))
        return tensor

    model = random_model()
    shapes = {p.shape for n, p in model.named_parameters() if "_proj" in n}
    quantize_base(model, "q8_0")
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss_of(adapted(model))
    assert any(dtype == torch.uint8 for dtype, _ in kept)
    weights = [(dtype, shape) for dtype, shape in kept if dtype.is_floating_point and shape in shapes]
    assert not [shape for _, shape in weights if shape not in {torch.Size([TINY.vocab_size, TINY.dim])}]
    assert not [n for n, p in model.named_parameters() if "_proj" in n and ".lora_" not in n]


def test_a_files_blocks_are_kept_as_they_are() -> None:
    """And others are quantised: one model of both."""
    type = BLOCK_TYPES["Q4_0"]
    plain = random_model()
    source = float_source({name: p.detach().numpy() for name, p in plain.named_parameters()})
    name = "model.layers.0.mlp.up_proj.weight"
    rows = quantize(plain.get_parameter(name).detach().numpy(), type)
    source[name] = FileTensor(name, (TINY.ffn_dim, TINY.dim), type, lambda: rows)
    model = model_from(checkpoint_of(TINY, source), base_type="q4_0")
    leaves = [m for m in model.modules() if isinstance(m, QuantizedLinear)]
    assert len(leaves) == 7 * TINY.n_layers
    np.testing.assert_array_equal(model.get_buffer("model.layers.0.mlp.up_proj.blocks").numpy(), rows)
    values = dict(named_tensors(model))
    other = "model.layers.1.mlp.up_proj.weight"
    error = (values[other] - plain.get_parameter(other)).norm() / plain.get_parameter(other).norm()
    assert 0 < error < 0.12, "four bits leave about a tenth"


def test_refusals() -> None:
    with pytest.raises(OptionError, match=r"lora\.base_type must be one of q8_0, q4_1, q4_0, not 'nf4'"):
        quantize_base(random_model(), "nf4")
    narrow = replace(TINY, dim=24, n_heads=3, n_kv_heads=1)
    with pytest.raises(UnsupportedError, match="24 values"):
        quantize_base(random_model(narrow), "q8_0")
    broken = random_model()
    broken.get_parameter("model.layers.0.mlp.up_proj.weight").data[0, 0] = torch.nan
    with pytest.raises(FormatError, match="not finite"):
        quantize_base(broken, "q8_0")
