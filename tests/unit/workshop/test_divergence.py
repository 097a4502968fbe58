"""KL divergence: against its definition in float64, and of a model from itself."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openherd.checkpoints import open_checkpoint
from openherd.errors import EngineError, InputError
from openherd.tokenizers.spec import Strip, TokenType
from openherd.workshop.compare import compare_distributions, compare_tensors, require_same_tokenizer
from openherd.workshop.convert.run import convert
from openherd.workshop.divergence import diverge
from tests.checkpoint_files import DIM, LAYERS, entry, text, texts, tiny_llama
from tests.parity.family_layouts import from_hf
from tests.parity.reader_cases import FOLDER
from tests.unit.llm.tiny_llm import SPEC
from tests.unit.workshop.golden_models import model, tensor
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


def test_tensors_have_the_names_of_the_second_file(tmp_path: Path) -> None:
    """Those of a GGUF file are the ones that herd quantize reports, and a tensor of several names them."""
    path = source(tmp_path / "x.gguf", model(experts=True))
    convert(path, tmp_path / "hf", "safetensors", with_golden=False)
    a, b = open_checkpoint(path), open_checkpoint(tmp_path / "hf")
    assert {t.name for t in compare_tensors(a, b) or []} == a.tensors.keys()
    for one in (a, b):
        names = {t.name for t in compare_tensors(one, a) or []}
        assert {"blk.0.attn_q.weight", "output_norm.weight"} <= names
        assert "blk.1.ffn_up_exps.weight (model.layers.1.block_sparse_moe.experts.2.w3.weight)" in names
        assert len(names) == len(a.tensors)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("falcon_7b", "transformer.h.0.self_attention.query_key_value.weight (model.layers.0.self_attn.q_proj.weight)"),
        ("mpt_7b", "transformer.blocks.0.attn.Wqkv.weight (model.layers.0.self_attn.v_proj.weight)"),
        ("mpt_7b", "transformer.blocks.0.ffn.up_proj.weight"),
    ],
)
def test_tensors_have_the_names_of_a_folder(family: str, name: str, tiny_model: Path, tmp_path: Path) -> None:
    config, tensors = from_hf(family, tmp_path)
    a = replace(open_checkpoint(tiny_model), config=config, tensors=tensors, format="Hugging Face (safetensors)")
    assert name in {t.name for t in compare_tensors(a, a) or []}


def test_tensors_have_the_names_of_metas_files() -> None:
    a = open_checkpoint(FOLDER / "llama3-meta")
    assert "layers.0.attention.wq.weight" in {t.name for t in compare_tensors(a, a) or []}


def test_other_shapes_have_no_tensors_side_by_side(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "untied.gguf"
    file = tiny_llama(tied=False)
    path.write_bytes(file.build())
    assert compare_tensors(open_checkpoint(tiny_model), open_checkpoint(path)) is None


def test_tensors_of_one_model_alone_are_listed(tmp_path: Path) -> None:
    """Biases, and a head of its own where the other's is the embedding: whichever of the two is A."""
    more = model()
    more.tensors.append(replace(tensor(more, "token_embd.weight"), name="output.weight"))
    for part, rows in (("q", DIM), ("k", DIM // 2), ("v", DIM // 2)):
        more.tensors += [entry(f"blk.{i}.attn_{part}.bias", np.full(rows, 3, np.float32)) for i in range(LAYERS)]
    a, b = open_checkpoint(source(tmp_path / "a.gguf")), open_checkpoint(source(tmp_path / "b.gguf", more))
    for one, other, types in ((a, b, (None, "F32")), (b, a, ("F32", None))):
        found = compare_tensors(one, other) or []
        alone = [t for t in found if None in (t.type_a, t.type_b)]
        assert found[: len(alone)] == alone, "the worst first"
        assert {t.name for t in alone} == {"output.weight"} | {
            f"blk.{i}.attn_{part}.bias" for i in range(LAYERS) for part in "qkv"
        }
        assert len(alone) == 3 * LAYERS + 1
        assert {(t.type_a, t.type_b, t.relative_error) for t in alone} == {(*types, math.inf)}
        assert all(t.relative_error == 0 for t in found[len(alone) :])


@pytest.mark.filterwarnings("error")
def test_errors_that_are_no_numbers_come_first(tmp_path: Path) -> None:
    """A norm of zeros has no size to measure by, and what is not finite has no difference."""
    files = [model(), model()]
    tensor(files[0], "blk.0.attn_norm.weight").data = bytes(4 * DIM)
    for file, values in zip(files, ([np.nan, np.inf], [1, np.inf]), strict=True):
        tensor(file, "blk.1.attn_norm.weight").data = np.resize(values, DIM).astype("<f4").tobytes()
        largest = 3e38 if file is files[0] else -3e38
        tensor(file, "output_norm.weight").data = np.full(DIM, largest, "<f4").tobytes()
    a, b = (open_checkpoint(source(tmp_path / f"{i}.gguf", file)) for i, file in enumerate(files))
    found = {t.name: t.relative_error for t in compare_tensors(a, b) or []}
    names = list(found)
    assert set(names[:2]) == {"blk.0.attn_norm.weight", "blk.1.attn_norm.weight"}
    assert found["blk.0.attn_norm.weight"] == math.inf
    assert math.isnan(found["blk.1.attn_norm.weight"])
    assert names[2] == "output_norm.weight"
    assert found["output_norm.weight"] == pytest.approx(2), "values of float32 whose difference is beyond it"


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


def kinds(**changed: int) -> list[int]:
    """SPEC's token types with others for some ids, `t70=...`."""
    found = list(SPEC.token_types)
    for token, kind in changed.items():
        found[int(token[1:])] = kind
    return found


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"normalizer": "NFKC"}, "normalizer is None in one and 'NFKC' in the other"),
        ({"add_bos": True}, "add_bos is False in one and True in the other"),
        ({"strips": {5: Strip(left=True)}}, "token 5 strips other spaces in one than in the other"),
        ({"token_types": kinds(t70=TokenType.USER_DEFINED)}, "token 70 is NORMAL in one and USER_DEFINED in the other"),
        ({"bos_id": 71}, "token 71 is NORMAL in one and CONTROL in the other"),
        ({"eos_id": 72}, "token 72 is NORMAL in one and CONTROL in the other"),
    ],
)
def test_what_decides_ids_is_compared(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    a = open_checkpoint(source(tmp_path / "a.gguf"))
    b = replace(a, tokenizer=replace(a.tokenizer, **changes))
    for one, other in ((a, b), (b, a)):
        with pytest.raises(InputError, match="different tokenizers") as refusal:
            require_same_tokenizer(one, other)
        assert one is b or says in str(refusal.value)


def test_where_added_tokens_are_sought_is_compared(tmp_path: Path) -> None:
    a = open_checkpoint(source(tmp_path / "a.gguf"))
    changes = {"normalizer": "NFC", "token_types": kinds(t70=TokenType.USER_DEFINED)}
    a = replace(a, tokenizer=replace(a.tokenizer, **changes))  # type: ignore[arg-type]
    b = replace(a, tokenizer=replace(a.tokenizer, normalized=frozenset({70})))
    with pytest.raises(InputError, match="token 70 is sought in normalised text in one"):
        require_same_tokenizer(a, b)


def test_rules_of_sentencepiece_are_compared(tmp_path: Path) -> None:
    a = open_checkpoint(source(tmp_path / "a.gguf", with_sentencepiece(model())))
    for field, value in (("prefix_rule", "metaspace"), ("add_space_prefix", False), ("unk_id", 9)):
        b = replace(a, tokenizer=replace(a.tokenizer, **{field: value}))
        with pytest.raises(InputError, match=f"{field} is .* in one and {value!r} in the other"):
            require_same_tokenizer(a, b)


def test_a_beginning_that_is_written_must_be_the_same(tmp_path: Path) -> None:
    a = open_checkpoint(source(tmp_path / "a.gguf"))
    controls = [i for i, kind in enumerate(a.tokenizer.token_types) if kind == TokenType.CONTROL][:2]
    one, other = (replace(a, tokenizer=replace(a.tokenizer, add_bos=True, bos_id=i)) for i in controls)
    with pytest.raises(InputError, match=f"bos_id is {controls[0]} in one and {controls[1]} in the other"):
        require_same_tokenizer(one, other)


def test_what_changes_no_id_may_differ(tmp_path: Path) -> None:
    """A chat model and what it was tuned from: the same ids, ended by another control token."""
    a = open_checkpoint(source(tmp_path / "a.gguf"))
    control = next(i for i, k in enumerate(a.tokenizer.token_types) if k == TokenType.CONTROL and i != SPEC.eos_id)
    changed = {"eos_id": control, "pad_id": 3, "add_eos": True, "token_types": kinds(t70=TokenType.UNUSED, t71=0)}
    require_same_tokenizer(a, replace(a, tokenizer=replace(a.tokenizer, **changed)))  # type: ignore[arg-type]


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
