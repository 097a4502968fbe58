"""KL divergence: against its definition in float64, and of a model from itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from openherd.checkpoints import open_checkpoint
from openherd.errors import EngineError, InputError
from openherd.workshop.compare import compare_distributions, compare_tensors, require_same_tokenizer
from openherd.workshop.convert.run import convert
from openherd.workshop.divergence import diverge
from tests.checkpoint_files import text, texts, tiny_llama
from tests.unit.llm.tiny_llm import SPEC
from tests.unit.workshop.golden_models import model
from tests.unit.workshop.test_convert import source, with_sentencepiece

CHUNKS = [[3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [5, 8, 9, 7, 9]]
V = 40


def logits(seed: int, spread: float = 3.0):
    """The same random rows for the same chunk; in blocks of two."""

    def rows(ids):
        rng = np.random.default_rng([seed, *ids])
        values = spread * rng.standard_normal((len(ids), V), np.float32)
        return [values[start : start + 2] for start in range(0, len(ids), 2)]

    return rows


def whole(of, chunk) -> np.ndarray:
    return np.concatenate(of(chunk)).astype(np.float64)


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def test_as_defined() -> None:
    found = diverge(logits(1), logits(2), CHUNKS)
    log_a, log_b = (np.stack([log_softmax(whole(logits(seed), chunk)) for chunk in CHUNKS]) for seed in (1, 2))
    kl = (np.exp(log_a) * (log_a - log_b)).sum(axis=-1)
    assert found.positions == kl.size == 15
    assert found.kl.mean == pytest.approx(kl.mean(), rel=1e-6)
    assert found.kl.interval == pytest.approx(1.96 * kl.mean(axis=1).std(ddof=1) / np.sqrt(3), rel=1e-5)
    assert (found.kl_median, found.kl_max) == (pytest.approx(np.median(kl)), pytest.approx(kl.max()))
    same = log_a.argmax(axis=-1) == log_b.argmax(axis=-1)
    assert found.same_top.mean == pytest.approx(same.mean())
    for nll, log_p in ((found.nll_a, log_a), (found.nll_b, log_b)):
        targets = [log_p[c, i, chunk[i + 1]] for c, chunk in enumerate(CHUNKS) for i in range(4)]
        assert nll == pytest.approx(-np.mean(targets), rel=1e-6)


def test_small_divergences_are_not_lost_in_rounding() -> None:
    """KL of distributions that differ by 1e-3 in every logit is 5e-7 or so; float32 sums alone would lose it."""

    def near(ids):
        rng = np.random.default_rng([7, *ids])
        return [block + np.float32(1e-3) * rng.standard_normal(block.shape, np.float32) for block in logits(1)(ids)]

    found = diverge(logits(1), near, CHUNKS)
    log_a, log_b = (np.stack([log_softmax(whole(of, chunk)) for chunk in CHUNKS]) for of in (logits(1), near))
    assert found.kl.mean == pytest.approx((np.exp(log_a) * (log_a - log_b)).sum(axis=-1).mean(), rel=0.02)
    assert found.same_top.mean == 1


def test_of_a_model_from_itself() -> None:
    found = diverge(logits(1), logits(1), CHUNKS[:1])
    assert (found.kl.mean, found.kl_max, found.same_top.mean) == (0, 0, 1)
    assert found.kl.interval is None  # one chunk says nothing of the spread


def test_logits_that_are_no_numbers() -> None:
    with pytest.raises(EngineError, match="not finite"):
        diverge(logits(1), lambda ids: [np.full((len(ids), V), np.nan, np.float32)], [[1, 2]])


def test_models(tiny_model: Path) -> None:
    """Through the engine: a model against itself is nothing, against other weights something."""
    a = open_checkpoint(tiny_model)
    found = compare_distributions(a, a, "hello world, " * 9, context=8, max_tokens=16, threads=1)
    assert (found.kl.mean, found.same_top.mean) == (0, 1)
    assert (found.positions, found.chunks) == (16, 2)


def test_tensors(tiny_model: Path, tmp_path: Path) -> None:
    a = open_checkpoint(tiny_model)
    assert all(tensor.relative_error == 0 for tensor in compare_tensors(a, a) or [None])
    file = tmp_path / "other.gguf"
    data = bytearray(tiny_model.read_bytes())
    at = len(data) - 4 * 32 * 4  # inside the last tensor
    data[at : at + 4] = np.float32(100).tobytes()
    file.write_bytes(data)
    worst, *others = compare_tensors(a, open_checkpoint(file)) or []
    assert worst.relative_error > 0.5
    assert all(tensor.relative_error == 0 for tensor in others)


def test_other_shapes_have_no_tensors_side_by_side(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "untied.gguf"
    file = tiny_llama(tied=False)
    path.write_bytes(file.build())
    assert compare_tensors(open_checkpoint(tiny_model), open_checkpoint(path)) is None


@pytest.mark.parametrize("kind", ["bpe", "spm"])
def test_a_model_and_its_conversion(kind: str, tmp_path: Path) -> None:
    """Layouts spell one pre-tokenizer in several ways, and one has scores where another has merges."""
    file = model() if kind == "bpe" else with_sentencepiece(model())
    if kind == "bpe":
        file.keys["tokenizer.ggml.pre"] = text("llama3")
    path = source(tmp_path / "model.gguf", file)
    convert(path, tmp_path / "folder", "safetensors", with_golden=False)
    a, b = open_checkpoint(path), open_checkpoint(tmp_path / "folder")
    if kind == "bpe":
        assert (a.tokenizer.pre, b.tokenizer.pre) == ("llama3", "llama-bpe")
    else:
        assert not a.tokenizer.merges
        assert b.tokenizer.merges
    found = compare_distributions(a, b, "hello world, hello", context=8, max_tokens=16, threads=1)
    assert found.kl.mean == 0
    require_same_tokenizer(b, a)


def test_merges_that_differ_are_still_refused(tmp_path: Path) -> None:
    first, second = source(tmp_path / "a.gguf"), model()
    second.keys["tokenizer.ggml.merges"] = texts(list(reversed(SPEC.merges)))
    other = source(tmp_path / "b.gguf", second)
    with pytest.raises(InputError, match="their merges differ"):
        require_same_tokenizer(open_checkpoint(first), open_checkpoint(other))


def test_other_tokenizers_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    file = tiny_llama()
    tokens = ["<|endoftext|>", "<s>", "</s>", "<|im_end|>", *(f"u{i}" for i in range(46))]
    first, second = tmp_path / "a.gguf", tmp_path / "b.gguf"
    first.write_bytes(file.build())
    file.keys["tokenizer.ggml.tokens"] = texts(tokens)
    file.keys["tokenizer.ggml.merges"] = texts(["u 1", "u 2"])
    second.write_bytes(file.build())
    with pytest.raises(InputError, match=r"different tokenizers .token 4 is 't0' in one and 'u0' in the other"):
        compare_distributions(open_checkpoint(first), open_checkpoint(second), "t1", threads=1)
    with pytest.raises(InputError, match="different tokenizers"):
        compare_distributions(open_checkpoint(tiny_model), open_checkpoint(second), "t1", threads=1)
