"""What a model takes of a shared budget: within its share, never less than its context, the same whatever is free."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from openherd.engine.memory import CONTEXTS, LEAST_CONTEXT, bound_kv
from openherd.errors import FormatError
from openherd.llm.loading import load_model
from openherd.llm.memory import PROCESS_BYTES, fit_share
from openherd.options import EngineOptions
from tests.unit.llm.tiny_file import CONTEXT, write_model

OPTIONS = EngineOptions(context=128, max_batch_tokens=16)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("memory") / "tiny.gguf")


def test_the_cache_fills_the_share_between_one_context_and_several(tiny: Path) -> None:
    least, most = fit_share(tiny, OPTIONS, 0), fit_share(tiny, OPTIONS, 2**40)
    assert least.options.kv_memory is not None
    assert most.options.kv_memory == CONTEXTS * least.options.kv_memory
    fixed = least.num_bytes - least.options.kv_memory
    assert fixed > PROCESS_BYTES
    between = least.num_bytes + least.options.kv_memory // 2
    assert fit_share(tiny, OPTIONS, between).num_bytes == between
    assert replace(most.options, kv_memory=None) == OPTIONS


def test_what_was_asked_is_taken_and_the_model_runs_with_it(tiny: Path) -> None:
    asked = replace(OPTIONS, kv_memory=2**20)
    assert fit_share(tiny, asked, 0).options == asked
    share = fit_share(tiny, OPTIONS, 0)
    model = load_model(tiny, options=share.options, template=None, adapters={}, offline=True, progress=None)
    try:
        assert model.engine.context == OPTIONS.context
    finally:
        model.engine.close()


def test_a_context_that_nobody_asked_for_may_shrink_to_a_useful_one() -> None:
    long, short = (
        bound_kv(100, 16, context=None, max_context=size, max_seqs=32) for size in (LEAST_CONTEXT * 4, CONTEXT)
    )
    assert long.least * 4 == bound_kv(100, 16, context=LEAST_CONTEXT * 4, max_context=2**17, max_seqs=32).least
    assert short.least * CONTEXTS == short.most
    assert bound_kv(100, 16, context=CONTEXT, max_context=CONTEXT, max_seqs=1).most == short.least


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.gguf"
    file.write_bytes(b"GGUF\x03")
    with pytest.raises(FormatError):
        fit_share(file, OPTIONS, 0)
