"""The tokenizers of every family, in every form of file that they come in, and what each is held to.

`tokenizers/NAME` holds a small vocabulary with the family's own rules (normalizer, pre-tokenizer, added tokens); the
Llamas' lie in the checkpoints of `readers/`. `make_tokenizer_cases.py` wrote the files and asked the references.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.hf_tokenizer import read_hf_tokenizer
from openherd.tokenizers import TokenizerSpec
from tests.parity.reader_cases import ADDED, VOCAB
from tests.parity.reader_cases import FOLDER as READERS

FOLDER = Path(__file__).with_name("tokenizers")
EXPECTED = Path(__file__).with_name("reference_ids")
SIZE = 1000  # tokens before the added ones


@dataclass(frozen=True, slots=True)
class Case:
    """One file. `reference`: the program whose ids are recorded; sentencepiece alone never tells control tokens."""

    folder: Path
    reference: str
    families: str

    @property
    def has_special(self) -> bool:
        return self.reference != "sentencepiece"


CASES: dict[str, Case] = {
    "llama2-model": Case(READERS / "llama2-meta", "sentencepiece", "Llama 1 and 2, Code Llama, Mistral, Mixtral"),
    "llama2-json-legacy": Case(READERS / "llama2-hf-legacy", "tokenizers", "Llama 1 and 2, Mistral, Mixtral, Phi-3"),
    "llama2-json": Case(READERS / "llama2-hf-new", "tokenizers", "Llama 2, Mistral 7B 0.3"),
    "llama3-tiktoken": Case(READERS / "llama3-meta", "tiktoken", "Llama 3"),
    "llama3-json": Case(READERS / "llama3-hf", "tokenizers", "Llama 3"),
    "codellama-json": Case(FOLDER / "codellama-json", "tokenizers", "Code Llama"),
    "falcon-json": Case(FOLDER / "falcon-json", "tokenizers", "Falcon"),
    "gemma-json": Case(FOLDER / "gemma-json", "tokenizers", "Gemma 2 and 3"),
    "gemma-model": Case(FOLDER / "gemma-model", "sentencepiece", "Gemma 2 and 3"),
    "mistral-tekken-json": Case(FOLDER / "mistral-tekken-json", "tokenizers", "Mistral Nemo"),
    "mpt-json": Case(FOLDER / "mpt-json", "tokenizers", "MPT"),
    "phi3-json": Case(FOLDER / "phi3-json", "tokenizers", "Phi-3"),
    "qwen-json": Case(FOLDER / "qwen-json", "tokenizers", "Qwen 2, 2.5 and 3"),
    "smollm-json": Case(FOLDER / "smollm-json", "tokenizers", "SmolLM 1 and 2"),
    "smollm3-json": Case(FOLDER / "smollm3-json", "tokenizers", "SmolLM 3"),
}


def spec_of_case(case: Case) -> TokenizerSpec:
    """The tokenizer as a checkpoint's reader finds it."""
    if (case.folder / "params.json").exists():
        return open_checkpoint(case.folder).tokenizer
    size = VOCAB + ADDED.get(case.folder.name, 0) if case.folder.parent == READERS else SIZE + 64
    return read_hf_tokenizer(case.folder, size, ())[0]
