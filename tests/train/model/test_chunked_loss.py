"""The chunked loss is the loss, and never holds more than a chunk of logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from openherd.config import ModelConfig
from openherd.train.batch import Batch
from openherd.train.loss import nll_sum, token_logprobs
from openherd.train.model.decoder import Decoder
from tests.train.model.tiny_models import TINY, VARIATIONS, random_documents, random_model, rows_of

CONFIGS = {"plain": TINY, "capped, scaled, tied": VARIATIONS["capped"]}


def weighted() -> Batch:
    """Two rows with weights of 0, 1 and between."""
    batch = rows_of([random_documents([13, 8]), random_documents([22], seed=6)], 24)
    weights = batch.weights * torch.tensor([0.0, 1.0, 0.25]).repeat(16).view(2, 24)
    return Batch(batch.token_ids, batch.positions, batch.documents, batch.targets, weights)


def full_logprobs(model: Decoder, hidden: Tensor, batch: Batch, temperature: float = 1.0) -> Tensor:
    logits = model.logits(hidden) / temperature
    losses = cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none").view_as(batch.weights)
    return torch.where(batch.weights != 0, -losses, 0.0)


def gradients(model: Decoder, value: Tensor, hidden: Tensor) -> list[Tensor]:
    head: Any = model.head
    return list(torch.autograd.grad(value, [hidden, head.weight]))


@pytest.mark.parametrize("chunk", [0, 1, 7, 1000])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_sum_and_gradients(config: ModelConfig, chunk: int) -> None:
    model, batch = random_model(config), weighted()
    hidden = model(batch).detach().requires_grad_()
    expected = -(full_logprobs(model, hidden, batch) * batch.weights).sum() / 3
    got = nll_sum(model, hidden, batch, chunk) / 3
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
    for mine, full in zip(gradients(model, got, hidden), gradients(model, expected, hidden), strict=True):
        assert full.abs().max() > 0.01
        torch.testing.assert_close(mine, full, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("chunk", "temperature"), [(0, 1.0), (7, 1.0), (7, 0.7), (0, 1.5)])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
def test_each_tokens_logprob_and_gradients(config: ModelConfig, chunk: int, temperature: float) -> None:
    model, batch = random_model(config), weighted()
    hidden = model(batch).detach().requires_grad_()
    factors = torch.linspace(-1, 1, batch.weights.numel()).view_as(batch.weights)
    expected = full_logprobs(model, hidden, batch, temperature)
    got = token_logprobs(model, hidden, batch, chunk, temperature=temperature)
    assert got.shape == batch.weights.shape
    assert not got[batch.weights == 0].any()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    sums = [(values * factors).sum() for values in (got, expected)]
    for mine, full in zip(*(gradients(model, value, hidden) for value in sums), strict=True):
        assert full.abs().max() > 0.01
        torch.testing.assert_close(mine, full, rtol=0, atol=2e-6)


class LargestTensor(TorchDispatchMode):
    """The most elements that any operation's result has."""

    most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, Tensor):
                self.most = max(self.most, value.numel())
        return result


def test_logits_exist_for_a_chunk_only() -> None:
    model = random_model()
    batch = rows_of([random_documents([129]), random_documents([129])], 128)
    hidden = model(batch).detach().requires_grad_()
    with LargestTensor() as seen:
        nll_sum(model, hidden, batch, chunk=32).backward()
        token_logprobs(model, hidden, batch, chunk=32).sum().backward()
    assert seen.most == hidden.numel() < 256 * TINY.vocab_size, "a tensor larger than the hidden states"
    with LargestTensor() as seen:
        nll_sum(model, hidden, batch, chunk=256)
    assert seen.most == 256 * TINY.vocab_size, "the measurement does not see logits"


def test_a_batch_that_learns_nothing() -> None:
    model = random_model()
    batch = rows_of([random_documents([9])], 8)
    empty = Batch(batch.token_ids, batch.positions, batch.documents, batch.targets, torch.zeros(1, 8))
    loss = nll_sum(model, model(empty), empty)
    loss.backward()
    assert loss.item() == 0
    assert not any(p.grad.any() for p in model.parameters() if p.grad is not None)
