"""A model in several GGUF files: any part names it, all must be there and agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.describe import describe
from openherd.errors import FormatError, ModelNotFoundError, UnsupportedError
from tests.checkpoint_files import GGUFFile, tiny_llama, u32

COUNT = 3


def parts() -> list[GGUFFile]:
    """The tiny Llama as gguf-split cuts it: keys in the first part, tensors in all."""
    whole = tiny_llama()
    files = [GGUFFile(keys=whole.keys if i == 0 else {}, tensors=whole.tensors[i::COUNT]) for i in range(COUNT)]
    for i, file in enumerate(files):
        file.keys |= {"split.no": u32(i), "split.count": u32(COUNT), "split.tensors.count": u32(len(whole.tensors))}
    return files


def write(folder: Path, files: list[GGUFFile]) -> list[Path]:
    paths = [folder / f"a-{i + 1:05}-of-{COUNT:05}.gguf" for i in range(COUNT)]
    for path, file in zip(paths, files, strict=True):
        path.write_bytes(file.build())
    return paths


def test_any_part_names_the_model(tmp_path: Path) -> None:
    (tmp_path / "whole.gguf").write_bytes(tiny_llama().build())
    whole = open_checkpoint(tmp_path / "whole.gguf")
    paths = write(tmp_path, parts())
    for path in paths:
        checkpoint = open_checkpoint(path)
        assert checkpoint.config == whole.config
        assert checkpoint.files == tuple(paths)
        assert checkpoint.format == "GGUF v3, 3 parts"
        for name in whole.tensors:
            np.testing.assert_array_equal(checkpoint.tensors[name].rows(), whole.tensors[name].rows())
    facts = describe(paths[1])
    assert facts["unsupported"] is None
    assert facts["file_bytes"] == sum(path.stat().st_size for path in paths)


def _key(part: int, name: str, value: int) -> Callable[[list[GGUFFile]], object]:
    return lambda files: files[part].keys.update({name: u32(value)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_key(1, "split.no", 2), r"00002-of-00003.gguf says that it is part 2 \(from 0\) of 3"),
        (_key(2, "split.count", 4), r"00003-of-00003.gguf says that it is part 2 \(from 0\) of 4"),
        (_key(0, "split.tensors.count", 99), "split.tensors.count is 99, but the parts hold 20"),
        (lambda files: files[1].keys.pop("split.no"), "the key split.no is missing"),
        (lambda files: files[0].keys.pop("split.tensors.count"), "the key split.tensors.count is missing"),
        (
            lambda files: (files[1].tensors.append(files[0].tensors[0]), _key(0, "split.tensors.count", 21)(files)),
            "the tensor 'token_embd.weight' is in an earlier part too",
        ),
    ],
)
def test_parts_that_disagree(change: Callable[[list[GGUFFile]], object], message: str, tmp_path: Path) -> None:
    files = parts()
    change(files)
    paths = write(tmp_path, files)
    with pytest.raises(FormatError, match=message):
        open_checkpoint(paths[0])


def test_a_part_is_missing(tmp_path: Path) -> None:
    paths = write(tmp_path, parts())
    paths[2].unlink()
    with pytest.raises(ModelNotFoundError, match=r"a-00003-of-00003.gguf is missing"):
        open_checkpoint(paths[0])


def test_a_part_of_another_name(tmp_path: Path) -> None:
    paths = write(tmp_path, parts())
    with pytest.raises(UnsupportedError, match="not named NAME-00001-of-00003"):
        open_checkpoint(paths[0].rename(tmp_path / "renamed.gguf"))
