"""Added tokens that tokenizer.json calls normalised: the ids of the `tokenizers` package, on generated texts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from tokenizers import AddedToken, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Pipeline
from tokenizers.models import BPE

from openherd.checkpoints.hf_tokenizer import read_hf_tokenizer
from openherd.checkpoints.tokenizer_json_writer import tokenizer_json
from openherd.checkpoints.tokenizer_rules import differs_elsewhere
from openherd.tokenizers import Tokenizer, TokenizerSpec
from openherd.tokenizers.byte_level import BYTE_OF
from openherd.tokenizers.spec import TokenType

LLAMA = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
GEMMA = normalizers.Replace(" ", "▁")
COMPOSED_LLAMA = normalizers.Sequence([normalizers.NFKC(), normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
METASPACE = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
METASPACES = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
# As transformers' `add_tokens` makes them, in lots that do not overlap: there the package takes the leftmost, openherd
# the longest. Beside them some that are sought as written, and control tokens.
NORMALIZED = {
    "words": [AddedToken("<think>"), AddedToken("né")],
    "spaces": [AddedToken("  ")],
    "strips": [AddedToken("<think>"), AddedToken("<pad>", lstrip=True, rstrip=True)],
}
WRITTEN = [AddedToken("<raw>", normalized=False), AddedToken("</raw>", normalized=False, lstrip=True, rstrip=True)]
BITS = (
    "<think>", "<pad>", "<raw>", "</raw>", "<s>", "</s>", "a", "b", " ", "  ", "▁", "\n", ".", "ne\u0301", "né",
    ">", "\u0338", "think", "<", "ﬁ", "＜", "\u00a0",
)  # fmt: skip


def sentencepiece(normalizer: normalizers.Normalizer | None, pre: pre_tokenizers.PreTokenizer | None) -> Pipeline:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *"▁abcdefghijklmnop<>/\n", "▁a", "▁▁"]
    vocab = {token: i for i, token in enumerate(tokens)}
    model = BPE(vocab, [("▁", "▁"), ("▁", "a")], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    return with_added(Pipeline(model), normalizer, pre)


def byte_level(normalizer: normalizers.Normalizer | None) -> Pipeline:
    tokens = ["<s>", "</s>", *BYTE_OF, "Ġa"]
    model = BPE({token: i for i, token in enumerate(tokens)}, [("Ġ", "a")])
    return with_added(Pipeline(model), normalizer, pre_tokenizers.ByteLevel(add_prefix_space=False))


def with_added(
    pipeline: Pipeline, normalizer: normalizers.Normalizer | None, pre: pre_tokenizers.PreTokenizer | None
) -> Pipeline:
    if normalizer is not None:
        pipeline.normalizer = normalizer
    if pre is not None:
        pipeline.pre_tokenizer = pre
    pipeline.add_special_tokens([AddedToken(text, normalized=False) for text in ("<s>", "</s>")])
    return pipeline


def read(pipeline: Pipeline, folder: Path) -> TokenizerSpec:
    pipeline.save(str(folder / "tokenizer.json"))
    return read_hf_tokenizer(folder, pipeline.get_vocab_size(), ())[0]


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, special=True, add_bos=False)


def texts() -> list[str]:
    random = Random(0)
    return ["".join(random.choices(BITS, k=random.randint(1, 10))) for _ in range(1500)]


PIPELINES = {
    "Llama's spaces": lambda: sentencepiece(LLAMA, None),
    "Gemma's spaces": lambda: sentencepiece(GEMMA, None),
    "composed": lambda: sentencepiece(COMPOSED_LLAMA, None),
    "Metaspace": lambda: sentencepiece(None, METASPACE),
    "Metaspace, composed": lambda: sentencepiece(normalizers.NFC(), METASPACES),
    "byte-level": lambda: byte_level(None),
    "byte-level, composed": lambda: byte_level(normalizers.NFC()),
}


@pytest.mark.parametrize("added", NORMALIZED)
@pytest.mark.parametrize("name", PIPELINES)
def test_ids_are_those_of_the_package(name: str, added: str, tmp_path: Path) -> None:
    pipeline = PIPELINES[name]()
    pipeline.add_tokens(NORMALIZED[added] + WRITTEN)
    spec = read(pipeline, tmp_path)
    tokenizer = Tokenizer(spec)
    for text in texts():
        assert ids(tokenizer, text) == pipeline.encode(text, add_special_tokens=False).ids, repr(text)


def test_what_is_written_again_has_the_same_ids(tmp_path: Path) -> None:
    pipeline = sentencepiece(LLAMA, None)
    pipeline.add_tokens(NORMALIZED["words"] + WRITTEN)
    spec = read(pipeline, tmp_path)
    again = Pipeline.from_str(json.dumps(tokenizer_json(spec)))
    for text in texts()[:300]:
        assert again.encode(text, add_special_tokens=False).ids == pipeline.encode(text, add_special_tokens=False).ids
    assert "added tokens" in str(differs_elsewhere(spec))
    assert differs_elsewhere(replace(spec, normalized=frozenset())) is None


def test_control_tokens_are_found_as_written_whatever_the_file_calls_them(tmp_path: Path) -> None:
    """Old conversions of Llama 2 call theirs normalised: the package would spell out the `</s>` that ends an answer."""
    pipeline = sentencepiece(LLAMA, None)
    pipeline.add_special_tokens([AddedToken(text, normalized=True) for text in ("<unk>", "<s>", "</s>")])
    assert 2 not in pipeline.encode("a</s>", add_special_tokens=False).ids
    spec = read(pipeline, tmp_path)
    assert spec.token_types[2] == TokenType.CONTROL
    assert ids(Tokenizer(spec), "<s>a</s>") == [1, spec.tokens.index("▁a"), 2]
    assert 2 not in Tokenizer(spec).encode("a</s>", special=False)


def test_the_last_entry_of_a_token_counts(tmp_path: Path) -> None:
    pipeline = sentencepiece(LLAMA, None)
    pipeline.add_tokens(NORMALIZED["words"])
    think = pipeline.token_to_id("<think>")
    assert think in read(pipeline, tmp_path).normalized
    entry = {"content": "<think>", "normalized": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {str(think): entry}}))
    spec = read(pipeline, tmp_path)
    assert think not in spec.normalized
    assert think in ids(Tokenizer(spec), "a<think>")
