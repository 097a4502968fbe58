"""The tiny LLM for a test, which must have given all blocks back at its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from openherd import LLM
from tests.unit.llm.tiny_llm import num_used_blocks, tiny_llm


@pytest.fixture
def llm() -> Iterator[LLM]:
    with tiny_llm() as model:
        yield model
        assert num_used_blocks(model) == 0, "a test's answers were not all freed"
