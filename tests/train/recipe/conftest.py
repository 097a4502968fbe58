"""A vocabulary of bytes, a little text as token folders, and `herd` in this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from openherd.cli import main
from openherd.train.prepare import WeightedPath, prepare
from openherd.train.tokenizer_source import open_tokenizer
from openherd.train.tokenizer_training import MIN_VOCAB, train_tokenizer

TEXT = Path(__file__).parents[2] / "parity" / "alice.txt"


@dataclass(frozen=True)
class Prepared:
    vocabulary: Path
    train: Path
    held_out: Path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The text that the repository ships, nine tenths to learn from and one held out."""
    folder = tmp_path_factory.mktemp("prepared")
    text = TEXT.read_text(encoding="utf-8")
    cut = int(0.9 * len(text))
    (folder / "train.txt").write_text(text[:cut], encoding="utf-8")
    (folder / "held.txt").write_text(text[cut:], encoding="utf-8")
    train_tokenizer([folder / "train.txt"], folder / "bytes", MIN_VOCAB)
    source = open_tokenizer(str(folder / "bytes"))
    tokenizer = source.tokenizer()
    for name in ("train", "held"):
        prepare([WeightedPath(folder / f"{name}.txt")], folder / name, tokenizer, source.chat_template(tokenizer))
    return Prepared(folder / "bytes", folder / "train", folder / "held")


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str


@pytest.fixture
def herd(capsys: pytest.CaptureFixture[str]):
    """`herd train ARGUMENTS`, with one compute thread."""

    def run(*arguments: object) -> Done:
        threads = torch.get_num_threads()
        try:
            status = main(["train", *map(str, arguments)])
        finally:
            torch.set_num_threads(threads)
        captured = capsys.readouterr()
        return Done(status, captured.out, captured.err)

    return run


def tiny(data: Prepared, out: Path, *more: object) -> list[object]:
    """Flags of a run of seconds: 2 layers, 32 wide; flags in `more` replace those of the same name."""
    shape = ["--n-layers", 2, "--dim", 32, "--n-heads", 2, "--seq-len", 32, "--max-seq-len", 64]
    run = ["--rows-per-step", 4, "--steps", 6, "--threads", 1, "--device", "cpu", "--out", out]
    flags = ["--tokenizer", data.vocabulary, "--train", data.train, *shape, *run]
    given = [(flags[at], flags[at + 1]) for at in range(0, len(flags), 2)]
    return [word for pair in given if pair[0] not in more for word in pair] + list(more)
