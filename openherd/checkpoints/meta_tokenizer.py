"""tokenizer.model of Meta's folders: SentencePiece's for Llama 1 and 2, tiktoken's ranks for Llama 3.

Source: `Tokenizer` in the code that Meta released with Llama 2, 3 and 3.1, for the special tokens and their order.
"""

from __future__ import annotations

from pathlib import Path

from openherd.checkpoints.end_tokens import END_OF_MESSAGE, end_of_turn, stop_ids
from openherd.checkpoints.mapped_file import map_file
from openherd.checkpoints.meta_params import Generation
from openherd.checkpoints.sentencepiece_model import read_sentencepiece_model
from openherd.checkpoints.tiktoken_file import is_tiktoken, read_tiktoken_file
from openherd.errors import FormatError
from openherd.tokenizers.spec import TokenizerSpec, TokenType

_HEAD = 4096  # bytes of the file that tell its form
# In order; a number is that of a reserved token.
_LLAMA3 = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    0,
    1,
    2,
    3,
    "<|start_header_id|>",
    "<|end_header_id|>",
    4,
    "<|eot_id|>",
)
_LLAMA31 = (
    "<|begin_of_text|>", "<|end_of_text|>", 0, 1, "<|finetune_right_pad_id|>", "<|step_id|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
)  # fmt: skip


def has_tiktoken_form(path: Path) -> bool:
    """Whether the tokenizer is of Llama 3's kind. Raises FormatError or ModelNotFoundError."""
    return is_tiktoken(map_file(path)[:_HEAD])


def read_meta_tokenizer(path: Path, vocab_size: int, generation: Generation) -> TokenizerSpec:
    """The tokenizer of a model with `vocab_size` embeddings. Raises FormatError or UnsupportedError."""
    if generation.startswith("Llama 3"):
        return _tiktoken(path, vocab_size, generation)
    file = read_sentencepiece_model(path)
    if len(file.scores) != vocab_size:
        raise FormatError(f"{path}: {len(file.scores)} pieces do not fit an embedding of {vocab_size} rows")
    tokens, types = file.table.rows(vocab_size)
    special = file.table.special()
    return TokenizerSpec(
        kind="spm",
        pre="",
        tokens=tokens,
        token_types=types,
        scores=file.scores,
        bos_id=file.bos_id,
        eos_id=file.eos_id,
        eot_id=end_of_turn(special),
        unk_id=file.unk_id,
        pad_id=file.pad_id,
        add_bos=True,
        add_space_prefix=file.add_space_prefix,
        stop_ids=stop_ids(special, file.eos_id),
    )


def _tiktoken(path: Path, vocab_size: int, generation: Generation) -> TokenizerSpec:
    plain, merges = read_tiktoken_file(path)
    named = _LLAMA3 if generation == "Llama 3" else _LLAMA31
    special = _special_tokens(named, vocab_size - len(plain))
    if len(plain) + len(special) != vocab_size:
        raise FormatError(
            f"{path}: {len(plain)} tokens and at least {len(special)} special ones do not fit an embedding of "
            f"{vocab_size} rows"
        )
    ids = {text: len(plain) + i for i, text in enumerate(special)}
    eos_id, eot_id, eom_id = ids["<|end_of_text|>"], ids["<|eot_id|>"], ids.get(END_OF_MESSAGE)
    return TokenizerSpec(
        kind="bpe",
        pre="llama-bpe",
        tokens=[*plain, *special],
        token_types=bytes([TokenType.NORMAL]) * len(plain) + bytes([TokenType.CONTROL]) * len(special),
        merges=merges,
        bos_id=ids["<|begin_of_text|>"],
        eos_id=eos_id,
        eot_id=eot_id,
        eom_id=eom_id,
        pad_id=ids.get("<|finetune_right_pad_id|>"),
        add_bos=True,
        add_space_prefix=False,
        stop_ids=stop_ids(ids, eos_id, eot_id, eom_id),
    )


def _special_tokens(named: tuple[str | int, ...], count: int) -> list[str]:
    """`count` special tokens, the named ones first and reserved ones for the rest."""
    used = max(number for number in named if isinstance(number, int)) + 1
    rest = range(used, used + max(0, count - len(named)))
    return [text if isinstance(text, str) else f"<|reserved_special_token_{text}|>" for text in (*named, *rest)]
