"""Vocabularies of real size, rewritten as the files that other layouts have: ids do not change.

The GGUF vocabularies' own ids are held to llama.cpp's by `test_reference_ids`; here the same vocabularies pass through
tokenizer.json (with the `tokenizers` package itself as the reference), SentencePiece's tokenizer.model and tiktoken's.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer as Library

from openherd.checkpoints.hf_tokenizer import read_hf_tokenizer
from openherd.checkpoints.meta_tokenizer import read_meta_tokenizer
from openherd.tokenizers import Tokenizer, TokenizerSpec
from openherd.tokenizers.byte_level import piece_bytes
from openherd.tokenizers.spec import TokenType
from tests.parity.token_strings import token_strings
from tests.parity.vocabularies import spec_of, vocabulary
from tests.tokenizer_files import sentencepiece_file, tiktoken_file

STRINGS = token_strings()


def assert_equal(ours: Tokenizer, reference: Tokenizer, *, special: bool) -> None:
    different = [
        text
        for text in STRINGS
        if ours.encode(text, add_bos=False, special=special) != reference.encode(text, add_bos=False, special=special)
    ]
    assert different == []


def test_smollm2_as_tokenizer_json(default_model: Path, tmp_path: Path) -> None:
    """The structure of SmolLM2's own tokenizer.json."""
    spec = spec_of(default_model)
    tokens = list(spec.tokens)
    added = [
        {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True} for i, text in enumerate(tokens) if spec.token_types[i] == TokenType.CONTROL
    ]  # fmt: skip
    root = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "vocab": {text: i for i, text in enumerate(tokens)}, "merges": list(spec.merges)},
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(root), encoding="utf-8")
    read, source = read_hf_tokenizer(tmp_path, len(tokens), ())
    assert (read.pre, source) == ("smollm", "tokenizer.json")
    ours, library = Tokenizer(read), Library.from_file(str(tmp_path / "tokenizer.json"))
    different = [
        text
        for text in STRINGS
        if ours.encode(text, special=True) != library.encode(text, add_special_tokens=False).ids
    ]
    assert different == []


def test_llama_2_as_a_sentencepiece_model(tmp_path: Path) -> None:
    spec = spec_of(vocabulary("llama-spm"))
    path = tmp_path / "tokenizer.model"
    path.write_bytes(sentencepiece_file(zip(spec.tokens, spec.scores, spec.token_types, strict=True)))
    read = read_meta_tokenizer(path, len(spec.tokens), "Llama 2")
    assert (list(read.tokens), list(read.scores)) == (list(spec.tokens), list(spec.scores))
    assert (read.bos_id, read.eos_id, read.stop_ids) == (1, 2, {2})
    for special in (False, True):
        assert_equal(Tokenizer(read), Tokenizer(spec), special=special)


def test_llama_3_as_ranks(tmp_path: Path) -> None:
    """Merges made of 128,000 ranks give the ids of the 280,147 merges that the GGUF file has."""
    spec = spec_of(vocabulary("llama-bpe"))
    plain = [token for token, kind in zip(spec.tokens, spec.token_types, strict=True) if kind == TokenType.NORMAL]
    assert len(plain) == 128_000
    path = tmp_path / "tokenizer.model"
    path.write_bytes(tiktoken_file(map(piece_bytes, plain)))
    read: TokenizerSpec = read_meta_tokenizer(path, len(spec.tokens), "Llama 3")
    assert list(read.tokens) == list(spec.tokens)
    for special in (False, True):
        assert_equal(Tokenizer(read), Tokenizer(spec), special=special)
