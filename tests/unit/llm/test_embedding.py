"""Embeddings against the definition: the last norm's output of the oracle, averaged and brought to length 1."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from openherd import HerdError
from openherd.engine.protocols import F32, I32, TapSite
from openherd.errors import ContextLengthError, InputError
from openherd.llm import Hooks
from tests.unit.llm.tiny_llm import CONFIG, PROMPTS, num_used_blocks, params, tiny_llm


class States:
    """Keeps what the last norm gives for every position of a prompt."""

    sites: tuple[TapSite, ...] = ((0, "final"),)
    rows = "all"

    def __init__(self) -> None:
        self.seen: dict[int, F32] = {}

    def observe(self, seq_id: int, positions: I32, hidden: Mapping[TapSite, F32]) -> None:
        self.seen |= {int(p): row.copy() for p, row in zip(positions, hidden[self.sites[0]], strict=True)}


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_a_vector_is_the_mean_of_the_last_states(backend: str) -> None:
    with tiny_llm(backend=backend) as llm:
        found = llm.embed(PROMPTS)
        assert found.shape == (len(PROMPTS), CONFIG.dim)
        assert found.dtype == np.float32
        for prompt, vector in zip(PROMPTS, found, strict=True):
            states = States()
            llm.generate(prompt, params(max_tokens=1), hooks=Hooks(taps=(states,)))
            rows = np.array([states.seen[p] for p in range(llm.count_tokens(prompt))], np.float64)
            mean = rows.mean(axis=0)
            np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
            assert np.array_equal(llm.embed(prompt)[0], vector), "other bits alone than in a batch"
        assert num_used_blocks(llm) == 0


def test_a_long_text_prefilled_in_chunks_has_the_bits_of_a_step() -> None:
    """The tiny engine takes 64 rows a step; beside others a chunk ends elsewhere."""
    text = "hello world, " * 25
    with tiny_llm() as llm:
        assert llm.count_tokens(text) > 128
        alone = llm.embed(text)[0]
        together = llm.embed([*PROMPTS, text, text])
        assert np.array_equal(together[-1], alone)
        assert np.array_equal(together[-2], alone)
        assert llm.stats.num_split_prompts >= 3


def test_what_has_no_embedding_is_refused() -> None:
    with tiny_llm(context=32) as llm:
        with pytest.raises(ContextLengthError):
            llm.embed(["hello", "hello " * 40])
        with pytest.raises(InputError, match="empty"):
            llm.embed([""])
        with pytest.raises(InputError, match="text or token ids"):
            llm.embed([[{"role": "user", "content": "hello"}]])  # type: ignore[list-item]
        with pytest.raises(HerdError, match="adapter"):
            llm.embed("hello", adapter="none")
        assert llm.embed([]).shape == (0, CONFIG.dim)
        assert num_used_blocks(llm) == 0
