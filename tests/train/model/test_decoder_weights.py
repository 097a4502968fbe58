"""Weights of a decoder: their names, new ones, those of a checkpoint, their types."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from openherd.checkpoints.required_tensors import required_tensors
from openherd.checkpoints.source import Tensor as FileTensor
from openherd.errors import FormatError
from openherd.quant.dequantize import dequantize
from openherd.quant.quantize import quantize
from openherd.quant.types import BLOCK_TYPES
from openherd.train.loss import nll_sum
from openherd.train.model.decoder import Decoder
from openherd.train.model.initial import initialise
from openherd.train.model.loading import load_weights, model_from, named_tensors
from tests.parity.random_llama import float_source
from tests.train.model.tiny_models import TINY, VARIATIONS, checkpoint_of, random_documents, random_model, rows_of


@pytest.mark.parametrize("name", sorted(VARIATIONS))
def test_names_and_shapes_are_the_canonical_ones(name: str) -> None:
    config = VARIATIONS[name]
    state = Decoder(config, device="meta").state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == dict(required_tensors(config))


def test_new_weights() -> None:
    """By seed and name alone: a model of more layers has the same first ones, but for the scale that depth sets."""
    config = replace(TINY, n_layers=4, dim=64, n_heads=8)
    model, again, other = Decoder(config), Decoder(config, device="meta"), Decoder(config)
    again.to_empty(device="cpu")
    for decoder, seed in ((model, 5), (again, 5), (other, 6)):
        initialise(decoder, seed)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
        if parameter.ndim == 1:
            assert torch.equal(parameter, torch.ones_like(parameter))
            continue
        assert not torch.equal(parameter, other.get_parameter(name))
        deviation = 0.02 / 8**0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
        assert abs(parameter.std().item() / deviation - 1) < 0.06, name


@pytest.mark.parametrize("type_name", ["F16", "BF16", "Q8_0", "Q4_1"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_type_of_a_file(type_name: str, dtype: torch.dtype) -> None:
    type = BLOCK_TYPES[type_name]
    stored = {name: quantize(p.detach().numpy(), type) for name, p in random_model().named_parameters()}
    shapes = dict(required_tensors(TINY))
    given_back: list[str] = []
    source = {
        name: FileTensor(
            name,
            shapes[name],
            type,
            lambda rows=rows: rows.reshape(-1, rows.shape[-1]),
            lambda name=name: given_back.append(name),
        )
        for name, rows in stored.items()
    }
    model = model_from(checkpoint_of(TINY, source), dtype)
    for name, rows in stored.items():
        expected = torch.from_numpy(dequantize(rows, type)).to(dtype)
        assert torch.equal(model.get_parameter(name), expected), name
    assert set(given_back) == set(stored)
    assert {name for name, _ in named_tensors(model)} == set(shapes)


def test_a_checkpoint_that_does_not_fit() -> None:
    source = float_source({name: p.detach().numpy() for name, p in random_model().named_parameters()})
    wider = replace(TINY, ffn_dim=96)
    with pytest.raises(FormatError, match=r"gate_proj\.weight has shape \(64, 32\), .* needs \(96, 32\)"):
        load_weights(Decoder(wider), checkpoint_of(TINY, source))
    del source["model.norm.weight"]
    with pytest.raises(FormatError, match=r"lacks the tensor model\.norm\.weight"):
        load_weights(Decoder(TINY), checkpoint_of(TINY, source))


@pytest.mark.parametrize("name", sorted(VARIATIONS))
def test_checkpointed_activations_give_the_same_bits(name: str) -> None:
    batch = rows_of([random_documents([9, 14]), random_documents([20], seed=6)], 24)
    plain, recomputed = random_model(VARIATIONS[name]), random_model(VARIATIONS[name])
    recomputed.activation_checkpointing = True
    for model in (plain, recomputed):
        nll_sum(model, model(batch), batch).backward()
    for key, parameter in plain.named_parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, recomputed.get_parameter(key).grad), key


def test_bfloat16_products_on_float32_weights() -> None:
    """Gradients stay float32 and near those of float32; hidden states are bfloat16, the loss float32."""
    batch = rows_of([random_documents([9, 14]), random_documents([20], seed=6)], 24)
    exact, rounded = random_model(), random_model()
    rounded.compute_dtype = torch.bfloat16
    assert rounded(batch).dtype == torch.bfloat16
    losses = [nll_sum(model, model(batch), batch) for model in (exact, rounded)]
    for loss in losses:
        assert loss.dtype == torch.float32
        loss.backward()
    assert 0 < abs(losses[0].item() / losses[1].item() - 1) < 0.01
    for name, parameter in exact.named_parameters():
        gradient = rounded.get_parameter(name).grad
        assert gradient is not None
        assert parameter.grad is not None
        assert gradient.dtype == torch.float32
        cosine = torch.cosine_similarity(gradient.flatten(), parameter.grad.flatten(), dim=0)
        assert cosine > 0.99, f"{name}: {cosine:.3f}"


def test_equal_router_logits_go_to_the_lowest_ids() -> None:
    """A router of zeros: every token takes experts 0 and 1, whose halves are summed."""
    model = random_model(VARIATIONS["experts"])
    batch = rows_of([random_documents([9])], 8)
    for layer in range(TINY.n_layers):
        model.get_parameter(f"model.layers.{layer}.block_sparse_moe.gate.weight").data.zero_()
    nll_sum(model, model(batch), batch).backward()
    for name, parameter in model.named_parameters():
        if ".experts." in name:
            assert parameter.grad is not None
            assert bool(parameter.grad.any()) == (".experts.0." in name or ".experts.1." in name), name


def test_training_goes_on_after_an_evaluation_in_inference_mode() -> None:
    """What is kept between forwards (tables of rotations) must not belong to inference."""
    model, batch = random_model(replace(TINY, rope_theta=12345.0)), rows_of([random_documents([23])], 22)
    with torch.inference_mode():
        before = nll_sum(model, model(batch), batch)
    loss = nll_sum(model, model(batch), batch)
    loss.backward()
    assert loss.item() == before.item()
