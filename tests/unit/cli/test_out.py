"""What the verbs that write models say of OUT, before any work and before a model is fetched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openherd.errors import InputError
from openherd.workshop.convert.run import convert
from tests.unit.cli.conftest import Herd

CONVERT, QUANTIZE = ("convert",), ("quantize", "--type", "Q8_0")


@pytest.fixture
def nothing_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*arguments: object, **options: object) -> None:
        raise AssertionError("a model was looked for")

    monkeypatch.setattr("openherd.store.resolve.resolve", resolve)
    monkeypatch.setattr("openherd.workshop.quantize.run.resolve", resolve)


@pytest.fixture
def nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(*arguments: object, **options: object) -> None:
        raise AssertionError("golden values were made")

    monkeypatch.setattr("openherd.workshop.convert.run.record", record)


@pytest.mark.usefixtures("nothing_is_resolved")
@pytest.mark.parametrize("verb", [CONVERT, QUANTIZE])
def test_a_taken_place_is_said_before_a_model_is_looked_for(verb: tuple[str, ...], herd: Herd, tmp_path: Path) -> None:
    taken = tmp_path / "taken.gguf"
    taken.write_text("mine")
    for out, words in (
        (taken, "exists already"),
        (tmp_path / "no" / "x.gguf", "is no folder"),
        (tmp_path / f"{'n' * 250}.gguf", "is too long"),
    ):
        result = herd(verb[0], "smollm2", out, *verb[1:])
        assert result.status == 2
        assert words in result.err


@pytest.mark.usefixtures("nothing_is_resolved")
def test_quantize_writes_no_file_of_another_layouts_name(herd: Herd, tmp_path: Path) -> None:
    result = herd("quantize", "smollm2", tmp_path / "q.safetensors", "--type", "Q8_0")
    assert result.status == 2
    assert result.err == (
        f"herd: error: {tmp_path / 'q.safetensors'} is the name of a safetensors file, and what is written is a GGUF"
        f" file\n  name a file that ends in .gguf, such as {tmp_path / 'q.gguf'}\n"
    )


@pytest.mark.usefixtures("nothing_is_resolved")
def test_the_importance_matrix_has_a_place_too(herd: Herd, tmp_path: Path) -> None:
    (tmp_path / "matrix").write_text("mine")
    (tmp_path / "text").write_text("words")
    flags = ("--type", "Q4_0", "--calibrate", tmp_path / "text", "--importance", tmp_path / "matrix")
    result = herd("quantize", "smollm2", tmp_path / "q.gguf", *flags)
    assert (result.status, f"{tmp_path / 'matrix'} exists already" in result.err) == (2, True)


@pytest.mark.usefixtures("nothing_is_computed")
@pytest.mark.parametrize("target", ["gguf", "safetensors"])
def test_a_file_of_the_users_own_is_said_before_golden_values_are_made(
    target: str, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / ".x.partial").write_text("mine")
    with pytest.raises(InputError, match=r"is no f.* of openherd's"):
        convert(tiny_model, tmp_path / "x", target)  # type: ignore[arg-type]
    assert (tmp_path / ".x.partial").read_text() == "mine"


def test_a_hint_makes_what_can_be_made(herd: Herd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, hint in (
        ("my models", f"\n  try: mkdir -p '{tmp_path / 'my models'}'\n"),
        ("file", "is no folder\n"),
        ("file/in", "Not a directory\n"),
        ("link", "is no folder\n"),
        ("n" * 300, "File name too long\n"),
    ):
        result = herd("convert", "smollm2", tmp_path / name / "x.gguf")
        assert result.status == 2
        assert result.err.endswith(hint)
        assert ("mkdir" in result.err) == (name == "my models")


def test_a_folder_that_cannot_be_written_to(herd: Herd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere, so what the system says is said for it."""
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    result = herd("convert", "smollm2", tmp_path / "x.gguf")
    assert (result.status, result.err) == (2, f"herd: error: {tmp_path} cannot be written to\n")


@pytest.mark.parametrize(
    ("size", "hint"),
    [
        ("50", "50MB or 50GB"),
        ("050", "50MB or 50GB"),
        ("5000000000", "5GB"),
        ("5368709120", "5368MB"),
        ("9" * 15, "999999GB"),
        ("9" * 16, "5GB"),
        ("0", "5GB"),
        ("0000000", "5GB"),
        ("0000005", "5MB or 5GB"),
        ("\u0665", "5GB"),
        ("lots", "5GB"),
    ],
)
def test_a_size_that_is_suggested_is_one(size: str, hint: str, herd: Herd, tiny_model: Path, tmp_path: Path) -> None:
    flags = ("--no-golden", "--max-shard-size")
    result = herd("convert", tiny_model, tmp_path / "x", *flags, size)
    assert (result.status, result.err.splitlines()[-1]) == (2, f"  try: {hint}")
    for number, accepted in enumerate(hint.split(" or ")):
        assert herd("convert", tiny_model, tmp_path / f"x{number}", *flags, accepted).status == 0


@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupted_run_names_work_that_is_there(
    begun: bool, herd: Herd, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    place = "openherd.checkpoints.new_file._write" if begun else "openherd.workshop.convert.run.record"
    monkeypatch.setattr(place, interrupted)
    result = herd("convert", tiny_model, tmp_path / "x.gguf", *(["--no-golden"] if begun else []))
    assert result.status == 130
    assert ("the same command goes on" in result.err) == begun
