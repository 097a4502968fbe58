"""Whole checkpoints in every layout: logits equal transformers'. Their token ids: `test_family_tokenizers`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from openherd.checkpoints import open_checkpoint
from openherd.engine.backends import make_backend
from openherd.engine.protocols import Backend, KVSpec, Limits
from tests.parity.batches import Rows, token_batch
from tests.parity.reader_cases import FOLDER, MODELS, RECORDED, prompts

EXPECTED = np.load(FOLDER / "logits.npz")
BLOCKS = ((7, 2, 5), (0, 4))
F32 = NDArray[np.float32]


@pytest.fixture(params=["reference", "native"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    backend = make_backend(request.param, 2)
    yield backend
    backend.close()


@pytest.mark.parametrize("folder", MODELS)
def test_logits(backend: Backend, folder: str) -> None:
    """Prefill alone, both prompts in one batch, and the second decoded beside the first's prefill in chunks."""
    checkpoint = open_checkpoint(FOLDER / folder)
    limits = Limits(max_context=64, max_seqs=2, max_batch_tokens=64, max_logit_rows=64)
    backend.load(checkpoint.config, checkpoint.tensors, KVSpec(dtype="f32"), limits, num_blocks=8)
    first, second = prompts()

    def run(*rows: Rows) -> F32:
        return backend.logits(backend.forward(token_batch(list(rows)))).copy()

    alone = [run(Rows(first, 0, BLOCKS[0])), run(Rows(second, 0, BLOCKS[1]))]
    for got, expected in zip(alone, EXPECTED[MODELS[folder]], strict=True):
        np.testing.assert_allclose(got[list(RECORDED)], expected, rtol=0, atol=1e-4)
    together = run(Rows(first, 0, BLOCKS[0]), Rows(second, 0, BLOCKS[1]))
    np.testing.assert_array_equal(together, np.concatenate(alone))
    decoded = []
    for i, token in enumerate(second):
        chunk = first[2 * i : 2 * i + 2]
        beside = [Rows(chunk, 2 * i, BLOCKS[0])] if len(chunk) else []
        decoded.append(run(Rows([token], i, BLOCKS[1]), *beside)[:1])
    np.testing.assert_array_equal(np.concatenate(decoded), alone[1])


def test_the_models_differ() -> None:
    """No case passes by another's weights."""
    llama1, llama2, llama3 = (EXPECTED[name] for name in ("llama1", "llama2", "llama3"))
    assert min(np.abs(a - b).max() for a, b in ((llama1, llama2), (llama2, llama3), (llama1, llama3))) > 0.1
