"""herd quantize and herd compare: the report, the document, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from openherd.workshop.importance import Importance, write_importance
from tests.checkpoint_files import DIM, LAYERS, entry
from tests.unit.cli.conftest import Herd
from tests.unit.workshop.golden_models import model, tensor

WORDS = "hello world, this is a text to be read; it has some é in it. " * 8


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(WORDS)
    return path


def test_report(herd: Herd, tiny_model: Path, tmp_path: Path, text: Path) -> None:
    out = tmp_path / "small.gguf"
    result = herd("quantize", tiny_model, out, "--type", "q4_k_m", "--evaluate", text, "--tokens", "64")
    assert result.status == 0
    for part in (
        f"{out}  Q4_K_M",
        "bits a weight",
        "Q4_K became Q5_0",
        "text.txt, 64 positions",
        "mean KL",
        "worst tensors",
    ):
        assert part in result.out
    assert "written in" in result.err


def test_an_out_that_cannot_be_taken_is_the_users_to_mend(herd: Herd, tiny_model: Path, tmp_path: Path) -> None:
    """Before anything is computed, with the words and the status of the other verbs."""
    taken = tmp_path / "taken.gguf"
    taken.write_text("mine")
    for verb in (("convert",), ("quantize", "--type", "Q8_0")):
        result = herd(verb[0], tiny_model, taken, *verb[1:])
        assert result.status == 2
        assert f"herd: error: {taken} exists already\n  name another place, or " in result.err
        result = herd(verb[0], tiny_model, tmp_path / "no" / "x.gguf", *verb[1:])
        assert result.status == 2
        assert result.err == f"herd: error: {tmp_path / 'no'} is no folder\n  try: mkdir -p {tmp_path / 'no'}\n"
    assert herd("quantize", tiny_model, tmp_path, "--type", "Q8_0").status == 2
    assert taken.read_text() == "mine"


def test_document(herd: Herd, tiny_model: Path, tmp_path: Path, text: Path) -> None:
    out = tmp_path / "small.gguf"
    result = herd("quantize", tiny_model, out, "--type", "Q4_0", "--calibrate", text, "--no-evaluate", "--json")
    document = json.loads(result.out)
    assert document.keys() == {
        "path", "source", "source_bytes", "bytes", "bits_per_weight", "requantized", "seconds", "recipe", "fallbacks",
        "evaluation", "tensors",
    }  # fmt: skip
    assert document["bytes"] == out.stat().st_size < document["source_bytes"]
    assert document["evaluation"] is None
    assert document["recipe"]["importance"]["texts"] == ["text.txt"]
    errors = [tensor["relative_error"] for tensor in document["tensors"]]
    assert errors == sorted(errors, reverse=True)


def test_default_text(herd: Herd, tiny_model: Path, tmp_path: Path) -> None:
    result = herd("quantize", tiny_model, tmp_path / "small.gguf", "--type", "Q8_0", "--tokens", "32", "--json")
    evaluation = json.loads(result.out)["evaluation"]
    assert (evaluation["text"], evaluation["held_out"]) == ("looking-glass.txt", True)
    assert evaluation["divergence"]["positions"] == 32
    assert 0 < evaluation["divergence"]["mean_kl"] < 0.5  # a random model's logits are large; errors of 0.5 % move them


def test_compare(herd: Herd, tiny_model: Path, tmp_path: Path, text: Path) -> None:
    small = tmp_path / "small.gguf"
    herd("quantize", tiny_model, small, "--type", "Q4_0", "--no-evaluate")
    table = herd("compare", tiny_model, small, text, "--tokens", "64", "--context", "16")
    assert table.status == 0
    assert f"{small} from {tiny_model}" in table.out
    assert "64 positions in 4 chunks" in table.out
    assert "F32 and Q4_0" in table.out
    document = json.loads(herd("compare", tiny_model, small, text, "--tokens", "64", "--json").out)
    assert document.keys() == {"a", "b", "text", "divergence", "tensors"}
    assert document["divergence"]["mean_kl"] > 0
    assert document["tensors"][0]["relative_error"] > 0.01
    assert json.loads(herd("compare", tiny_model, tiny_model, text, "--no-tensors", "--json").out)["tensors"] is None
    assert "all equal" in herd("compare", tiny_model, tiny_model, text).out


def test_compare_of_tensors_without_a_number(herd: Herd, tmp_path: Path, text: Path) -> None:
    """On one side only, or where A's are zero: no JSON number, and a word."""
    files = [model(), model()]
    for file, value in zip(files, (0, 3), strict=True):
        file.tensors += [entry(f"blk.{i}.attn_q.bias", np.full(DIM, value, np.float32)) for i in range(LAYERS)]
        file.tensors += [entry(f"blk.{i}.attn_{p}.bias", np.ones(16, np.float32)) for i in range(LAYERS) for p in "kv"]
    files[1].tensors.append(replace(tensor(files[1], "token_embd.weight"), name="output.weight"))
    a, b = (tmp_path / f"{i}.gguf" for i in range(2))
    for path, file in zip((a, b), files, strict=True):
        path.write_bytes(file.build())
    found = herd("compare", a, b, text, "--tokens", "16", "--json")
    assert found.status == 0
    entries = json.loads(found.out)["tensors"]
    assert [(t["name"], t["type_a"], t["type_b"], t["relative_error"]) for t in entries[:3]] == [
        ("blk.0.attn_q.bias", "F32", "F32", None),
        ("blk.1.attn_q.bias", "F32", "F32", None),
        ("output.weight", None, "F32", None),
    ]
    lines = herd("compare", a, b, text, "--tokens", "16").out
    assert "  only in B        output.weight\n" in lines
    assert "F32 and F32   A is all zero" in lines
    assert "all equal" not in lines


def test_names_of_strangers_are_shown(herd: Herd, tiny_model: Path, tmp_path: Path, text: Path) -> None:
    """A file's name and a matrix's cannot steer the terminal, nor forge a line of a report."""
    folder, name = tmp_path / "we\x1b[31m\nird", "blk.0.attn_q.weight"
    folder.mkdir()
    source, small, matrix = folder / "\x1b[1m.gguf", folder / "small.gguf", tmp_path / "matrix.gguf"
    source.write_bytes(tiny_model.read_bytes())
    texts = ("\x1b]0;pwn\x07\n  mean KL          0",)
    write_importance(matrix, Importance({name: np.ones((1, DIM))}, {name: np.ones(1)}, texts, 1, 32))
    made = herd("quantize", source, small, "--type", "Q4_0", "--no-evaluate", "--importance", matrix)
    compared = herd("compare", source, small, text, "--tokens", "16")
    for result in (made, compared):
        assert result.status == 0
        assert "we\u241b[31m\u240aird" in result.out
        assert not {"\x1b", "\x07"} & set(result.out + result.err)
    assert "chunks of \u241b]0;pwn\u2407\u240a  mean KL" in made.out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["MODEL", "OUT"], 2, "--type"),
        (["MODEL", "OUT", "--type", "Q4_KM"], 2, "did you mean Q4_K_M"),
        (["MODEL", "OUT", "--type", "Q4_0", "--tokens", "1"], 2, "--tokens must be at least 2"),
        (["MODEL", "OUT", "--type", "Q4_0", "--no-evaluate", "--evaluate", "x"], 2, "exclude each other"),
        (["MODEL", "OUT", "--type", "Q4_0", "--evaluate", "none.txt"], 2, "cannot read none.txt"),
        (["MODEL", "OUT", "--type", "Q4_0", "--importance", "MODEL"], 2, "no importance matrix"),
        (["MODEL", "OUT", "--type", "Q4_0", "--importance", "none.gguf"], 2, "does not exist"),
        (["MODEL", "MODEL", "--type", "Q4_0", "--overwrite"], 2, "the source itself"),
        (["MODEL", "nowhere/out.gguf", "--type", "Q4_0", "--no-evaluate"], 2, "nowhere"),
        (["none.gguf", "OUT", "--type", "Q4_0"], 2, "none.gguf"),
        (["MODEL", "OUT", "--type", "Q4_0", "--threads", "0"], 2, "threads"),
    ],
)
def test_refusals(
    herd: Herd,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": str(tiny_model), "OUT": str(tmp_path / "out.gguf")}
    result = herd("quantize", *(places.get(argument, argument) for argument in arguments))
    assert (result.status, result.out) == (status, "")
    assert words in result.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("threads", ["0", "-1", "5000"])
@pytest.mark.parametrize("verb", ["compare MODEL MODEL", "verify MODEL", "verify MODEL --record", "convert MODEL OUT"])
def test_threads_out_of_range(verb: str, threads: str, herd: Herd, tmp_path: Path) -> None:
    """Refused before anything is read: there is no such model."""
    places = {"MODEL": tmp_path / "none.gguf", "OUT": tmp_path / "out.gguf"}
    result = herd(*(places.get(word, word) for word in verb.split()), "--threads", threads)
    assert (result.status, result.out) == (2, "")
    assert f"threads must be a whole number from 1 to 1024, not {threads}" in result.err
