"""The decoder computes what the engine's reference computes: every family of tests/parity, two prompts in one row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from openherd.engine.backends import make_backend
from openherd.engine.protocols import KVSpec, Limits
from openherd.train.model.decoder import Decoder
from openherd.train.model.loading import load_weights
from tests.parity.batches import Rows, token_batch
from tests.parity.family_cases import families, prompts
from tests.parity.family_layouts import from_hf
from tests.train.model.tiny_models import checkpoint_of, rows_of

LENGTHS = (37, 21)  # the first beyond most cases' windows


@pytest.mark.parametrize("name", families())
def test_every_family(name: str, tmp_path: Path) -> None:
    config, tensors = from_hf(name, tmp_path)
    documents = [ids[:n] for ids, n in zip(prompts(97), LENGTHS, strict=True)]
    reference = make_backend("reference", 1)
    limits = Limits(max_context=64, max_seqs=2, max_batch_tokens=64, max_logit_rows=64)
    reference.load(config, tensors, KVSpec(dtype="f32"), limits, num_blocks=8)
    batch = token_batch([Rows(documents[0], 0, (3, 1, 2)), Rows(documents[1], 0, (0, 4))])
    expected = reference.logits(reference.forward(batch))
    model = Decoder(config)
    load_weights(model, checkpoint_of(config, tensors))
    rows = rows_of([[[*ids.tolist(), 0] for ids in documents]], sum(LENGTHS))
    with torch.no_grad():
        logits = model.logits(model(rows))[0].numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * max(1.0, np.abs(expected).max()))
