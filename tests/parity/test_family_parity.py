"""Every family against transformers, from Hugging Face's layout and from GGUF as llama.cpp's converter writes it: both
backends, prefill and decode, alone and batched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from openherd.engine.backends import make_backend
from openherd.engine.protocols import Backend, KVSpec, Limits
from tests.parity.batches import Rows, token_batch
from tests.parity.family_cases import EXPECTED_FILE, RECORDED, families, prompts
from tests.parity.family_layouts import NOT_IN_GGUF, Model, from_gguf, from_hf

F32 = NDArray[np.float32]
EXPECTED = np.load(EXPECTED_FILE)
FAMILIES = families()
# transformers takes LongRoPE's short list for the short prompt, and here the context asked for decides.
SHORT_AND_LONG = "phi3_long"
BLOCKS = ((12, 3, 9, 0, 5, 7, 1, 11, 2, 4), (8, 6))
LIMITS = Limits(max_context=256, max_seqs=2, max_batch_tokens=200, max_logit_rows=200)


@pytest.fixture(params=["reference", "native"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    backend = make_backend(request.param, 2)
    yield backend
    backend.close()


def load(backend: Backend, model: Model, limits: Limits = LIMITS) -> None:
    backend.load(*model, KVSpec(dtype="f32"), limits, num_blocks=13)


def logits(backend: Backend, *sequences: Rows) -> F32:
    return backend.logits(backend.forward(token_batch(list(sequences)))).copy()


def assert_expected(name: str, rows: list[F32]) -> None:
    for got, expected in list(zip(rows, EXPECTED[name], strict=True))[: 1 if name == SHORT_AND_LONG else None]:
        np.testing.assert_allclose(got[list(RECORDED)], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_prefill_from_hugging_face(backend: Backend, name: str, tmp_path: Path) -> None:
    """Alone and in one batch, to the bit."""
    load(backend, from_hf(name, tmp_path))
    first, second = prompts(97)
    alone = [logits(backend, Rows(ids, 0, blocks)) for ids, blocks in zip((first, second), BLOCKS, strict=True)]
    assert_expected(name, alone)
    together = logits(backend, Rows(first, 0, BLOCKS[0]), Rows(second, 0, BLOCKS[1]))
    assert np.array_equal(together, np.concatenate(alone)), "a row's bits depend on its company"


@pytest.mark.parametrize("read", [from_hf, from_gguf])
def test_longrope_takes_its_list_by_the_context(
    backend: Backend, read: Callable[[str, Path], Model], tmp_path: Path
) -> None:
    """Loaded for its original context, the short list, as transformers takes it for a short prompt."""
    load(backend, read(SHORT_AND_LONG, tmp_path), replace(LIMITS, max_context=64))
    got = logits(backend, Rows(prompts(97)[1], 0, BLOCKS[1]))[list(RECORDED)]
    np.testing.assert_allclose(got, EXPECTED[SHORT_AND_LONG][1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - NOT_IN_GGUF))
def test_decode_from_gguf(name: str, tmp_path: Path) -> None:
    """The second prompt token by token beside a chunked prefill of the first: the bits of a prefill."""
    backend = make_backend("native", 2)
    load(backend, from_gguf(name, tmp_path))
    first, second = prompts(97)
    alone = [logits(backend, Rows(ids, 0, blocks)) for ids, blocks in zip((first, second), BLOCKS, strict=True)]
    assert_expected(name, alone)
    chunks = np.array_split(first, [50, 51, 64, 100, 101, 102, 127])
    got: tuple[list[F32], list[F32]] = ([], [])
    start = 0
    for i, token in enumerate(second):
        sequences = [Rows([int(token)], i, BLOCKS[1])]
        if i < len(chunks):
            sequences.append(Rows(chunks[i], start, BLOCKS[0]))
            start += len(chunks[i])
        rows = logits(backend, *sequences)
        got[1].append(rows[:1])
        got[0].append(rows[1:])
    for decoded, prefilled in zip(got, alone, strict=True):
        assert np.array_equal(np.concatenate(decoded), prefilled), "decode and prefill differ in bits"
    backend.close()


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - NOT_IN_GGUF))
def test_both_layouts_make_the_same_model(name: str, tmp_path: Path) -> None:
    """Equal tensors; equal configs but for what GGUF has no key for."""
    (hf, hf_tensors), (gguf, gguf_tensors) = from_hf(name, tmp_path), from_gguf(name, tmp_path)
    assert list(hf_tensors) == list(gguf_tensors)
    for key, tensor in hf_tensors.items():
        np.testing.assert_array_equal(tensor.rows(), gguf_tensors[key].rows(), err_msg=key)
    assert (hf.family, hf.sliding_window, hf.full_attention_every) == (
        gguf.family,
        gguf.sliding_window,
        gguf.full_attention_every,
    )
