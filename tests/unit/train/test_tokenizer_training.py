"""A vocabulary of one's own: what it is made of, and that it reads back as it was trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer as Pipeline

from openherd.errors import InputError, OptionError
from openherd.train.tokenizer_training import MIN_VOCAB, SPECIAL_TOKENS, train_tokenizer

TEXT = "The cat sat on the mat. The dog sat on the log, 12345 times! " * 50


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


def test_trains_and_reads_back(data: Path, tmp_path: Path) -> None:
    made = train_tokenizer([data], tmp_path / "out", 280)
    assert made.text_bytes == len(TEXT)
    assert made.bytes_per_token > 2
    pipeline = Pipeline.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert pipeline.get_vocab_size() == 280
    ids = pipeline.encode("The cat").ids
    assert ids[0] == pipeline.token_to_id("<|begin_of_text|>") == 280 - len(SPECIAL_TOKENS)
    odd = "héllo\n\n \t☃ 12345"
    assert pipeline.decode(pipeline.encode(odd).ids) == odd
    splits = [piece for piece, _ in pipeline.pre_tokenizer.pre_tokenize_str("it's 12345")]
    assert splits == ["it", "'s", "Ġ", "123", "45"], "Llama 3's splitting"
    config = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert "start_header_id" in config["chat_template"]


def test_the_same_text_gives_the_same_files(data: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train_tokenizer([data], tmp_path / name, 280)
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (tmp_path / "b" / "tokenizer.json").read_bytes()


def test_refusals(data: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--vocab-size must be from"):
        train_tokenizer([data], tmp_path / "out", MIN_VOCAB - 1)
    with pytest.raises(InputError, match=r"yields \d+ tokens, not 5000"):
        train_tokenizer([data], tmp_path / "out", 5000)
    with pytest.raises(InputError, match="exists already"):
        train_tokenizer([data], tmp_path, 280)
    assert not (tmp_path / "out").exists()
