"""Whole models: what is written, what is said of it, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints import planned_tensors as planned_module
from openherd.checkpoints.gguf_header import read_header
from openherd.checkpoints.gguf_writer import PlannedTensor
from openherd.cli import main
from openherd.errors import FormatError, HerdError, InputError, UnsupportedError
from openherd.quant.dequantize import dequantize
from openherd.quant.quantize import quantize
from openherd.quant.quantize_search import search
from openherd.quant.types import BLOCK_TYPES
from openherd.workshop.convert.run import convert
from openherd.workshop.convert.types import Dtype
from openherd.workshop.golden.places import attach, golden_of
from openherd.workshop.golden.record import record
from openherd.workshop.quantize import tensors as tensors_module
from openherd.workshop.quantize.recipe import RECIPE_KEY
from openherd.workshop.quantize.report import Report
from openherd.workshop.quantize.run import QuantizeOptions, Text, run_quantize
from openherd.workshop.verify.run import golden_for, verify
from tests.checkpoint_files import FFN, entry, f32, tiny_llama
from tests.unit.llm.tiny_file import write_model
from tests.unit.workshop.golden_models import model
from tests.unit.workshop.quiet import Quiet

WORDS = Text("words.txt", "hello world, this is a text to be read; hello " * 6)


def quantized(source: Path, out: Path, mix: str, **options: object) -> Report:
    asked = QuantizeOptions(mix, threads=2, **{"golden": False, **options})  # type: ignore[arg-type]
    return run_quantize(str(source), out, asked, offline=True, progress=Quiet())


def rows_of(path: Path, name: str) -> np.ndarray:
    header = read_header(path)
    return header.tensors[name].rows(header.data)


def test_tensors_are_those_of_the_specification(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    report = quantized(tiny_model, out, "q4_0")
    source = read_header(tiny_model)
    for name, info in read_header(out).tensors.items():
        was = source.tensors[name]
        if len(info.shape) == 1:
            assert info.type.name == "F32"
            np.testing.assert_array_equal(rows_of(out, name), was.rows(source.data))
        else:
            assert info.type.name == ("Q8_0" if name == "token_embd.weight" else "Q4_0")
            x = dequantize(was.rows(source.data), was.type)
            np.testing.assert_array_equal(rows_of(out, name), search(x, info.type))
    assert report.bits_per_weight == pytest.approx(
        8 * sum(t.nbytes for t in report.tensors) / sum(t.n_values for t in report.tensors)
    )
    assert report.worst[0].relative_error >= report.worst[-1].relative_error > 0


def test_everything_else_is_carried_along(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    quantized(tiny_model, out, "Q8_0")
    before, after = open_checkpoint(tiny_model), open_checkpoint(out)
    assert after.config == before.config
    assert list(after.tokenizer.tokens) == list(before.tokenizer.tokens)
    assert (after.chat_template, after.license) == (before.chat_template, before.license)
    assert after.metadata["general.file_type"] == 7
    for key, value in before.metadata.items():
        assert after.metadata[key] == value, key


def test_recipe(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    report = quantized(tiny_model, out, "Q4_K_M", calibrate=WORDS)
    recipe = json.loads(open_checkpoint(out).metadata[RECIPE_KEY])
    assert recipe == report.recipe
    assert recipe["mix"] == "Q4_K_M"
    assert recipe["source"]["name"] == "tiny.gguf"
    assert recipe["source"]["sha256"] == hashlib.sha256(tiny_model.read_bytes()).hexdigest()
    assert recipe["importance"]["texts"] == ["words.txt"]
    assert str(tmp_path) not in json.dumps(recipe)
    # 32 and 96 values are no whole blocks of 256
    assert {(t.wanted, t.type) for t in report.fallbacks} == {("Q4_K", "Q5_0"), ("Q6_K", "Q8_0")}


def test_golden_values_of_the_source_go_along(tiny_model: Path, tmp_path: Path) -> None:
    """Made where there are none, then carried from file to file; the copy is another quantisation of the same model."""
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    quantized(tiny_model, first, "Q8_0", golden=True)
    made = golden_of(first)
    assert made is not None
    assert {facts.type for facts in made.tensors.values()} == {"F32"}
    quantized(first, second, "Q4_0", golden=True, requantize=True)
    carried = golden_of(second)
    assert carried is not None
    assert carried.without_history() == made.without_history()


def test_floats_that_were_quantised_before(tmp_path: Path) -> None:
    """By way of a folder of float16, whose values are those of the first file's blocks."""
    (tmp_path / "x.gguf").write_bytes(model().build())
    quantized(tmp_path / "x.gguf", tmp_path / "small.gguf", "Q4_0", golden=True)
    convert(tmp_path / "small.gguf", tmp_path / "hf", "safetensors")
    quantized(tmp_path / "hf", tmp_path / "again.gguf", "Q8_0", golden=True)
    for place in (tmp_path / "small.gguf", tmp_path / "hf", tmp_path / "again.gguf"):
        report = verify(place, golden_for(place, None))
        assert report.passed, report.findings


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("block_type", ["Q8_0", "Q4_0"])
def test_blocks_that_come_back_to_their_type(block_type: str, dtype: Dtype, tmp_path: Path) -> None:
    """The golden values are those of blocks; made anew of floats, blocks of the same type have other bits."""
    (tmp_path / "x.gguf").write_bytes(model(block_type).build())
    attach(record(tmp_path / "x.gguf"), tmp_path / "x.gguf")
    convert(tmp_path / "x.gguf", tmp_path / "hf", "safetensors", dtype=dtype)
    quantized(tmp_path / "hf", tmp_path / "again.gguf", block_type, golden=True)
    report = verify(tmp_path / "again.gguf", golden_for(tmp_path / "again.gguf", None))
    assert report.passed, report.findings
    assert report.strength == "another quantisation"


def test_a_model_folder(tmp_path: Path) -> None:
    """Hugging Face's layout: the same blocks as from the GGUF file of the same weights."""
    folder = Path(__file__).parents[2] / "parity" / "readers" / "llama3-hf"
    direct, by_way, joined = (tmp_path / f"{name}.gguf" for name in ("direct", "by_way", "joined"))
    report = quantized(folder, direct, "Q8_0")
    assert "sha256" not in report.recipe["source"]  # three files
    convert(folder, joined, "gguf", with_golden=False)
    quantized(joined, by_way, "Q8_0")
    ours, theirs = read_header(direct), read_header(by_way)
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert {info.type.name for info in ours.tensors.values()} > {"F32"}
    for name, info in ours.tensors.items():
        np.testing.assert_array_equal(info.rows(ours.data), theirs.tensors[name].rows(theirs.data))


def test_names_that_are_not_utf8(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Any name may be given to a file; the keys of a model are UTF-8."""
    source = Path(os.fsdecode(os.fsencode(tmp_path) + b"/m\xff.gguf"))
    source.write_bytes(tiny_model.read_bytes())
    words = Path(os.fsdecode(os.fsencode(tmp_path) + b"/t\xff.txt"))
    words.write_text(WORDS.content)
    out = tmp_path / "out.gguf"
    options = ("--type", "Q8_0", "--calibrate", str(words), "--no-evaluate", "--no-golden")
    status = main(["quantize", str(source), str(out), *options])
    assert status == 0, capsys.readouterr().err
    keys = read_header(out).keys
    assert keys["quantize.imatrix.dataset"] == "t\ufffd.txt"
    assert json.loads(str(keys[RECIPE_KEY]))["source"]["name"] == "m\ufffd.gguf"


def test_importance_is_used_and_kept(tiny_model: Path, tmp_path: Path) -> None:
    plain, calibrated, again = (tmp_path / name for name in ("plain.gguf", "calibrated.gguf", "again.gguf"))
    matrix = tmp_path / "importance.gguf"
    quantized(tiny_model, plain, "Q4_0")
    quantized(tiny_model, calibrated, "Q4_0", calibrate=WORDS, importance=matrix)
    quantized(tiny_model, again, "Q4_0", importance=matrix)
    name = "blk.1.ffn_down.weight"
    assert (rows_of(plain, name) != rows_of(calibrated, name)).any()
    np.testing.assert_array_equal(rows_of(calibrated, name), rows_of(again, name))


def test_importance_changes_types_as_well(tmp_path: Path) -> None:
    """The mix is told of the matrix: Q4_0 gives the first of eight layers' down map offsets then."""
    from openherd.workshop.importance import Importance
    from openherd.workshop.quantize.mixes import Shape, find_mix

    tensor = PlannedTensor("blk.0.ffn_down.weight", (4, 32), BLOCK_TYPES["F32"], list)
    for matrix, kind in ((None, "Q4_0"), (Importance({}, {}, (), 1, 4), "Q4_1")):
        quantizer = tensors_module.TensorQuantizer(find_mix("Q4_0"), Shape("llama", 8, 1, 0, tied=False), matrix, 1)
        assert quantizer.plan(tensor).type.name == kind


def test_a_matrix_overwrites_nothing_unasked(tmp_path: Path) -> None:
    source, out, matrix = (write_model(tmp_path / "model.gguf"), tmp_path / "out.gguf", tmp_path / "matrix.gguf")
    before = source.read_bytes()
    link = tmp_path / "link.gguf"
    link.symlink_to(source)
    for place in (source, link):
        with pytest.raises(InputError, match="is the source itself"):
            quantized(source, out, "Q8_0", calibrate=WORDS, importance=place, overwrite=True)
    with pytest.raises(InputError, match="the model and the importance matrix at once"):
        quantized(source, out, "Q8_0", calibrate=WORDS, importance=tmp_path / "." / "out.gguf", overwrite=True)
    with pytest.raises(InputError, match="is a folder"):
        quantized(source, out, "Q8_0", calibrate=WORDS, importance=tmp_path, overwrite=True)
    matrix.write_text("precious")
    with pytest.raises(InputError, match=r"matrix.gguf exists already"):
        quantized(source, out, "Q8_0", calibrate=WORDS, importance=matrix)
    assert (source.read_bytes(), matrix.read_text(), out.exists()) == (before, "precious", False)
    quantized(source, out, "Q8_0", calibrate=WORDS, importance=matrix, overwrite=True)
    assert matrix.read_bytes()[:4] == b"GGUF"


def test_the_file_stays_when_the_comparison_fails(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("openherd.workshop.quantize.run.compare_distributions", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quantized(tiny_model, tmp_path / "out.gguf", "Q8_0", evaluate=WORDS)
    assert open_checkpoint(tmp_path / "out.gguf")


def test_same_bytes_whatever_the_threads(tiny_model: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{threads}.gguf" for threads in (1, 3)]
    for threads, file in zip((1, 3), files, strict=True):
        asked = QuantizeOptions("Q5_1", calibrate=WORDS, threads=threads, golden=False)
        run_quantize(str(tiny_model), file, asked, offline=True, progress=Quiet())
    assert files[0].read_bytes() == files[1].read_bytes()


def test_small_pieces_are_the_same_file(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, pieces = tmp_path / "whole.gguf", tmp_path / "pieces.gguf"
    quantized(tiny_model, whole, "Q4_1")
    monkeypatch.setattr(planned_module, "_CHUNK_VALUES", 3 * FFN)
    quantized(tiny_model, pieces, "Q4_1")
    assert whole.read_bytes() == pieces.read_bytes()


def test_evaluation(tiny_model: Path, tmp_path: Path) -> None:
    fine = quantized(tiny_model, tmp_path / "fine.gguf", "Q8_0", evaluate=WORDS, tokens=64)
    coarse = quantized(tiny_model, tmp_path / "coarse.gguf", "Q4_0", evaluate=WORDS, calibrate=WORDS, tokens=64)
    assert fine.evaluation is not None
    assert coarse.evaluation is not None
    assert fine.evaluation.divergence is not None
    assert coarse.evaluation.divergence is not None
    assert 0 < fine.evaluation.divergence.kl.mean < coarse.evaluation.divergence.kl.mean
    assert fine.evaluation.held_out
    assert not coarse.evaluation.held_out  # it was calibrated on
    assert "not held out" in "\n".join(coarse.lines())


def test_models_that_do_not_fit_the_memory_are_written_and_not_compared(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openherd.workshop.compare.free_memory", lambda: 1000)
    report = quantized(tiny_model, tmp_path / "out.gguf", "Q8_0", evaluate=WORDS)
    assert report.evaluation is not None
    assert report.evaluation.divergence is None
    assert "not compared" in "\n".join(report.lines())
    assert open_checkpoint(tmp_path / "out.gguf")


def test_a_quantised_source_is_refused_unless_asked(tiny_model: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    quantized(tiny_model, first, "Q8_0")
    with pytest.raises(UnsupportedError, match=r"first.gguf is quantised already \(Q8_0\)"):
        quantized(first, second, "Q4_0")
    report = quantized(first, second, "Q4_0", requantize=True)
    assert report.requantized
    assert "quantised twice" in "\n".join(report.lines())
    assert report.recipe["source"]["types"]["Q8_0"] > 0


def test_what_is_not_quantised_again_is_not_said_to_be(tiny_model: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    quantized(tiny_model, first, "Q4_0")
    report = quantized(first, second, "Q4_0", requantize=True)
    for name in read_header(first).tensors:
        np.testing.assert_array_equal(rows_of(first, name), rows_of(second, name))
    assert not report.requantized
    said = "\n".join(report.lines())
    assert "quantised twice" not in said
    assert "unchanged" in said

    file = model("Q8_0")  # its embedding is in float32
    first.write_bytes(file.build())
    report = quantized(first, second, "Q8_0", requantize=True, overwrite=True)
    assert [tensor.name for tensor in report.worst] == ["token_embd.weight"]
    assert not report.requantized
    assert "unchanged" not in "\n".join(report.lines())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers(bad: float, tiny_model: Path, tmp_path: Path) -> None:
    source, out = broken_model(tmp_path, bad), tmp_path / "out.gguf"
    with pytest.raises(FormatError, match=r"blk.1.ffn_up.weight holds weights that are not finite"):
        quantized(source, out, "Q4_0")
    assert os.listdir(tmp_path) == ["broken.gguf"]


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16"])
def test_weights_that_stay_and_are_no_numbers(bad: float, type_name: str, tmp_path: Path) -> None:
    """A norm; and, in its 16 bits, a router, which no mix changes."""
    file, name = model(experts=True), "output_norm.weight" if type_name == "F32" else "blk.1.ffn_gate_inp.weight"
    weight = next(t for t in file.tensors if t.name == name)
    values = np.ones(weight.dims[::-1], np.float32)
    values.reshape(-1)[-3] = bad
    weight.data, weight.type_id = quantize(values, BLOCK_TYPES[type_name]).tobytes(), BLOCK_TYPES[type_name].ggml_id
    source = tmp_path / "broken.gguf"
    source.write_bytes(file.build())
    with pytest.raises(FormatError, match=f"{name} holds weights that are not finite"):
        quantized(source, tmp_path / "out.gguf", "Q8_0")
    assert os.listdir(tmp_path) == ["broken.gguf"]


def test_weights_beyond_the_scales(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"blk.1.ffn_up.weight holds weights that are too large for Q4_0"):
        quantized(broken_model(tmp_path, 3e38), tmp_path / "out.gguf", "Q4_0")


def broken_model(folder: Path, value: float) -> Path:
    file = tiny_llama()
    at = next(i for i, tensor in enumerate(file.tensors) if tensor.name == "blk.1.ffn_up.weight")
    values = np.ones((FFN, 32), np.float32)
    values[50, 3] = value
    file.tensors[at] = entry("blk.1.ffn_up.weight", values)
    path = folder / "broken.gguf"
    path.write_bytes(file.build())
    return path


@pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_nothing(
    kind: type[BaseException], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the middle of the fifth tensor that is quantised."""
    encode, calls = tensors_module.TensorQuantizer._encode, []

    def stopping(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 5:
            raise kind
        return encode(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tensors_module.TensorQuantizer, "_encode", stopping)
    out = tmp_path / "out.gguf"
    with pytest.raises(kind):
        quantized(tiny_model, out, "Q4_0")
    assert len(calls) == 5
    assert os.listdir(tmp_path) == []


def test_an_existing_file(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_text("precious")
    with pytest.raises(InputError, match="exists already"):
        quantized(tiny_model, out, "Q8_0")
    assert out.read_text() == "precious"
    quantized(tiny_model, out, "Q8_0", overwrite=True)
    assert open_checkpoint(out)
    with pytest.raises(InputError, match="is a folder"):
        quantized(tiny_model, tmp_path, "Q8_0")


def test_the_source_itself(tmp_path: Path) -> None:
    source = write_model(tmp_path / "model.gguf")
    before = source.read_bytes()
    link = tmp_path / "link.gguf"
    link.symlink_to(source)
    for out in (source, link):
        with pytest.raises(InputError, match="is the source itself"):
            quantized(source, out, "Q8_0", overwrite=True)
    assert source.read_bytes() == before


def test_importance_of_another_model(tiny_model: Path, tmp_path: Path) -> None:
    matrix = tmp_path / "matrix.gguf"
    quantized(tiny_model, tmp_path / "a.gguf", "Q4_0", calibrate=WORDS, importance=matrix)
    file = tiny_llama()
    keys = {key: value for key, value in file.keys.items() if key != "llama.attention.layer_norm_rms_epsilon"}
    file.keys = keys | {"llama.attention.layer_norm_rms_epsilon": f32(1e-6)}
    other = tmp_path / "other.gguf"
    other.write_bytes(file.build())
    wide = read_importance_as(matrix, tmp_path / "wide.gguf", 64)
    with pytest.raises(HerdError, match=r"the importance of .* is for 64 columns, and the weight has 32"):
        quantized(other, tmp_path / "b.gguf", "Q4_0", importance=wide)
    assert not (tmp_path / "b.gguf").exists()


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ({"blk.9.attn_q.weight": (1, 32)}, "matrix.gguf has the importance of no tensor of tiny.gguf"),
        ({"blk.0.attn_q.weight": (1, 64)}, "blk.0.attn_q.weight is for 64 columns, and the weight has 32"),
        ({"blk.0.attn_q.weight": (2, 32)}, "blk.0.attn_q.weight is for 2 experts, and the weight has 1"),
    ],
)
def test_a_matrix_that_does_not_fit_is_refused_first(
    entries: dict[str, tuple[int, int]], says: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the golden values, which run the whole model."""

    def too_late(*arguments: object, **options: object) -> None:
        raise AssertionError

    monkeypatch.setattr("openherd.workshop.quantize.run.record", too_late)
    matrix = matrix_of(tmp_path / "matrix.gguf", entries)
    with pytest.raises(FormatError, match=says):
        quantized(tiny_model, tmp_path / "out.gguf", "Q4_0", importance=matrix, golden=True)
    assert os.listdir(tmp_path) == ["matrix.gguf"]


def test_a_part_that_is_weighted_is_said(tiny_model: Path, tmp_path: Path) -> None:
    some = matrix_of(tmp_path / "some.gguf", {"blk.0.attn_q.weight": (1, 32), "blk.1.attn_q.weight": (1, 32)})
    report = quantized(tiny_model, tmp_path / "some-out.gguf", "Q4_0", importance=some)
    assert [t.name for t in report.tensors if t.weighted] == ["blk.0.attn_q.weight", "blk.1.attn_q.weight"]
    assert "  importance       1 chunks of a.txt, for 2 of 15 tensors" in report.lines()
    assert sum(tensor["weighted"] for tensor in report.document()["tensors"]) == 2
    full = quantized(tiny_model, tmp_path / "full.gguf", "Q4_0", calibrate=WORDS)
    assert "  importance       1 chunks of words.txt" in full.lines()


def matrix_of(path: Path, entries: dict[str, tuple[int, int]]) -> Path:
    from openherd.workshop.importance import Importance, write_importance

    sums = {name: np.ones(shape) for name, shape in entries.items()}
    counts = {name: np.ones(shape[0]) for name, shape in entries.items()}
    write_importance(path, Importance(sums, counts, ("a.txt",), 1, 32))
    return path


def read_importance_as(path: Path, out: Path, width: int) -> Path:
    from openherd.workshop.importance import Importance, read_importance, write_importance

    found = read_importance(path)
    sums = {name: np.ones((1, width)) for name in found.sums}
    write_importance(out, Importance(sums, dict(found.counts), found.texts, 1, 32))
    return out


def test_blocks_of_256(tmp_path: Path) -> None:
    """The k-quants in a file, through the plan: two tensors of a mix."""
    from openherd.workshop.quantize.mixes import Shape, find_mix

    x = np.random.default_rng(0).standard_normal((8, 512), np.float32)
    quantizer = tensors_module.TensorQuantizer(find_mix("Q4_K_M"), Shape("llama", 8, 1, 0, tied=False), None, 2)
    for name, type_name in (("blk.0.ffn_down.weight", "Q6_K"), ("blk.3.attn_q.weight", "Q4_K")):
        tensor = PlannedTensor(name, x.shape, BLOCK_TYPES["F32"], lambda: [x[:3].view(np.uint8), x[3:].view(np.uint8)])
        planned = quantizer.plan(tensor)
        assert planned.type.name == type_name
        np.testing.assert_array_equal(np.concatenate(list(planned.chunks())), search(x, planned.type))
