"""Trains a vocabulary: byte-level BPE (Sennrich et al. 2016; bytes as in GPT-2) with Llama 3's splitting of text.

The merges are found by the `tokenizers` library. Text counts as it stands: nothing is normalised, and no token crosses
a word of the splitting. Written are tokenizer.json and tokenizer_config.json, as Hugging Face's libraries and
`open_checkpoint` read them, with Llama 3's special tokens and its chat template.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openherd.checkpoints.free_place import require_free
from openherd.checkpoints.new_file import write_new_text
from openherd.errors import InputError, OptionError
from openherd.tokenizers.named_templates import named_template
from openherd.train.rows import Completion, Conversation, Preference, RowError, Text
from openherd.train.sources import LocatedRow, find_files, read_rows

SPLITTING = "llama-bpe"
"""Its name in the table of pre-tokenizers, and in GGUF files."""
BEGIN, END = "<|begin_of_text|>", "<|end_of_text|>"
SPECIAL_TOKENS = (BEGIN, END, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
MIN_VOCAB = 256 + len(SPECIAL_TOKENS)
MAX_VOCAB = 1 << 20
_SAMPLE_BYTES = 1 << 20  # of text, on which bytes per token are counted


@dataclass(frozen=True, slots=True)
class TrainedTokenizer:
    folder: Path
    vocab_size: int
    text_bytes: int
    bytes_per_token: float  # on the first megabyte of the text it was trained on


def train_tokenizer(paths: Sequence[Path], folder: Path, vocab_size: int) -> TrainedTokenizer:
    """A vocabulary of `vocab_size` tokens from every text of the data, written into `folder`, which must not exist.

    The special tokens come last, so that a vocabulary is the same whatever they are called. Raises OptionError for an
    impossible size, InputError for data without enough text, RowError for a row that cannot be read.
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Pipeline

    from openherd.tokenizers.pretokenizers import pre_tokenizer

    if not MIN_VOCAB <= vocab_size <= MAX_VOCAB:
        raise OptionError(f"--vocab-size must be from {MIN_VOCAB} to {MAX_VOCAB}, not {vocab_size}")
    require_free(folder)
    files = find_files(list(paths))
    counted = _Counted()
    pipeline = Pipeline(models.BPE())
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in pre_tokenizer(SPLITTING).patterns]
    pipeline.pre_tokenizer = pre_tokenizers.Sequence(
        [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    pipeline.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pipeline.train_from_iterator(counted.texts(files), trainer)
    found = pipeline.get_vocab_size()
    if found < vocab_size - len(SPECIAL_TOKENS):
        raise InputError(
            f"the text ({counted.bytes} bytes) yields {found + len(SPECIAL_TOKENS)} tokens, not {vocab_size}",
            hint="give more text, or a smaller --vocab-size",
        )
    sample = counted.sample.decode(errors="ignore")
    tokens = len(pipeline.encode(sample, add_special_tokens=False).ids)
    _write(folder, json.loads(pipeline.to_str()), found)
    return TrainedTokenizer(folder, vocab_size, counted.bytes, len(sample.encode()) / max(1, tokens))


class _Counted:
    """The texts of the data, counted as they pass; the first of them are kept as a sample."""

    def __init__(self) -> None:
        self.bytes = 0
        self.sample = b""

    def texts(self, files: Sequence[Path]) -> Iterator[str]:
        for file in files:
            for located in read_rows(file):
                if isinstance(located, RowError):
                    raise located
                for text in _texts(located):
                    data = text.encode()
                    self.bytes += len(data)
                    if len(self.sample) < _SAMPLE_BYTES:
                        self.sample += data[: _SAMPLE_BYTES - len(self.sample)]
                    yield text


def _texts(located: LocatedRow) -> Iterator[str]:
    row = located.row
    if isinstance(row, Text):
        yield row.text
    elif isinstance(row, Completion):
        yield row.prompt + row.completion
    elif isinstance(row, Conversation):
        yield from (message.content for message in row.messages)
    else:
        assert isinstance(row, Preference)
        yield from (message.content for message in (*row.prompt, *row.chosen))


def _write(folder: Path, pipeline: dict[str, Any], first_special: int) -> None:
    """Both files, in a folder that appears whole."""
    special = [
        {"id": first_special + n, "content": token, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False, "special": True}
        for n, token in enumerate(SPECIAL_TOKENS)
    ]
    pipeline["added_tokens"] = special
    pipeline["model"]["ignore_merges"] = True
    begin = {"SpecialToken": {"id": BEGIN, "type_id": 0}}
    pipeline["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [begin, {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {BEGIN: {"id": BEGIN, "ids": [first_special], "tokens": [BEGIN]}},
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "model_max_length": 1 << 30,
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"} for token in special
        },
        "chat_template": named_template("llama-3"),
    }
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    for name, document in (("tokenizer.json", pipeline), ("tokenizer_config.json", config)):
        write_new_text(partial / name, json.dumps(document, ensure_ascii=False, indent=1))
    partial.rename(folder)
