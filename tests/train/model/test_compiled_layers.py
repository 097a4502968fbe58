"""Compiled layers compute what the others do, from one graph for all that are alike."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from openherd.train.loss import nll_sum
from tests.train.model.tiny_models import TINY, random_documents, random_model, rows_of

BACKENDS = ("eager", "inductor") if os.environ.get("OPENHERD_FULL_TESTS") else ("eager",)  # inductor takes minutes
CONFIGS = {
    "plain": (replace(TINY, n_layers=4), 1),
    "two kinds of layers": (replace(TINY, n_layers=4, sliding_window=5, full_attention_every=2), 2),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CONFIGS)
def test_same_loss_and_gradients(name: str, backend: str) -> None:
    config, n_graphs = CONFIGS[name]
    batches = [rows_of([documents], 24) for documents in (random_documents([25]), random_documents([11, 9], seed=8))]
    plain, compiled = random_model(config), random_model(config)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    compiled.compile_layers(backend=counter)
    for batch in batches:
        losses = [nll_sum(model, model(batch), batch) for model in (plain, compiled)]
        torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
        for loss in losses:
            loss.backward()
        if batch is batches[0]:
            assert counter.frame_count == n_graphs
    for key, parameter in plain.named_parameters():
        gradient = compiled.get_parameter(key).grad
        torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=1e-4 * parameter.grad.abs().max().item())
