"""llama.cpp's own tokenizer test cases, for every vocabulary it ships that openherd supports."""

from __future__ import annotations

import pytest
from vocabularies import spec_of, vocabulary

from openherd.errors import UnsupportedError
from openherd.tokenizers.tokenizer import Tokenizer

SUPPORTED = "command-r deepseek-coder falcon gpt-2 llama-bpe llama-spm mpt phi-3 qwen2 qwen35 refact starcoder"
BETWEEN = "\n__ggml_vocab_test__\n"


@pytest.mark.parametrize("name", sorted(SUPPORTED.split(" ")))
def test_ids_equal_the_cases(name: str) -> None:
    path = vocabulary(name)
    tokenizer = Tokenizer(spec_of(path))
    texts = path.with_suffix(".gguf.inp").read_text(encoding="utf-8").split(BETWEEN)[:-1]  # one after each
    lines = path.with_suffix(".gguf.out").read_text(encoding="utf-8").splitlines()
    expected = [list(map(int, line.split())) for line in lines]
    assert len(texts) > 40
    assert [tokenizer.encode(text, add_bos=False) for text in texts] == expected


@pytest.mark.parametrize("name", ["bert-bge", "deepseek-llm"])
def test_other_tokenizers_are_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedError, match=r"bert|deepseek-llm"):
        Tokenizer(spec_of(vocabulary(name)))
