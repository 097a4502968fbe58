"""herd convert: every way between layouts keeps the function, the tokenizer and what goes along."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.computed_elsewhere import computes_elsewhere
from openherd.checkpoints.describe import describe
from openherd.checkpoints.gguf_header import read_header
from openherd.checkpoints.new_file import Progress
from openherd.checkpoints.safetensors import read_safetensors
from openherd.cli import main
from openherd.config import ModelConfig
from openherd.errors import InputError, OutputError, UnsupportedError
from openherd.quant.dequantize import dequantize
from openherd.tokenizers import Tokenizer
from openherd.tokenizers.spec import TokenType
from openherd.workshop.compare import require_same_tokenizer
from openherd.workshop.convert import run
from openherd.workshop.convert.run import convert
from openherd.workshop.golden.places import attach, golden_of
from openherd.workshop.golden.record import record
from openherd.workshop.golden.vocabulary import TEXTS
from openherd.workshop.quantize.source import open_source
from openherd.workshop.verify.run import golden_for, verify
from tests.checkpoint_files import GGUFFile, array, entry, f32, text, texts, truth, u32, u64
from tests.unit.llm.tiny_llm import SPEC
from tests.unit.tokenizers.small_vocabularies import spm_spec
from tests.unit.workshop.golden_models import model, requantised, tensor, values, written


def source(path: Path, file: GGUFFile | None = None) -> Path:
    path.write_bytes((file or model()).build())
    return path


def with_sentencepiece(file: GGUFFile) -> GGUFFile:
    """The same weights under a SentencePiece vocabulary."""
    spec = spm_spec()
    rows = np.random.default_rng(5).standard_normal((len(spec.tokens), 32), np.float32)
    file.tensors[0] = entry("token_embd.weight", rows)
    file.keys = {key: value for key, value in file.keys.items() if not key.startswith("tokenizer.ggml")}
    file.keys |= {
        "tokenizer.ggml.model": text("llama"),
        "tokenizer.ggml.tokens": texts(list(spec.tokens)),
        "tokenizer.ggml.token_type": array(5, np.array(list(spec.token_types), "<i4")),
        "tokenizer.ggml.scores": array(6, np.array(list(spec.scores), "<f4")),
        "tokenizer.ggml.bos_token_id": u32(spec.bos_id or 0),
        "tokenizer.ggml.eos_token_id": u32(spec.eos_id or 0),
        "tokenizer.ggml.unknown_token_id": u32(spec.unk_id or 0),
        "tokenizer.ggml.add_bos_token": truth(1),
    }
    return file


def with_rope(file: GGUFFile, **keys: tuple[int, bytes]) -> GGUFFile:
    file.keys |= {f"llama.{key.replace('__', '.')}": value for key, value in keys.items()}
    return file


def with_llama3_divisors(file: GGUFFile) -> GGUFFile:
    """Divisors as Llama 3.1's rule makes them for heads of 8 values and a base of 500,000."""
    base = 500000.0 ** (-np.arange(0, 8, 2) / 8)
    kept = np.clip((8192 * base / (2 * np.pi) - 1) / 3, 0, 1)
    divisors = (1 / (kept + (1 - kept) / 8)).astype(np.float32)
    assert np.ptp(divisors) > 1, "the rule has no effect at this size"
    file.tensors.append(entry("rope_freqs.weight", divisors))
    file.keys["llama.rope.freq_base"] = f32(500000.0)
    return file


def biased(file: GGUFFile) -> GGUFFile:
    rng = np.random.default_rng(9)
    for layer in range(2):
        for stem in ("attn_q", "attn_k", "attn_v", "attn_output"):
            size = tensor(file, f"blk.{layer}.{stem}.weight").dims[1]
            file.tensors.append(entry(f"blk.{layer}.{stem}.bias", rng.standard_normal(size, np.float32)))
    return file


MODELS = {
    "byte-level": model,
    "SentencePiece": lambda: with_sentencepiece(model()),
    "linear rope": lambda: with_rope(model(), rope__scaling__type=text("linear"), rope__scaling__factor=f32(2.0)),
    "yarn": lambda: with_rope(
        model(),
        rope__scaling__type=text("yarn"),
        rope__scaling__factor=f32(4.0),
        rope__scaling__original_context_length=u32(128),
        rope__freq_base=f32(50000.0),
    ),
    "Llama 3": lambda: with_llama3_divisors(model()),
    "biases": lambda: biased(model()),
    "bf16": lambda: model("BF16"),
}


@pytest.mark.parametrize("name", MODELS)
def test_to_safetensors_and_back(name: str, tmp_path: Path) -> None:
    """The golden values of the first file hold, digest by digest, for the folder and for the second file."""
    first = source(tmp_path / "first.gguf", MODELS[name]())
    convert(first, tmp_path / "folder", "safetensors")
    folder = open_checkpoint(tmp_path / "folder")
    assert folder.config.family == "llama"
    golden = golden_for(tmp_path / "folder", None)
    for path in (tmp_path / "folder", first):
        report = verify(path, golden)
        assert report.passed, report.findings
        assert report.strength == "same artifact"
    convert(tmp_path / "folder", tmp_path / "second.gguf", "gguf")
    report = verify(tmp_path / "second.gguf", golden_for(tmp_path / "second.gguf", None))
    assert report.passed, report.findings
    was, now = read_header(first), read_header(tmp_path / "second.gguf")
    assert was.tensors.keys() == now.tensors.keys()
    for name_, info in was.tensors.items():
        assert now.tensors[name_].rows(now.data).tobytes() == info.rows(was.data).tobytes(), name_


def test_what_goes_along(tmp_path: Path) -> None:
    convert(source(tmp_path / "x.gguf"), tmp_path / "hf", "safetensors")
    was, now = open_checkpoint(tmp_path / "x.gguf"), open_checkpoint(tmp_path / "hf")
    assert now.license == was.license == "apache-2.0"
    assert now.chat_template == was.chat_template
    assert now.tokenizer.stop_ids == was.tokenizer.stop_ids
    one, other = Tokenizer(was.tokenizer), Tokenizer(now.tokenizer)
    for string in TEXTS:
        for special in (False, True):
            assert one.encode(string, special=special) == other.encode(string, special=special)
    (tmp_path / "hf" / "LICENSE").write_text("the licence's text")
    (tmp_path / "hf" / "config.json.bak").write_text("{}")
    convert(tmp_path / "hf", tmp_path / "again", "safetensors")
    assert (tmp_path / "again" / "LICENSE").read_text() == "the licence's text"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors", "golden.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "hf" / name).read_bytes(), name
    assert not (tmp_path / "again" / "config.json.bak").exists()


@pytest.mark.parametrize("name", ["Tiny Model 1M Instruct", "Zwerg \u96ea", "n" * 300, "org/model", "C:\\models\\m"])
def test_the_name_goes_along(name: str, tmp_path: Path) -> None:
    file = model()
    file.keys["general.name"] = text(name)
    convert(source(tmp_path / "x.gguf", file), tmp_path / "hf", "safetensors", with_golden=False)
    assert describe(tmp_path / "hf")["name"] == name
    convert(tmp_path / "hf", tmp_path / "again", "safetensors", with_golden=False)
    convert(tmp_path / "again", tmp_path / "y.gguf", "gguf", with_golden=False)
    assert describe(tmp_path / "y.gguf")["name"] == name


@pytest.mark.parametrize("name", ["n" * 5_000_000, "two\nlines", "\x1b[2J", "", " "])
def test_what_is_no_name_does_not_go_along(name: str, tmp_path: Path) -> None:
    """With five million letters of it the new config.json could not be read."""
    file = model()
    file.keys["general.name"] = text(name)
    convert(source(tmp_path / "x.gguf", file), tmp_path / "hf", "safetensors", with_golden=False)
    assert describe(tmp_path / "hf")["name"] is None
    convert(tmp_path / "hf", tmp_path / "y.gguf", "gguf", with_golden=False)
    assert describe(tmp_path / "y.gguf")["name"] == "hf"


@pytest.mark.parametrize("name", ["n" * 301, "two\nlines", "", 3, None])
def test_a_name_of_a_folder_is_bounded(name: object, tmp_path: Path) -> None:
    convert(source(tmp_path / "x.gguf"), tmp_path / "hf", "safetensors", with_golden=False)
    config = tmp_path / "hf" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"openherd_name": name}))
    assert describe(tmp_path / "hf")["name"] is None
    assert open_checkpoint(tmp_path / "hf").name is None


@pytest.mark.parametrize(
    "origin", ["some-org/base-model", "gpt2", "C:\\models\\m", "/home/me/runs/7", ".", "", 3, None]
)
def test_where_a_model_was_loaded_from_is_not_its_name(origin: object, tmp_path: Path) -> None:
    """transformers keeps there what a model was trained from: of a fine-tuned one another model's name."""
    convert(source(tmp_path / "x.gguf"), tmp_path / "tuned", "safetensors", with_golden=False)
    config = tmp_path / "tuned" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_name_or_path": origin}))
    convert(tmp_path / "tuned", tmp_path / "y.gguf", "gguf", with_golden=False)
    assert describe(tmp_path / "y.gguf")["name"] == "tuned"


def test_blocks_stay_blocks_between_gguf_files(tmp_path: Path) -> None:
    file = model("Q8_0")
    file.keys["custom.key"] = text("kept")
    done = convert(source(tmp_path / "x.gguf", file), tmp_path / "y.gguf", "gguf", with_golden=False)
    assert done.dequantised == ()
    assert (tmp_path / "y.gguf").read_bytes() == (tmp_path / "x.gguf").read_bytes()


def test_blocks_become_floats_in_safetensors(tmp_path: Path) -> None:
    said: list[str] = []
    path = source(tmp_path / "x.gguf", model("Q8_0"))
    done = convert(path, tmp_path / "hf", "safetensors", say=said.append, with_golden=False)
    assert done.dequantised == ("Q8_0",)
    assert "blocks of Q8_0 become f16" in said
    file = read_safetensors(tmp_path / "hf" / "model.safetensors")
    info = file.tensors["model.layers.0.mlp.down_proj.weight"]
    assert info.type.name == "F16"
    was = values(tensor(model("Q8_0"), "blk.0.ffn_down.weight"))
    np.testing.assert_array_equal(dequantize(info.rows(file.data), info.type), was.astype(np.float16))
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["torch_dtype"] == "float16"


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_types_on_request(dtype: str, tmp_path: Path) -> None:
    path = source(tmp_path / "x.gguf", model("Q8_0"))
    convert(path, tmp_path / "hf", "safetensors", dtype=dtype)
    convert(path, tmp_path / "y.gguf", "gguf", dtype=dtype)
    name = dtype.upper()
    assert {t.type.name for t in read_safetensors(tmp_path / "hf" / "model.safetensors").tensors.values()} == {name}
    types = {t.type.name: len(t.shape) for t in read_header(tmp_path / "y.gguf").tensors.values()}
    assert types[name] == 2
    assert types.keys() <= {name, "F32"}
    for place in (tmp_path / "hf", tmp_path / "y.gguf"):
        assert verify(place, golden_for(place, None)).passed


@pytest.mark.parametrize("block_type", ["Q8_0", "Q4_0"])
def test_what_was_quantised_is_verified_as_floats(block_type: str, tmp_path: Path) -> None:
    """The golden values are those of float32, and the folder's values those of the blocks in between."""
    source(tmp_path / "x.gguf")
    golden = record(tmp_path / "x.gguf")
    path = written(requantised(model(), block_type), golden.to_json(), tmp_path / "small.gguf")
    convert(path, tmp_path / "hf", "safetensors")
    convert(path, tmp_path / "f32.gguf", "gguf", dtype="f32")
    convert(tmp_path / "hf", tmp_path / "again.gguf", "gguf", dtype="bf16")
    for place in (tmp_path / "hf", tmp_path / "f32.gguf", tmp_path / "again.gguf"):
        values = golden_for(place, None)
        report = verify(place, values)
        assert report.passed, report.findings
        assert report.strength == "another quantisation"
        assert f"were {block_type} in between" in next(f.detail for f in report.findings if f.name == "tensors")
        assert values.sha256 == golden.sha256, "they are the same values"


def test_what_was_rounded_to_other_floats_is_verified(tmp_path: Path) -> None:
    """Back in the recorded types, norms too, with the values of the type in between."""
    convert(source(tmp_path / "x.gguf"), tmp_path / "bf16", "safetensors", dtype="bf16")
    convert(tmp_path / "bf16", tmp_path / "f32.gguf", "gguf", dtype="f32")
    convert(tmp_path / "bf16", tmp_path / "f16", "safetensors", dtype="f16")
    for place in (tmp_path / "f32.gguf", tmp_path / "f16"):
        report = verify(place, golden_for(place, None))
        assert report.passed, report.findings


@pytest.mark.parametrize("kind", ["bpe", "spm"])
def test_a_flag_that_decides_nothing_may_change(kind: str, tmp_path: Path) -> None:
    """Of an added token: tokenizer.json says nothing of normal text where there is none, and that a token with a space
    is sought in it where SentencePiece's sign for spaces is all that it has."""
    file = model() if kind == "bpe" else with_sentencepiece(model())
    spec = SPEC if kind == "bpe" else spm_spec()
    last = len(spec.tokens) - 1
    types = [*spec.token_types[:-1], TokenType.USER_DEFINED]
    file.keys["tokenizer.ggml.tokens"] = texts([*spec.tokens[:-1], "q z"])
    file.keys["tokenizer.ggml.token_type"] = array(5, np.array(types, "<i4"))
    if kind == "bpe":
        file.keys["openherd.tokenizer.normalized"] = array(4, np.array([last], "<u4"))
    else:
        file.keys["tokenizer.ggml.add_space_prefix"] = truth(0)
    convert(source(tmp_path / "x.gguf", file), tmp_path / "hf", "safetensors")
    a, b = (open_checkpoint(tmp_path / name) for name in ("x.gguf", "hf"))
    assert a.tokenizer.normalized != b.tokenizer.normalized
    require_same_tokenizer(a, b)
    report = verify(tmp_path / "hf", golden_for(tmp_path / "hf", None))
    assert report.passed, report.findings


def test_types_that_are_the_recorded_ones_were_not_in_between(tmp_path: Path) -> None:
    """The golden values are those of the blocks, so that nothing was rounded since."""
    path = source(tmp_path / "x.gguf", model("Q4_0"))
    convert(path, tmp_path / "f32.gguf", "gguf", dtype="f32")
    golden = golden_of(tmp_path / "f32.gguf")
    assert golden is not None
    assert golden == golden.without_history()


def test_what_f16_cannot_hold_is_refused(tmp_path: Path) -> None:
    file = model()
    t = tensor(file, "blk.1.ffn_up.weight")
    t.data = np.where(np.arange(96 * 32) == 77, np.float32(70000), np.float32(0.1)).astype("<f4").tobytes()
    path = source(tmp_path / "x.gguf", file)
    with pytest.raises(UnsupportedError, match=r"layers\.1\.mlp\.up_proj.* beyond 65504"):
        convert(path, tmp_path / "hf", "safetensors", dtype="f16", with_golden=False, max_shard_bytes=30_000)
    with pytest.raises(UnsupportedError, match=r"beyond 65504"):
        convert(path, tmp_path / "y.gguf", "gguf", dtype="f16", with_golden=False)
    assert [p.name for p in tmp_path.iterdir()] == ["x.gguf"], "what cannot be gone on with is not left behind"


@pytest.mark.parametrize(
    ("dtype", "value", "hint"),
    [("bf16", np.finfo("f4").max, "f32"), ("f16", -np.finfo("f4").max, "f32"), ("f16", 3e38, "bf16")],
)
@pytest.mark.parametrize("target", ["safetensors", "gguf"])
def test_no_finite_value_becomes_infinite(dtype: str, value: float, hint: str, target: str, tmp_path: Path) -> None:
    """The largest float32 rounds to infinity in bfloat16, which is no way out then; what was infinite may stay so."""
    file = model()
    t = tensor(file, "blk.1.ffn_up.weight")
    t.data = np.where(np.arange(96 * 32) == 77, np.float32(value), np.float32(np.inf)).astype("<f4").tobytes()
    path, out = source(tmp_path / "x.gguf", file), tmp_path / "out"
    with pytest.raises(UnsupportedError, match=r"layers\.1\.mlp\.up_proj|blk\.1\.ffn_up") as refusal:
        convert(path, out, target, dtype=dtype, with_golden=False)
    assert refusal.value.hint == f"try: --dtype {hint}"
    assert not out.exists()
    convert(path, out, target, dtype=hint, with_golden=False)


def test_shards(tmp_path: Path) -> None:
    path = source(tmp_path / "x.gguf")
    convert(path, tmp_path / "hf", "safetensors", max_shard_bytes=40_000)
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    shards = sorted(p.name for p in (tmp_path / "hf").glob("*.safetensors"))
    assert len(shards) > 2
    assert sorted(set(index["weight_map"].values())) == shards
    assert all(p.stat().st_size < 45_000 for p in (tmp_path / "hf").glob("*.safetensors"))
    assert verify(tmp_path / "hf", golden_for(tmp_path / "hf", None)).strength == "same artifact"


def with_last_tokens(*changed: tuple[str, int], **ids: int) -> GGUFFile:
    """The last tokens, with other texts and types; and ids of special tokens."""
    file = model()
    start = len(SPEC.tokens) - len(changed)
    tokens = [*SPEC.tokens[:start], *(name for name, _ in changed)]
    types = [*SPEC.token_types[:start], *(kind for _, kind in changed)]
    file.keys["tokenizer.ggml.tokens"] = texts(tokens)
    file.keys["tokenizer.ggml.token_type"] = array(5, np.array(types, "<i4"))
    return with_keys(file, {f"tokenizer.ggml.{name}_token_id": u32(i) for name, i in ids.items()})


def with_keys(file: GGUFFile, keys: dict[str, tuple[int, bytes]]) -> GGUFFile:
    file.keys |= keys
    return file


LAST = len(SPEC.tokens) - 1


def test_rows_beyond_the_vocabulary_stay_unused(tmp_path: Path) -> None:
    """As llama.cpp's converter names them; one that stands in the midst too."""
    rows = [(f"[PAD{i}]", TokenType.UNUSED) for i in (LAST - 2, LAST - 1, LAST)]
    rows[1] = ("<|own|>", TokenType.CONTROL)
    convert(source(tmp_path / "x.gguf", with_last_tokens(*rows)), tmp_path / "hf", "safetensors")
    vocab = json.loads((tmp_path / "hf" / "tokenizer.json").read_text())["model"]["vocab"]
    assert [token for token in vocab if token.startswith("[PAD")] == []
    for path in (tmp_path / "x.gguf", tmp_path / "hf"):
        report = verify(path, golden_for(tmp_path / "hf", None))
        assert report.passed, report.findings


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (lambda: with_last_tokens(("[PAD1]", TokenType.UNUSED)), f"token {LAST} is '[PAD1]' UNUSED"),
        (
            lambda: with_last_tokens(("<x>", TokenType.UNUSED)),
            f"token {LAST} is '<x>' UNUSED and would be '<x>' NORMAL",
        ),
        (lambda: with_last_tokens(("<x>", TokenType.BYTE)), "'<x>' BYTE and would be '<x>' NORMAL"),
        (lambda: with_last_tokens(("<x>", TokenType.UNKNOWN)), "'<x>' UNKNOWN and would be '<x>' CONTROL"),
        (lambda: with_last_tokens(("", TokenType.NORMAL)), f"'' NORMAL and would be '[PAD{LAST}]' UNUSED"),
        (lambda: with_last_tokens(("twice", 1), ("twice", 1)), f"token {LAST - 1} is 'twice' NORMAL"),
        (lambda: with_last_tokens(("<x>", TokenType.CONTROL), eom=LAST), f"eom_id is {LAST} and would be None"),
        (lambda: with_last_tokens(("<x>", TokenType.NORMAL), padding=LAST), "'<x>' NORMAL and would be '<x>' CONTROL"),
        (
            lambda: with_keys(model(), {"tokenizer.chat_template": text("{#" + "x" * (1 << 20) + "#}")}),
            "could not be read again",
        ),
    ],
)
def test_a_tokenizer_that_the_files_cannot_say_is_refused(
    file: Callable[[], GGUFFile], says: str, tmp_path: Path
) -> None:
    path = source(tmp_path / "x.gguf", file())
    with pytest.raises(UnsupportedError, match=re.escape(says)):
        convert(path, tmp_path / "hf", "safetensors", with_golden=False)
    assert [p.name for p in tmp_path.iterdir()] == ["x.gguf"]


@pytest.mark.parametrize("target", ["gguf", "safetensors"])
def test_killed_and_taken_up_again(target: str, tmp_path: Path) -> None:
    """SIGKILL at three points; the file of the second run equals that of an undisturbed one."""
    path = source(tmp_path / "x.gguf")
    convert(path, tmp_path / "whole", target, with_golden=False, dtype="f16", max_shard_bytes=30_000)
    script = """
    import os, signal, sys
    from pathlib import Path
    from openherd.workshop.convert.run import convert
    left = [int(sys.argv[4])]
    def stop(progress):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], with_golden=False, dtype="f16", max_shard_bytes=30_000,
            on_progress=stop)
    """
    for after in (1, 17):
        out = tmp_path / f"out-{after}"
        command = [sys.executable, "-c", textwrap.dedent(script), str(path), str(out), target, str(after)]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
        assert not out.exists()
        done = convert(path, out, target, with_golden=False, dtype="f16", max_shard_bytes=30_000)
        assert done.resumed_tensors == after
        assert contents(out) == contents(tmp_path / "whole")
    assert not list(tmp_path.glob(".*")), "nothing is left beside the results"


def contents(path: Path) -> dict[str, bytes]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name if path.is_dir() else "": file.read_bytes() for file in files}


def test_a_changed_source_is_not_taken_up(tmp_path: Path) -> None:
    path = source(tmp_path / "x.gguf")

    def stop(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(path, tmp_path / "y.gguf", "gguf", with_golden=False, on_progress=stop)
    source(path, model(seed=1))
    os.utime(path, ns=(1, 1))
    done = convert(path, tmp_path / "y.gguf", "gguf", with_golden=False)
    assert done.resumed_tensors == 0
    assert (tmp_path / "y.gguf").read_bytes() == path.read_bytes()


def test_a_second_run_to_the_same_folder_is_refused(tmp_path: Path) -> None:
    """While the first stands between two tensors, a run with other shards would delete its finished ones."""
    path = source(tmp_path / "x.gguf")
    convert(path, tmp_path / "whole", "safetensors", with_golden=False, max_shard_bytes=30_000)
    script = """
    import sys
    from pathlib import Path
    from openherd.errors import OutputError
    from openherd.workshop.convert.run import convert
    try:
        convert(Path(sys.argv[1]), Path(sys.argv[2]), "safetensors", with_golden=False, dtype="f16")
    except OutputError as error:
        print(error)
    """
    second: list[str] = []

    def begin(progress: Progress) -> None:
        if progress.done > 100_000 and not second:
            command = [sys.executable, "-c", textwrap.dedent(script), str(path), str(tmp_path / "hf")]
            second.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    convert(path, tmp_path / "hf", "safetensors", with_golden=False, max_shard_bytes=30_000, on_progress=begin)
    assert second[0].startswith(f"another process is writing {tmp_path / 'hf'}\n")
    assert contents(tmp_path / "hf") == contents(tmp_path / "whole")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "whole", "x.gguf"]


def precious(folder: Path) -> Path:
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    (folder / "model.safetensors").write_text("mine")
    return folder


def test_a_folder_of_the_users_own_under_the_partial_name_is_left_alone(tmp_path: Path) -> None:
    path = source(tmp_path / "x.gguf")
    kept = precious(tmp_path / "precious")
    (tmp_path / ".link.partial").symlink_to(kept)
    precious(tmp_path / ".real.partial")
    (precious(tmp_path / ".locked.partial") / ".lock").touch()
    (tmp_path / ".file.partial").write_text("mine")
    (tmp_path / ".inner.partial").mkdir()
    (tmp_path / ".inner.partial" / ".lock").touch()
    (tmp_path / ".inner.partial" / "model.safetensors.journal").symlink_to(kept / "thesis.txt")
    was = {p: p.read_text() for p in tmp_path.rglob("*") if p.is_file() and p != path}
    for name in ("link", "real", "locked", "file", "inner"):
        with pytest.raises(InputError, match=rf"\.{name}\.partial"):
            convert(path, tmp_path / name, "safetensors", with_golden=False)
        assert not (tmp_path / name).exists()
    assert {p: p.read_text() for p in tmp_path.rglob("*") if p.is_file() and p != path} == was


def test_what_another_run_left_in_the_partial_folder_goes(tmp_path: Path) -> None:
    path = source(tmp_path / "x.gguf")
    partial = tmp_path / ".hf.partial"
    partial.mkdir()
    names = (".lock", "model-00001-of-00003.safetensors", "model-00001-of-00003.safetensors.journal", "LICENSE.md",
             "model.safetensors.index.json", "golden.json", ".tokenizer.json.0123abcd.new", "vocab.json")  # fmt: skip
    for name in names:
        (partial / name).write_text("old")
    convert(path, tmp_path / "hf", "safetensors", with_golden=False)
    convert(path, tmp_path / "whole", "safetensors", with_golden=False)
    assert contents(tmp_path / "hf") == contents(tmp_path / "whole")


def test_work_of_an_older_revision_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = source(tmp_path / "x.gguf")

    def stop(progress: object) -> None:
        raise KeyboardInterrupt

    for newer in (False, True):
        out = tmp_path / f"{newer}.gguf"
        with pytest.raises(KeyboardInterrupt):
            convert(path, out, "gguf", with_golden=False, on_progress=stop)
        if newer:
            monkeypatch.setattr(run, "REVISION", run.REVISION + 1)
        assert convert(path, out, "gguf", with_golden=False).resumed_tensors == (0 if newer else 1)


def test_keys_of_a_quantisation_go_when_types_change(tmp_path: Path) -> None:
    file = model("Q8_0")
    made = {"openherd.quantize.recipe": text("{}"), "quantize.imatrix.file": text("x"), "quantize.mine": text("kept")}
    file.keys |= made
    path = source(tmp_path / "x.gguf", file)
    convert(path, tmp_path / "same.gguf", "gguf", with_golden=False)
    assert made.keys() <= set(read_header(tmp_path / "same.gguf").keys)
    convert(path, tmp_path / "f16.gguf", "gguf", with_golden=False, dtype="f16")
    assert made.keys() & set(read_header(tmp_path / "f16.gguf").keys) == {"quantize.mine"}
    assert made.keys() & open_source(path).keys.keys() == {"quantize.mine"}, "herd quantize writes its own"


@pytest.mark.parametrize(
    ("license", "card"),
    [
        ("apache-2.0", "---\nlicense: apache-2.0\n---\n\nConverted"),
        ("x\n---\nlicense: mit", "Converted"),
        ("mit\ntags: [evil]", "Converted"),
        ("a" * 65, "Converted"),
        ("mit # no", "Converted"),
    ],
)
def test_a_licence_says_nothing_but_itself(license: str, card: str, tmp_path: Path) -> None:
    file = model()
    file.keys["general.license"] = text(license)
    convert(source(tmp_path / "x.gguf", file), tmp_path / "hf", "safetensors", with_golden=False)
    readme = (tmp_path / "hf" / "README.md").read_text()
    assert readme.startswith(card)
    assert json.dumps(license)[1:-1] in readme, "what it says is not lost"


def test_an_index_is_on_the_disk_before_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[int] = set()
    fsync = os.fsync

    def note(handle: int) -> None:
        synced.add(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", note)
    path = source(tmp_path / "x.gguf")
    convert(path, tmp_path / "hf", "safetensors", with_golden=False, max_shard_bytes=40_000)
    assert [p.name for p in (tmp_path / "hf").iterdir() if p.stat().st_ino not in synced] == []


def test_a_full_disk_says_where_the_work_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr("openherd.checkpoints.new_file._write", full)
    path, out = source(tmp_path / "x.gguf"), tmp_path / "y.gguf"
    assert main(["convert", str(path), str(out), "--no-golden"]) == 1
    assert str(tmp_path / ".y.gguf.partial") in capsys.readouterr().err
    assert (tmp_path / ".y.gguf.partial").exists()


def gemma(family: str, n_layers: int, query_scalar: float, **more: object) -> ModelConfig:
    config = ModelConfig(family, 5376, n_layers, 32, 16, 128, 21504, 1000, 8192, attention_scale=query_scalar**-0.5)
    return replace(config, **{"sliding_window": 1024, **more})  # type: ignore[arg-type]


LLAMA = ModelConfig("llama", 64, 2, 4, 2, 16, 128, 1000, 32768)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (LLAMA, None),
        (replace(LLAMA, sliding_window=4096), "no sliding window"),
        (replace(LLAMA, sliding_window=32768), None),
        (replace(LLAMA, family="phi3", sliding_window=2047), "beyond 2047 tokens"),
        (gemma("gemma3", 34, 128), None),
        (gemma("gemma3", 34, 168), "does not read gemma3.attention.scale"),
        (gemma("gemma3", 62, 168), None),
        (gemma("gemma3", 62, 128), "scores by 0.0771517, where this model has 0.0883883"),
        (gemma("gemma2", 46, 168), None),
        (gemma("gemma2", 26, 168), "does not read gemma2.attention.scale"),
        (gemma("gemma3", 34, 128, attention_softcap=50.0), "gemma3.attn_logit_softcapping"),
        (gemma("gemma2", 26, 128, sliding_window=0), "a window of 4096"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_said(config: ModelConfig, says: str | None) -> None:
    notes = computes_elsewhere(config)
    assert len(notes) == (says is not None)
    assert says is None or says in notes[0]


def test_notes_stand_with_the_result(tmp_path: Path) -> None:
    convert(source(tmp_path / "x.gguf"), tmp_path / "hf", "safetensors", with_golden=False)
    settings = json.loads((tmp_path / "hf" / "config.json").read_text())
    settings |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 64}
    (tmp_path / "hf" / "config.json").write_text(json.dumps(settings))
    said: list[str] = []
    done = convert(tmp_path / "hf", tmp_path / "y.gguf", "gguf", with_golden=False, say=said.append)
    assert any("no sliding window" in note for note in done.notes)
    assert set(done.notes) <= set(said)


def test_a_folder_whose_name_is_not_utf8(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/hf\xff"))
    convert(source(tmp_path / "x.gguf"), folder, "safetensors", with_golden=False)
    convert(folder, tmp_path / "y.gguf", "gguf", with_golden=False)
    assert read_header(tmp_path / "y.gguf").keys["general.name"] == "hf\ufffd"


@pytest.mark.parametrize("stored", [u64(64), (2, b"\x40\0"), (5, b"\x40\0\0\0")])
def test_an_alignment_of_another_type_becomes_the_usual_one(stored: tuple[int, bytes], tmp_path: Path) -> None:
    file = model()
    file.alignment = 64
    file.keys["general.alignment"] = stored
    path = source(tmp_path / "x.gguf", file)
    convert(path, tmp_path / "y.gguf", "gguf", with_golden=False)
    file.keys["general.alignment"] = u32(64)
    assert (tmp_path / "y.gguf").read_bytes() == file.build()
    attach(record(path), path)
    assert verify(path, golden_for(path, None)).passed


def test_refusals(tmp_path: Path) -> None:
    path = source(tmp_path / "x.gguf")
    with pytest.raises(InputError, match="exists already"):
        convert(path, path, "gguf")
    with pytest.raises(InputError, match="is no folder"):
        convert(path, tmp_path / "no" / "y.gguf", "gguf")
    file = with_llama3_divisors(model())
    file.tensors[-1] = entry("rope_freqs.weight", np.array([1.0, 3.0, 2.0, 5.0], np.float32))
    with pytest.raises(UnsupportedError, match="follow from no rule"):
        convert(source(tmp_path / "odd.gguf", file), tmp_path / "hf", "safetensors", with_golden=False)
    # Biases of some maps alone have no key in config.json.
    partly = biased(model()).without("blk.0.attn_output.bias", "blk.1.attn_output.bias")
    with pytest.raises(UnsupportedError):
        convert(source(tmp_path / "part.gguf", partly), tmp_path / "hf", "safetensors", with_golden=False)
    assert not (tmp_path / "hf").exists()


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = source(tmp_path / "x.gguf", model("Q8_0"))
    assert main(["convert", str(path), str(tmp_path / "hf"), "--max-shard-size", "1MB", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["to"], document["golden"], document["dequantised"]) == ("safetensors", "recorded", ["Q8_0"])
    assert main(["convert", str(tmp_path / "hf"), str(tmp_path / "y.gguf")]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("golden values carried along\n")
    assert golden_of(tmp_path / "y.gguf") == golden_of(tmp_path / "hf")
    assert main(["verify", str(tmp_path / "y.gguf")]) == 0
    assert main(["convert", str(path), str(tmp_path / "z"), "--max-shard-size", "lots"]) == 2
    capsys.readouterr()
    assert main(["convert", str(path), str(tmp_path / "z"), "--max-shard-size", "50"]) == 2
    assert capsys.readouterr().err == (
        "herd: error: --max-shard-size is a whole number with KB, MB or GB behind it, not '50'\n  try: 50MB or 50GB\n"
    )
    assert main(["convert", str(path), str(tmp_path / "z.gguf"), "--max-shard-size", "1GB"]) == 2
    assert main(["convert", str(path), str(path)]) == 2


@pytest.mark.parametrize(
    ("name", "flags", "hint"),
    [
        ("y.gguf", ["--to", "safetensors"], "name a folder, or give --to gguf"),
        ("y.GGUF", ["--to", "safetensors"], "name a folder, or give --to gguf"),
        ("y.safetensors", ["--to", "gguf"], "name a file that ends in .gguf, or give --to safetensors and a folder"),
        ("y.safetensors", [], "name a folder, such as {y}; the files of safetensors lie in it"),
    ],
)
def test_a_name_that_says_another_layout_is_refused(
    name: str, flags: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = source(tmp_path / "x.gguf")
    assert main(["convert", str(path), str(tmp_path / name), "--no-golden", *flags]) == 2
    assert capsys.readouterr().err.endswith(f"\n  {hint.format(y=tmp_path / 'y')}\n")
    assert [p.name for p in tmp_path.iterdir()] == ["x.gguf"]


def test_capitals_of_an_ending_make_no_difference(tmp_path: Path) -> None:
    assert main(["convert", str(source(tmp_path / "x.gguf")), str(tmp_path / "y.GGUF"), "--no-golden"]) == 0
    assert (tmp_path / "y.GGUF").read_bytes()[:4] == b"GGUF"
