"""Small models of every family through `herd convert`: a Hugging Face folder to GGUF, and that to a folder again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from openherd.workshop.convert.run import convert
from tests.checkpoint_files import safetensors_of
from tests.parity.family_cases import families, family_weights
from tests.parity.family_layouts import NOT_IN_GGUF

EXPECTED = Path(__file__).with_name("family_converted.json")
CASES = [name for name in families() if name not in NOT_IN_GGUF]
VOCAB = 97
# llama.cpp does not load a Phi-3 whose vocabulary lacks one of the last four, by name.
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<|endoftext|>")


def source_folder(name: str, folder: Path) -> Path:
    """The model as its author would publish it: config.json, weights, a tokenizer."""
    case = families()[name]
    source = folder / name
    source.mkdir()
    (source / "config.json").write_text(json.dumps(case["config"]), encoding="utf-8")
    (source / "model.safetensors").write_bytes(safetensors_of(family_weights(case["shapes"])))
    (source / "tokenizer.json").write_text(json.dumps(_tokenizer()), encoding="utf-8")
    (source / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    return source


def converted(name: str, folder: Path) -> tuple[Path, Path]:
    """(the GGUF file, the folder made of it), both in float32."""
    gguf, back = folder / f"{name}.gguf", folder / f"{name}-hf"
    convert(source_folder(name, folder), gguf, "gguf", dtype="f32", with_golden=False)
    convert(gguf, back, "safetensors", dtype="f32", with_golden=False)
    return gguf, back


def _tokenizer() -> dict[str, Any]:
    """The special tokens, the visible characters of ASCII, and one merge."""
    characters = [chr(code) for code in range(0x21, 0x7F)][: VOCAB - len(SPECIAL) - 1]
    tokens = [*SPECIAL, *characters, "ab"]
    added = [
        {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True} for i, text in enumerate(SPECIAL)
    ]  # fmt: skip
    return {
        "version": "1.0", "added_tokens": added, "normalizer": None, "post_processor": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "vocab": {text: i for i, text in enumerate(tokens)}, "merges": [["a", "b"]]},
    }  # fmt: skip
