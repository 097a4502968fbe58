"""Meta's folders: parts joined by their parallel dimension, what is assumed and said, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.describe import describe
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.meta_params import MetaShapes, read_params
from openherd.config import RopeScaling
from openherd.errors import FormatError, HerdError, ModelNotFoundError, UnsupportedError
from openherd.tokenizers.named_templates import named_template
from tests.parity.reader_cases import FOLDER
from tests.torch_files import torch_file

LLAMA2, LLAMA3 = FOLDER / "llama2-meta-2", FOLDER / "llama3-meta-2"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(LLAMA2, tmp_path / "model"))


@pytest.mark.parametrize("name", ["llama1", "llama2", "llama3"])
def test_two_parts_are_the_one(name: str) -> None:
    one, two = open_checkpoint(FOLDER / f"{name}-meta"), open_checkpoint(FOLDER / f"{name}-meta-2")
    assert one.config == two.config
    assert (len(one.files), len(two.files)) == (1, 2)
    for key in one.tensors:
        np.testing.assert_array_equal(one.tensors[key].rows(), two.tensors[key].rows(), err_msg=key)


@pytest.mark.parametrize(
    ("name", "template", "words"),
    [
        ("llama1-meta", None, "read as Llama 1: context 2,048"),
        ("llama2-meta", "llama-2", "read as Llama 2: context 4,096"),
        ("llama3-meta", "llama-3", "read as Llama 3.1: context 131,072"),
    ],
)
def test_what_is_assumed_is_said(name: str, template: str | None, words: str) -> None:
    """A template that was chosen for the folder says that it was, and that the model may be a base model."""
    checkpoint = open_checkpoint(FOLDER / name)
    facts = describe(FOLDER / name)
    assert facts["assumed"] == list(checkpoint.notes)
    assert words in checkpoint.notes[0]
    assert facts["tokenizer"]["source"].endswith("tokenizer.model")
    if template is None:
        assert checkpoint.chat_template is None
        return
    assert checkpoint.chat_template == named_template(template)
    assert facts["chat_template"]["source"].startswith(f"built in: {template}, the format of")
    assert "does not say whether this is one or a base model" in facts["chat_template"]["source"]


def test_special_tokens_of_llama_3() -> None:
    spec = open_checkpoint(LLAMA3).tokenizer
    assert list(spec.tokens[389:]) == [
        "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
        "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>",
        "<|eot_id|>", "<|python_tag|>",
    ]  # fmt: skip
    assert (spec.bos_id, spec.eos_id, spec.eot_id, spec.eom_id, spec.add_bos) == (389, 390, 398, 397, True)
    assert spec.stop_ids == {390, 397, 398}


def test_the_first_llama_3_has_its_own_special_tokens(tmp_path: Path) -> None:
    shutil.copytree(LLAMA3, tmp_path, dirs_exist_ok=True)
    params = json.loads((tmp_path / "params.json").read_text())
    del params["use_scaled_rope"], params["rope_scaling_factor"]
    (tmp_path / "params.json").write_text(json.dumps(params))
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.notes[0].startswith("read as Llama 3: context 8,192")
    assert checkpoint.config.rope_scaling == RopeScaling()
    assert (checkpoint.tokenizer.eot_id, checkpoint.tokenizer.eom_id) == (398, None)
    assert checkpoint.tokenizer.tokens[393:] == ["<|reserved_special_token_2|>", "<|reserved_special_token_3|>",
        "<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>",
        "<|reserved_special_token_5|>"]  # fmt: skip


# Sizes of the models that Meta released: params.json, rows and width -> generation, context, scaling factor.
RELEASED: dict[str, tuple[dict[str, Any], int, int, bool, str, int, float]] = {
    "Llama 1 7B": (
        {"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-06, "vocab_size": -1},
        32000, 11008, False, "Llama 1", 2048, 1.0),
    "Llama 1 65B": (
        {"dim": 8192, "multiple_of": 256, "n_heads": 64, "n_layers": 80, "norm_eps": 1e-05, "vocab_size": -1},
        32000, 22016, False, "Llama 1", 2048, 1.0),
    "Llama 2 7B": (
        {"dim": 4096, "multiple_of": 256, "n_heads": 32, "n_layers": 32, "norm_eps": 1e-05, "vocab_size": -1},
        32000, 11008, False, "Llama 2", 4096, 1.0),
    "Llama 2 70B": (
        {"dim": 8192, "multiple_of": 4096, "ffn_dim_multiplier": 1.3, "n_heads": 64, "n_kv_heads": 8, "n_layers": 80,
         "norm_eps": 1e-05, "vocab_size": -1}, 32000, 28672, False, "Llama 2", 4096, 1.0),
    "Code Llama 7B": (
        {"dim": 4096, "n_layers": 32, "n_heads": 32, "multiple_of": 256, "ffn_dim_multiplier": 1.0, "norm_eps": 1e-05,
         "rope_theta": 1000000}, 32016, 11008, False, "Code Llama", 16384, 1.0),
    "Llama 3 8B": (
        {"dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256, "multiple_of": 1024,
         "ffn_dim_multiplier": 1.3, "norm_eps": 1e-05, "rope_theta": 500000.0},
        128256, 14336, True, "Llama 3", 8192, 1.0),
    "Llama 3.1 405B": (
        {"dim": 16384, "n_layers": 126, "n_heads": 128, "n_kv_heads": 8, "vocab_size": 128256, "multiple_of": 4096,
         "ffn_dim_multiplier": 1.2, "norm_eps": 1e-05, "rope_theta": 500000.0, "use_scaled_rope": True},
        128256, 53248, True, "Llama 3.1", 131072, 8.0),
    "Llama 3.2 1B": (
        {"dim": 2048, "n_layers": 16, "n_heads": 32, "n_kv_heads": 8, "vocab_size": 128256, "multiple_of": 256,
         "ffn_dim_multiplier": 1.5, "norm_eps": 1e-05, "rope_theta": 500000.0, "use_scaled_rope": True},
        128256, 8192, True, "Llama 3.2", 131072, 32.0),
}  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_models(name: str) -> None:
    values, rows, width, tiktoken, expected, context, factor = RELEASED[name]
    shapes = MetaShapes(vocab_size=rows, ffn_dim=width, tied=False)
    config, generation, _ = read_params(Keys(Path("params.json"), values), shapes, tiktoken=tiktoken)
    assert (generation, config.max_seq_len, config.rope_scaling.factor) == (expected, context, factor)
    assert config.rope_theta == values.get("rope_theta", 10000)


def _params(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        params = json.loads((folder / "params.json").read_text()) | changes
        (folder / "params.json").write_text(json.dumps({k: v for k, v in params.items() if v is not None}))

    return change


def _part(arrays: dict[str, np.ndarray]) -> Callable[[Path], object]:
    return lambda folder: (folder / "consolidated.01.pth").write_bytes(torch_file(arrays))


REFUSED: dict[str, tuple[Callable[[Path], object], type[HerdError], str]] = {
    "no dim": (_params(dim=None), FormatError, "the key dim is missing"),
    "dim a text": (_params(dim="16"), FormatError, "dim must be a whole number"),
    "another dim": (_params(dim=32), FormatError, "must give the feed-forward 48 values|has shape"),
    "heads": (_params(n_heads=3), FormatError, "must be an even multiple of the 3 heads"),
    "key heads": (_params(n_kv_heads=3), FormatError, "n_kv_heads must divide the 4 query heads"),
    "unknown key": (_params(moe_args={}), UnsupportedError, "does not know the key moe_args"),
    "vision": (_params(vision_chunk_size=560), UnsupportedError, "does not know the key vision_chunk_size"),
    "vocabulary": (_params(vocab_size=320), FormatError, "number of rows, 400, not 320"),
    "width": (_params(ffn_dim_multiplier=3.0), FormatError, "must give the feed-forward 48 values, not 128"),
    "one layer more": (_params(n_layers=3), FormatError, r"tensor layers\.2\.attention_norm\.weight is missing"),
    "one layer less": (_params(n_layers=1), UnsupportedError, r"layers\.1\.\S+ is not part of this family"),
    "part missing": (lambda f: (f / "consolidated.00.pth").unlink(), FormatError, r"consolidated\.00\.pth is missing"),
    "no parts": (
        lambda f: [part.unlink() for part in f.glob("*.pth")], ModelNotFoundError, r"but no consolidated\.00\.pth"),
    "other tensors": (_part({"x": np.ones(1)}), FormatError, "consolidated.01.pth: the tensor .* is not in every part"),
    "no tokenizer": (lambda f: (f / "tokenizer.model").unlink(), ModelNotFoundError, r"holds no tokenizer\.model, and"),
    "a part of a part": (
        lambda f: (f / "consolidated.01.pth").write_bytes((f / "consolidated.00.pth").read_bytes()[:9000]), FormatError,
        "not a sound zip archive"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, folder: Path) -> None:
    change, error, message = REFUSED[case]
    change(folder)
    with pytest.raises(error, match=message):
        open_checkpoint(folder)


def test_a_part_of_another_shape(folder: Path) -> None:
    shutil.copy(FOLDER / "llama2-meta" / "consolidated.00.pth", folder / "consolidated.01.pth")
    with pytest.raises(FormatError, match=r"consolidated\.01\.pth: the tensor \S+ has another shape or type"):
        open_checkpoint(folder)


def test_the_tokenizer_may_lie_above(folder: Path) -> None:
    """As Meta released Llama 1 and 2: one tokenizer for the folders of all sizes."""
    (folder / "tokenizer.model").rename(folder.parent / "tokenizer.model")
    assert open_checkpoint(folder).config.vocab_size == 400
    assert describe(folder)["tokenizer"]["source"] == str(folder.parent / "tokenizer.model")


def test_a_tokenizer_of_another_size(tmp_path: Path) -> None:
    shutil.copytree(LLAMA3, tmp_path, dirs_exist_ok=True)
    lines = (tmp_path / "tokenizer.model").read_bytes().splitlines(keepends=True)
    (tmp_path / "tokenizer.model").write_bytes(b"".join([*lines, b"enp6eg== 389\n"]))
    with pytest.raises(FormatError, match="390 tokens and at least 11 special ones do not fit an embedding of 400"):
        open_checkpoint(tmp_path)


def test_inspect_says_why_a_model_cannot_be_run(folder: Path) -> None:
    _params(moe_args={})(folder)
    facts = describe(folder)
    assert "does not know the key moe_args" in facts["unsupported"]
    assert (facts["config"], facts["parameters"], facts["tokenizer"]["model"]) == (None, 19024, None)
