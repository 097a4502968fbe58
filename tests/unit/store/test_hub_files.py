"""Which files of a repository are the model."""

from __future__ import annotations

import hashlib

import pytest

from openherd.errors import HerdError, ModelNotFoundError, UnsupportedError
from openherd.store.digest import Pinned
from openherd.store.hub_answer import RemoteFile, Repository
from openherd.store.hub_files import choose, quantisation


def repository(*paths: str) -> Repository:
    files = [RemoteFile(p, Pinned(1000 * (i + 1), hashlib.sha256(p.encode()).hexdigest())) for i, p in enumerate(paths)]
    return Repository("o/r", "0" * 40, "mit", "", False, tuple(files))


def chosen(select: str | None, *paths: str) -> list[str]:
    return [file.path for file in choose(repository(*paths), select).files]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("llama-2-7b-chat.Q5_0.gguf", "Q5_0"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("x/Model-UD-Q2_K_XL-00001-of-00002.gguf", "UD-Q2_K_XL"),
        ("m-IQ3_XXS.gguf", "IQ3_XXS"),
        ("m-IQ4_NL.gguf", "IQ4_NL"),
        ("m.Q4_0_4_8.gguf", "Q4_0_4_8"),
        ("m-BF16.gguf", "BF16"),
        ("m.fp16.gguf", "FP16"),
        ("m-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("Phi-3-mini-4k-instruct-q4.gguf", "Q4"),
        ("model.gguf", None),
        ("qwen2-7b.gguf", None),
        ("FQ4_0x.gguf", None),
    ],
)
def test_the_quantisation_is_at_the_end_of_the_name(path: str, expected: str | None) -> None:
    assert quantisation(path) == expected


GGUFS = ("m-Q4_0.gguf", "m-Q4_K_M.gguf", "big/m-Q8_0-00001-of-00002.gguf", "big/m-Q8_0-00002-of-00002.gguf")


@pytest.mark.parametrize("select", ["Q8_0", "q8_0", "big/m-Q8_0-00002-of-00002.gguf", "m-Q8_0-00001-of-00002.gguf"])
def test_every_part_whichever_is_named(select: str) -> None:
    assert chosen(select, *GGUFS) == list(GGUFS[2:])


def test_a_set_with_a_part_missing_is_no_model() -> None:
    with pytest.raises(ModelNotFoundError, match="it has: Q4_0"):
        chosen("Q8_0", *GGUFS[:3])


def test_what_is_no_language_model_is_not_offered() -> None:
    assert chosen(None, "m-Q4_0.gguf", "mmproj-m-f16.gguf", "imatrix.gguf", "x/m-imatrix.gguf") == ["m-Q4_0.gguf"]


def test_the_same_quantisation_twice_is_ambiguous_until_the_file_is_named() -> None:
    paths = ("a-Q4_0.gguf", "b-Q4_0.gguf")
    with pytest.raises(ModelNotFoundError, match=r"has 2 models: a-Q4_0\.gguf .*, b-Q4_0\.gguf"):
        chosen("Q4_0", *paths)
    assert chosen("b-Q4_0.gguf", *paths) == ["b-Q4_0.gguf"]


def test_dynamic_quantisations_may_be_named_without_their_prefix() -> None:
    assert chosen("Q2_K_XL", "m-UD-Q2_K_XL.gguf", "m-Q4_0.gguf") == ["m-UD-Q2_K_XL.gguf"]


SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json")


def test_gguf_first_then_safetensors_then_pickles() -> None:
    safetensors = ("config.json", "model.safetensors")
    pickles = ("config.json", "pytorch_model.bin")
    assert chosen(None, *safetensors, "m.gguf") == ["m.gguf"]
    assert chosen("safetensors", *safetensors, "m.gguf") == list(safetensors)
    assert chosen(None, *safetensors, "pytorch_model.bin", "x.py", "model.h5") == list(safetensors)
    assert chosen(None, *pickles, "training_args.bin") == list(pickles)
    assert chosen("bin", *safetensors, "pytorch_model.bin") == list(pickles)


def test_shards_come_with_their_index_and_whole() -> None:
    assert chosen(None, "config.json", *SHARDS, "model.safetensors") == ["config.json", *SHARDS]
    for missing in range(2):
        paths = [path for i, path in enumerate(SHARDS) if i != missing]
        with pytest.raises(UnsupportedError, match="no model that openherd reads"):
            chosen(None, "config.json", *paths)


@pytest.mark.parametrize(
    "paths", [(), ("README.md",), ("model.safetensors",), ("x/config.json", "x/model.safetensors")]
)
def test_no_model_is_said(paths: tuple[str, ...]) -> None:
    with pytest.raises(UnsupportedError, match="no model that openherd reads"):
        chosen(None, *paths)


def test_numbers_of_parts_are_not_believed() -> None:
    with pytest.raises(HerdError):
        chosen(None, "m-00001-of-99999.gguf")
    with pytest.raises(HerdError):
        chosen(None, "m-00000-of-00000.gguf", "m-00001-of-00000.gguf")
