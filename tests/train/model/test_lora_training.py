"""LoRA: what it adds, what it learns, what it writes, and that chat reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from openherd.checkpoints import open_adapter
from openherd.engine.backends import make_backend
from openherd.engine.protocols import KVSpec, Limits
from openherd.errors import FormatError, OptionError
from openherd.train.loss import nll_sum
from openherd.train.model.decoder import Decoder
from openherd.train.model.loading import load_weights, named_tensors
from openherd.train.model.lora import add_lora, lora_parameters, merge, without_lora
from openherd.train.model.lora_files import read_adapter, write_adapter
from tests.parity.batches import Rows, token_batch
from tests.parity.llama_cases import CASES, RECORDED, SEED, prompts
from tests.parity.random_llama import float_source, random_weights
from tests.parity.test_lora import PEFT
from tests.train.model.tiny_models import TINY, checkpoint_of, random_documents, random_model, rows_of

BATCH = rows_of([random_documents([9, 14]), random_documents([20], seed=6)], 24)


def adapted_model(targets: tuple[str, ...] = (), rank: int = 3) -> Decoder:
    """With values in B, so that the adapter does something."""
    model = random_model()
    add_lora(model, rank=rank, alpha=6.0, targets=targets, seed=4)
    generator = torch.Generator().manual_seed(9)
    for name, parameter in lora_parameters(model):
        if ".lora_B." in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def logits(model: Decoder) -> Tensor:
    with torch.no_grad():
        return model.logits(model(BATCH))


def test_training_starts_from_the_base_model() -> None:
    model = random_model()
    before = logits(model)
    add_lora(model, rank=4, alpha=8.0, seed=1)
    assert torch.equal(logits(model), before)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained == [name for name, _ in lora_parameters(model)]
    assert len(trained) == 2 * 7 * TINY.n_layers


def test_gradients_are_those_of_the_sum_of_weights() -> None:
    """Of W + scale B A as one weight, by autograd; the base has none."""
    model = adapted_model()
    nll_sum(model, model(BATCH), BATCH).backward()
    plain = random_model()
    pairs = {name: parameter.detach().clone().requires_grad_() for name, parameter in lora_parameters(model)}
    weights = dict(plain.named_parameters())
    for path in {name.rpartition(".lora_")[0] for name in pairs}:
        a, b = pairs[f"{path}.lora_A.weight"], pairs[f"{path}.lora_B.weight"]
        weights[f"{path}.weight"] = weights[f"{path}.weight"].detach() + 2.0 * b @ a
    hidden = functional_call(plain, weights, BATCH)
    nll_sum(plain, hidden, BATCH).backward()
    for name, parameter in model.named_parameters():
        if name in pairs:
            assert parameter.grad is not None
            assert pairs[name].grad is not None
            assert parameter.grad.abs().max() > 0.01, name
            torch.testing.assert_close(parameter.grad, pairs[name].grad, rtol=1e-4, atol=1e-4)
        else:
            assert parameter.grad is None, name


def test_without_lora_is_the_base_model_for_as_long() -> None:
    model, base = adapted_model(), logits(random_model())
    with_adapter = logits(model)
    assert (with_adapter - base).abs().max() > 0.1
    with without_lora(model):
        assert torch.equal(logits(model), base)
    assert torch.equal(logits(model), with_adapter)


def test_merged_equals_adapted() -> None:
    model = adapted_model(targets=("q_proj", "down_proj"))
    before, exported = logits(model), dict(named_tensors(model))
    merge(model)
    assert not list(lora_parameters(model))
    assert all(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-5)
    assert exported.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(exported[name], parameter) for name, parameter in model.named_parameters())


def test_a_young_adapter_is_not_rounded_away_on_a_base_of_16_bits() -> None:
    """What is exported and drawn from has the sum of bfloat16 weights and a small adapter, as training computes it."""
    model = adapted_model().to(torch.bfloat16)
    name = "model.layers.0.self_attn.q_proj"
    leaf = model.get_submodule(name)
    with torch.no_grad():
        leaf.lora_B.weight.mul_(1e-3)
    delta = leaf.adapter_scale * leaf.lora_B.weight.float() @ leaf.lora_A.weight.float()
    merged = dict(named_tensors(model))[f"{name}.weight"] - leaf.weight.float()
    assert delta.abs().max() > 0
    torch.testing.assert_close(merged, delta, rtol=1e-2, atol=1e-7)


def test_an_adapters_values_depend_on_seed_and_name_alone() -> None:
    first, second, other = (random_model() for _ in range(3))
    add_lora(first, rank=2, alpha=1.0, seed=7)
    add_lora(second, rank=2, alpha=1.0, targets=("v_proj",), seed=7)
    add_lora(other, rank=2, alpha=1.0, seed=8)
    name = "model.layers.1.self_attn.v_proj.lora_A.weight"
    assert torch.equal(first.get_parameter(name), second.get_parameter(name))
    assert not torch.equal(first.get_parameter(name), other.get_parameter(name))
    assert first.get_parameter(name).abs().max() <= TINY.dim**-0.5


def test_the_engine_reads_what_is_written(tmp_path: Path) -> None:
    """By the way of `herd chat --adapter`, on the native core."""
    model = adapted_model()
    write_adapter(model, tmp_path / "adapter", base_model="smollm2")
    native = make_backend("native", 1)
    limits = Limits(max_context=64, max_seqs=1, max_batch_tokens=32, max_logit_rows=32)
    weights = {name: values.detach().numpy() for name, values in random_model().named_parameters()}
    native.load(TINY, float_source(weights), KVSpec(dtype="f32"), limits, num_blocks=4)
    loaded = native.load_adapter(open_adapter(tmp_path / "adapter", TINY))
    (document,) = random_documents([20], seed=6)
    rows = native.logits(native.forward(token_batch([Rows(document[:-1], 0, (0, 1), adapter=loaded)]))).copy()
    np.testing.assert_allclose(rows, logits(model)[1, :19].numpy(), rtol=0, atol=1e-4)
    again = random_model()
    read_adapter(again, tmp_path / "adapter")
    assert torch.equal(logits(again), logits(model))
    native.close()


def test_an_adapter_of_peft(tmp_path: Path) -> None:
    """A folder that peft saved gives the logits that peft recorded."""
    config = CASES["biases"]
    model = Decoder(config)
    load_weights(model, checkpoint_of(config, float_source(random_weights(config, SEED))))
    read_adapter(model, PEFT)
    for ids, expected in zip(prompts(config), np.load(PEFT / "logits.npz")["biases"], strict=True):
        batch = rows_of([[[*ids.tolist(), 0]]], len(ids))
        with torch.no_grad():
            rows = model.logits(model(batch))[0, list(RECORDED)]
        np.testing.assert_allclose(rows.numpy(), expected, rtol=0, atol=1e-4)


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"lora\.targets: the model has no 'q'; it has q_proj, "):
        add_lora(random_model(), rank=2, alpha=1.0, targets=("q",))
    with pytest.raises(OptionError, match=r"lora\.rank must be at least 1, not 0"):
        add_lora(random_model(), rank=0, alpha=1.0)
    with pytest.raises(OptionError, match="no adapter"):
        write_adapter(random_model(), tmp_path)
    write_adapter(adapted_model(rank=2), tmp_path)
    with pytest.raises(FormatError, match="another rank"):
        read_adapter(adapted_model(rank=3), tmp_path)
