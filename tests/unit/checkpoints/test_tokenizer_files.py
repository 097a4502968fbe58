"""tokenizer.json, tokenizer.model in both forms, and the settings beside them: what is read and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openherd.checkpoints import sentencepiece_model
from openherd.checkpoints.hf_tokenizer import read_hf_tokenizer
from openherd.checkpoints.sentencepiece_model import read_sentencepiece_model
from openherd.checkpoints.tiktoken_file import is_tiktoken, read_tiktoken_file
from openherd.checkpoints.tokenizer_json import MAX_BYTES, MAX_ITEMS, read_tokenizer_json
from openherd.errors import FormatError, HerdError, UnsupportedError
from openherd.tokenizers import Tokenizer, TokenizerSpec
from openherd.tokenizers.spec import Strip, TokenType
from tests.bounds import within_memory
from tests.parity.reader_cases import FOLDER
from tests.tokenizer_files import BPE, PIECES, sentencepiece_file, tiktoken_file

BYTE_LEVEL = FOLDER / "llama3-hf" / "tokenizer.json"
METASPACE = FOLDER / "llama2-hf-new" / "tokenizer.json"
PREPEND = FOLDER / "llama2-hf-legacy" / "tokenizer.json"


def edited(source: Path, folder: Path, change: Callable[[Any], object]) -> Path:
    root = json.loads(source.read_text())
    change(root)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(root))
    return path


def read(folder: Path, vocab_size: int = 402, ends: tuple[int, ...] = ()) -> TokenizerSpec:
    return read_hf_tokenizer(folder, vocab_size, ends)[0]


def test_byte_level(tmp_path: Path) -> None:
    file = read_tokenizer_json(BYTE_LEVEL)
    assert (file.kind, file.pre, file.first, file.last, file.normalizer) == (
        "bpe", "llama-bpe", "<|begin_of_text|>", None, None)  # fmt: skip
    assert file.table.types[389] == TokenType.CONTROL
    nfc = edited(BYTE_LEVEL, tmp_path, lambda r: r.update(normalizer={"type": "NFC"}))
    assert read_tokenizer_json(nfc).normalizer == "NFC"
    tokenizer = Tokenizer(read(tmp_path))
    assert tokenizer.encode("e\u0301") == tokenizer.encode("\u00e9")


def test_spaces() -> None:
    for path, rule in ((PREPEND, "sentencepiece"), (METASPACE, "metaspace-first")):
        file = read_tokenizer_json(path)
        assert (file.kind, file.add_space_prefix, file.prefix_rule, file.unknown) == ("spm", True, rule, "<unk>")
        assert file.table.types[3] == TokenType.BYTE
        assert file.table.strips == {400: Strip(right=True), 401: Strip(left=True)}


def test_merges_as_pairs_or_texts_are_the_same(tmp_path: Path) -> None:
    merges = json.loads(BYTE_LEVEL.read_text())["model"]["merges"]
    texts = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
    for form in (texts, [text.split(" ") for text in texts]):
        path = edited(BYTE_LEVEL, tmp_path, lambda r, form=form: r["model"].update(merges=form))
        assert read_tokenizer_json(path).merges == texts


def _model(**changes: Any) -> Callable[[Any], object]:
    return lambda root: root["model"].update(changes)


def _root(**changes: Any) -> Callable[[Any], object]:
    return lambda root: root.update(changes)


def _added(**changes: Any) -> Callable[[Any], object]:
    return lambda root: root["added_tokens"][0].update(changes)


def _split(**changes: Any) -> Callable[[Any], object]:
    return lambda root: root["pre_tokenizer"]["pretokenizers"][0].update(changes)


SPACES = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
METASPACES = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
BEGIN = {"SpecialToken": {"id": "<s>", "type_id": 0}}
REFUSED: dict[str, tuple[Path, Callable[[Any], object], type[HerdError], str]] = {
    "no model": (BYTE_LEVEL, _root(model=None), FormatError, "model must be an object"),
    "Unigram": (BYTE_LEVEL, _model(type="Unigram"), UnsupportedError, "the model is 'Unigram'; openherd builds BPE"),
    "dropout": (BYTE_LEVEL, _model(dropout=0.1), UnsupportedError, "model.dropout is 0.1"),
    "suffix": (BYTE_LEVEL, _model(end_of_word_suffix="</w>"), UnsupportedError, "end_of_word_suffix is '</w>'"),
    "no vocabulary": (BYTE_LEVEL, _model(vocab={}), FormatError, "model.vocab must map 1 to"),
    "id a text": (BYTE_LEVEL, _model(vocab={"a": "0"}), FormatError, "ids must be whole numbers"),
    "id -1": (BYTE_LEVEL, _model(vocab={"a": -1}), FormatError, "ids must be whole numbers"),
    "id 2^40": (BYTE_LEVEL, _model(vocab={"a": 2**40}), FormatError, "ids must be whole numbers"),
    "one id for two": (BYTE_LEVEL, _model(vocab={"a": 0, "b": 0}), FormatError, "two tokens have one id"),
    "merges an object": (BYTE_LEVEL, _model(merges={}), FormatError, "model.merges must be a list"),
    "merge of three": (BYTE_LEVEL, _model(merges=[["a", "b", "c"]]), FormatError, "a merge must be two tokens"),
    "merge a number": (BYTE_LEVEL, _model(merges=[1]), FormatError, "a merge must be two tokens"),
    "fallback": (BYTE_LEVEL, _model(byte_fallback=True), UnsupportedError, "byte fallback beside a byte-level"),
    "no fallback": (PREPEND, _model(byte_fallback=False), UnsupportedError, "without byte fallback"),
    "other merging": (BYTE_LEVEL, _split(behavior="Contiguous"), UnsupportedError, "is not one that openherd knows"),
    "unknown expression": (
        BYTE_LEVEL, _split(pattern={"Regex": "(a+)+b"}), UnsupportedError, "does not know the pre-tokenizer '.a+.+b'"),
    "no pre-tokenizer": (BYTE_LEVEL, _root(pre_tokenizer=None), UnsupportedError, "neither byte-level nor Sentence"),
    "other pre-tokenizer": (BYTE_LEVEL, _root(pre_tokenizer={"type": "X"}), UnsupportedError, "'X'}? is not"),
    "two byte levels": (
        BYTE_LEVEL, lambda r: r["pre_tokenizer"]["pretokenizers"].append({"type": "ByteLevel", "use_regex": False}),
        UnsupportedError, "neither byte-level"),
    "prefixed words": (
        BYTE_LEVEL, lambda r: r["pre_tokenizer"]["pretokenizers"][1].update(add_prefix_space=True), UnsupportedError,
        "is not one that openherd knows"),
    "lower case": (BYTE_LEVEL, _root(normalizer={"type": "Lowercase"}), UnsupportedError, "normalizer 'Lowercase'"),
    "charsmap": (BYTE_LEVEL, _root(normalizer={"type": "Precompiled"}), UnsupportedError, "'Precompiled' is not supp"),
    "prepend alone": (BYTE_LEVEL, _root(normalizer=SPACES), UnsupportedError, "Prepend without Replace"),
    "split words": (METASPACE, _root(pre_tokenizer=METASPACES | {"split": True}), UnsupportedError, "splits words"),
    "another sign": (METASPACE, _root(pre_tokenizer=METASPACES | {"replacement": "_"}), UnsupportedError, "another"),
    "odd scheme": (METASPACE, _root(pre_tokenizer=METASPACES | {"prepend_scheme": "x"}), FormatError, "_scheme is 'x'"),
    "both": (METASPACE, _root(normalizer=REPLACE), UnsupportedError, "beside a normalizer for spaces"),
    "17 steps": (BYTE_LEVEL, _root(normalizer={"type": "Sequence", "normalizers": [REPLACE] * 17}), FormatError, "16"),
    "added text": (BYTE_LEVEL, _added(content=""), FormatError, "must have an id below"),
    "added id": (BYTE_LEVEL, _added(id=-1), FormatError, "must have an id below"),
    "added word": (BYTE_LEVEL, _added(single_word=True), UnsupportedError, "matches whole words only"),
    "added over another": (BYTE_LEVEL, _added(id=5), FormatError, "token 5 is both"),
    "added list": (BYTE_LEVEL, _root(added_tokens={"a": 1}), FormatError, "added_tokens must be a list"),
    "processor": (BYTE_LEVEL, _root(post_processor={"type": "BertProcessing"}), UnsupportedError, "'BertProcessing'"),
    "two begins": (
        BYTE_LEVEL, _root(post_processor={"type": "TemplateProcessing", "single": [BEGIN, BEGIN, {"Sequence": {}}]}),
        UnsupportedError, "at most one token on each side"),
    "no text": (
        BYTE_LEVEL, _root(post_processor={"type": "TemplateProcessing", "single": [BEGIN]}),
        UnsupportedError, "at most one token on each side"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_tokenizer_json(case: str, tmp_path: Path) -> None:
    source, change, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        read_tokenizer_json(edited(source, tmp_path, change))


def test_settings_are_laid_over(tmp_path: Path) -> None:
    shutil.copy(BYTE_LEVEL, tmp_path)
    settings = {
        "bos_token": None, "eos_token": {"content": "<|end_of_text|>"}, "pad_token": "<|eot_id|>",
        "add_bos_token": False,
        "added_tokens_decoder": {"400": {"content": "<extra>", "special": True, "rstrip": True},
                                 "401": {"content": "word", "special": False}},
        "extra_special_tokens": ["the"],
    }  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    spec = read(tmp_path, 405, (397,))
    assert (spec.add_bos, spec.bos_id, spec.eos_id, spec.pad_id) == (False, 389, 390, 398)
    assert (spec.tokens[400:], list(spec.token_types[400:])) == (
        ["<extra>", "word", "[PAD402]", "[PAD403]", "[PAD404]"],
        [TokenType.CONTROL, TokenType.USER_DEFINED, *[TokenType.UNUSED] * 3],
    )
    assert spec.strips == {400: Strip(right=True)}
    assert spec.stop_ids == {390, 397, 398}
    assert Tokenizer(spec).encode("a<extra>  word", special=True)[-2:] == [400, 401]


def test_tokens_beyond_the_embedding(tmp_path: Path) -> None:
    """Added ones are left out, because no model can read them; others contradict the model."""
    shutil.copy(METASPACE, tmp_path)
    assert len(read(tmp_path, 400).tokens) == 400
    with pytest.raises(FormatError, match=r"token 399 .* is outside the embedding of 399 rows"):
        read(tmp_path, 399)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bos_token": 3}, "bos_token must be a token"),
        ({"extra_special_tokens": 3}, "extra_special_tokens must be a list"),
        ({"extra_special_tokens": [[]]}, "extra_special_tokens must be a token"),
        ({"added_tokens_decoder": {"x": {}}}, "must map ids to tokens"),
        ({"added_tokens_decoder": {"-1": {}}}, "must map ids to tokens"),
        ({"added_tokens_decoder": {"1" * 40: {}}}, "must map ids to tokens"),
        ({"added_tokens_decoder": {"400": {"content": 3}}}, "must have an id below"),
        ({"add_bos_token": "yes"}, "add_bos_token must be a truth value"),
    ],
)
def test_refused_settings(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    shutil.copy(BYTE_LEVEL, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(FormatError, match=message):
        read(tmp_path)


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        read(tmp_path)


def test_added_tokens_json_beside_a_sentencepiece_model(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_file(PIECES))
    (tmp_path / "added_tokens.json").write_text(json.dumps({"<pad>": 263, "ab": 259}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"legacy": False, "add_bos_token": True}))
    spec = read(tmp_path, 264)
    assert (spec.tokens[263], spec.token_types[263], spec.prefix_rule) == (
        "<pad>", TokenType.USER_DEFINED, "metaspace-first")  # fmt: skip
    assert (spec.bos_id, spec.eos_id, spec.unk_id, spec.add_bos) == (1, 2, 0, True)
    assert Tokenizer(spec).encode("ab<pad>ab") == [1, 262, 259, 263, 259]


def model(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(raw)
    return path


def test_sentencepiece(tmp_path: Path) -> None:
    file = read_sentencepiece_model(model(tmp_path, sentencepiece_file(PIECES)))
    assert (file.unk_id, file.bos_id, file.eos_id, file.pad_id, file.add_space_prefix) == (0, 1, 2, None, True)
    assert file.scores[259:] == [-1.0, -2.0, -3.0, -4.0]
    assert file.table.types[2] == TokenType.CONTROL
    trainer = [*BPE, (40, 2), (41, -1), (42, 1), (43, 0), (99, b"later versions")]
    file = read_sentencepiece_model(model(tmp_path, sentencepiece_file(PIECES, trainer, [(4, 0), (3, 0)])))
    assert (file.unk_id, file.bos_id, file.eos_id, file.pad_id, file.add_space_prefix) == (2, None, 1, 0, False)


SENTENCEPIECE: dict[str, tuple[bytes, type[HerdError], str]] = {
    "text": (b"hello world, this is text", FormatError, "not a SentencePiece model"),
    "no pieces": (sentencepiece_file([]), FormatError, "holds no pieces"),
    "Unigram": (sentencepiece_file(PIECES, [(3, 1)]), UnsupportedError, "of type Unigram"),
    "Unigram by default": (sentencepiece_file(PIECES, []), UnsupportedError, "of type Unigram"),
    "charsmap": (
        sentencepiece_file(PIECES, BPE, [(1, b"nmt_nfkc"), (2, b"x"), (4, 0)]), UnsupportedError, "rules b'nmt_nfkc'"),
    "spaces removed": (sentencepiece_file(PIECES, BPE, [(1, b"identity")]), UnsupportedError, "removes extra spaces"),
    "suffix": (sentencepiece_file(PIECES, [*BPE, (24, 1)]), UnsupportedError, "spaces after words"),
    "plain spaces": (sentencepiece_file(PIECES, BPE, [(4, 0), (5, 0)]), UnsupportedError, "keeps spaces as they are"),
    "type 7": (sentencepiece_file([("a", 0.0, 7)]), FormatError, "piece 0 has 1 bytes and type 7"),
    "long piece": (sentencepiece_file([("a" * 257, 0.0, 1)]), FormatError, "piece 0 has 257 bytes"),
    "cut": (sentencepiece_file(PIECES)[:-3], FormatError, "do not fit the"),
    "length beyond": (b"\x0a\xff\xff\xff\xff\x0f", FormatError, "do not fit the 0 left"),
    "endless number": (b"\x0a" + b"\xff" * 30, FormatError, "a number does not end"),
    "a piece a number": (b"\x08\x01", FormatError, "a message is a number"),
    "wire type 3": (b"\x0b", FormatError, "wire type 3"),
    "field 0": (b"\x02\x00", FormatError, "field 0"),
    "piece not UTF-8": (b"\x0a\x03\x0a\x01\xff", FormatError, "piece 0 is not UTF-8"),
    "score a text": (b"\x0a\x03\x12\x01a", FormatError, "piece 0 has fields of wrong types"),
    "a fixed number cut": (b"\x0d\x01", FormatError, "ends within a number"),
}  # fmt: skip


@pytest.mark.parametrize("case", SENTENCEPIECE)
def test_refused_sentencepiece(case: str, tmp_path: Path) -> None:
    raw, error, message = SENTENCEPIECE[case]
    with pytest.raises(error, match=message):
        read_sentencepiece_model(model(tmp_path, raw))


def test_fields_of_a_sentencepiece_model_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that mean nothing end soon, outside of pieces and within; they take about a microsecond each."""
    assert 3 * 262_144 + 262_144 < sentencepiece_model.MAX_FIELDS < 1 << 22  # Gemma's pieces, and seconds at the most
    monkeypatch.setattr(sentencepiece_model, "MAX_FIELDS", 1100)
    nothing = b"\x30\x00"  # field 6 is the number 0
    for raw in (sentencepiece_file(PIECES) + nothing * 1100, (b"\x0a\x7e" + nothing * 63) * 18):
        with pytest.raises(FormatError, match="more than 1100 fields"):
            read_sentencepiece_model(model(tmp_path, raw))


def test_items_of_tokenizer_json_are_counted_before_it_is_built(tmp_path: Path) -> None:
    raw = b'{"model": [' + b"[]," * (MAX_ITEMS // 2) + b"[]]}"
    assert len(raw) < MAX_BYTES // 4
    path = tmp_path / "tokenizer.json"
    path.write_bytes(raw)

    def refuse() -> None:
        with pytest.raises(FormatError, match="items of JSON are more than the limit"):
            read_tokenizer_json(path)

    within_memory(2 * len(raw), refuse)


BYTES = [bytes((byte,)) for byte in range(256)]
TIKTOKEN: dict[str, tuple[bytes, str]] = {
    "a byte missing": (tiktoken_file(BYTES[:255]), "no token for the byte 255"),
    "a token twice": (tiktoken_file([*BYTES, b"a"]), "a token stands twice"),
    "a rank left out": (tiktoken_file(BYTES).replace(b" 7\n", b" 8\n"), "line 8 is not the base64 of a token and"),
    "no base64": (b"!! 0\n", "line 1 is not the base64"),
    "three words": (b"AA== 0 0\n", "line 1 is not the base64"),
    "no rank": (b"AA==\n", "line 1 is not the base64"),
    "rank of 5000 digits": (b"AA== " + b"0" * 5000 + b"\n", "line 1 is not the base64"),
    "an empty token": (b" 0\n", "line 1 is not the base64"),
    "a long token": (tiktoken_file([b"a" * 999]), "line 1 is not the base64"),
}


@pytest.mark.parametrize("case", TIKTOKEN)
def test_refused_tiktoken(case: str, tmp_path: Path) -> None:
    raw, message = TIKTOKEN[case]
    with pytest.raises(FormatError, match=message):
        read_tiktoken_file(model(tmp_path, raw))


def test_tiktoken(tmp_path: Path) -> None:
    """Merges follow from ranks: every cut of a token, lowest ranks first."""
    path = model(tmp_path, tiktoken_file([*BYTES, b"aa", b"aaa"]))
    tokens, merges = read_tiktoken_file(path)
    assert (tokens[256:], merges) == (["aa", "aaa"], ["a a", "a aa", "aa a"])
    assert is_tiktoken(path.read_bytes())
    assert not is_tiktoken(sentencepiece_file(PIECES))
