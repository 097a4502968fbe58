"""Packing leaves the file as it is, gives its pages back, and numbers matrices alike however they are handed over."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import pytest

from openherd.checkpoints import open_checkpoint
from openherd.kernels import native
from tests.unit.llm.tiny_file import write_model

SIZES = native.Sizes(max_context=32, max_seqs=2, max_batch_tokens=16, max_logit_rows=4, num_blocks=4, kv_half=True)


def packed(path: Path) -> native.NativeModel:
    checkpoint = open_checkpoint(path)
    model = native.NativeModel(native.make_pool(2), "portable", checkpoint.config, SIZES)
    model.add_tensors(checkpoint.tensors[name] for name in checkpoint.tensors)
    return model


def test_rows_are_as_they_were_once_their_pages_were_given_back(tmp_path: Path) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    tensors = open_checkpoint(path).tensors
    before = {name: tensors[name].rows().copy() for name in tensors}
    model = native.NativeModel(native.make_pool(1), "portable", open_checkpoint(path).config, SIZES)
    model.add_tensors(tensors[name] for name in tensors)
    for name, rows in before.items():
        np.testing.assert_array_equal(tensors[name].rows(), rows, err_msg=name)


@pytest.mark.parametrize("most", [0, 1 << 10])
def test_copies_that_are_packed_early_change_no_number(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path / "tiny.gguf")
    whole = packed(path)
    monkeypatch.setattr(native, "MAX_COPIED_BYTES", most)
    in_parts = packed(path)
    assert in_parts._matrices == whole._matrices
    assert in_parts._vectors == whole._vectors


def test_only_pages_of_a_file_are_given_back(tmp_path: Path) -> None:
    """The same call on other memory would empty it."""
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * mmap.PAGESIZE))
    with path.open("rb") as file:
        mapped = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    views = [mapped, mapped[10:].reshape(-1, 2), mapped.view(np.uint16).view(np.uint8)]
    own = [mapped.copy(), np.frombuffer(bytes(64), np.uint8), np.frombuffer(memoryview(bytearray(64)), np.uint8)]
    assert all(map(native._is_mapped, views))
    assert not any(map(native._is_mapped, own))
