"""herd train tokenizer: a vocabulary."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from openherd.cli import output
from openherd.cli.flags import JsonFlag


def tokenizer(
    *files: Annotated[Path, Parameter(metavar="FILE")],
    out: Path,
    vocab_size: int = 4096,
    json: JsonFlag = False,
) -> None:
    """Train a vocabulary: byte-level BPE with Llama 3's splitting of text.

    Parameters
    ----------
    files
        Text, Markdown, JSONL, JSON or parquet; folders stand for the files in them.
    out
        The folder to write: tokenizer.json and tokenizer_config.json.
    vocab_size
        Tokens, special ones included.
    """
    from openherd.train.tokenizer_training import train_tokenizer

    made = train_tokenizer(list(files), out, vocab_size)
    if json:
        output.document(asdict(made) | {"folder": str(made.folder)})
    else:
        print(f"{made.vocab_size:,} tokens, {made.bytes_per_token:.2f} bytes a token, written to {made.folder}")
