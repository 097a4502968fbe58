"""T11: logits, loss and every gradient against transformers, both in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from openherd.checkpoints.required_tensors import required_tensors
from openherd.config import ModelConfig
from openherd.train.batch import Batch
from openherd.train.loss import nll_sum
from openherd.train.model.decoder import Decoder
from openherd.train.model.loading import load_weights
from tests.train.model.gradient_cases import EXPECTED_FILE, cases, tokens, weights
from tests.train.model.tiny_models import checkpoint_of, float_values, read_back

EXPECTED = np.load(EXPECTED_FILE)
TOLERANCE = 1e-5


def batch() -> Batch:
    ids = torch.from_numpy(tokens())
    B, T = ids[:, 1:].shape
    return Batch(
        ids[:, :-1], torch.arange(T).repeat(B, 1), torch.zeros(B, T, dtype=torch.long), ids[:, 1:], torch.ones(B, T)
    )


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", cases())
def test_t11_logits_and_every_gradient(name: str, checkpointing: bool, tmp_path: Path) -> None:
    case = cases()[name]
    config, tensors = read_back(case["config"], weights(case), tmp_path)
    model = Decoder(config)
    load_weights(model, checkpoint_of(config, tensors))
    model.activation_checkpointing = checkpointing
    rows = batch()
    hidden = model(rows)
    loss = nll_sum(model, hidden, rows) / rows.num_learnt
    loss.backward()
    assert_close(model.logits(hidden).detach().numpy(), EXPECTED[f"{name}/logits"], "logits")
    assert_close(loss.item(), EXPECTED[f"{name}/loss"], "loss")
    expected = expected_gradients(name, tmp_path)
    for tensor, _ in required_tensors(config):
        gradient = model.get_parameter(tensor).grad
        assert gradient is not None, tensor
        if not moves_all_scores(config, tensor):
            assert np.abs(expected[tensor]).max() > 1e-3, f"{tensor} is not put to the test"
        assert_close(gradient.numpy(), expected[tensor], tensor)


def moves_all_scores(config: ModelConfig, tensor: str) -> bool:
    """Without rotation a bias on keys adds the same to all scores of a query, so its gradient is 0."""
    return tensor.endswith("k_proj.bias") and bool(config.alibi_max_bias)


def expected_gradients(name: str, folder: Path) -> dict[str, np.ndarray]:
    """The recorded gradients under canonical names: by the reader's own way for weights, less what it adds to them."""
    case = cases()[name]
    recorded = {tensor: EXPECTED[f"{name}/gradient/{tensor}"] for tensor in case["shapes"]}
    _, gradients = read_back(case["config"], recorded, folder)
    moved = {tensor: float_values(gradients[tensor]).copy() for tensor in gradients}
    _, zeros = read_back(case["config"], {tensor: np.zeros_like(values) for tensor, values in recorded.items()}, folder)
    return {tensor: values - float_values(zeros[tensor]) for tensor, values in moved.items()}


def assert_close(got: object, expected: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE, err_msg=what)
