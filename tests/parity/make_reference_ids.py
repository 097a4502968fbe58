"""Write llama.cpp's ids of the strings in `token_strings`: `reference_ids/NAME.npz`.

Run where `llama-cpp-python` and openherd's own dependencies are installed, from the repository's root:
    PYTHONPATH=. python tests/parity/make_reference_ids.py DEFAULT_MODEL.gguf

Of the ids, control tokens as text and as control tokens, there is what `reference_digest` keeps; of the first `SHOWN`
strings the ids themselves, so that a difference can be read.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from llama_cpp import Llama
from reference_digest import condensed, digest
from token_strings import token_strings
from vocabularies import vocabulary

FOLDER = Path(__file__).parent / "reference_ids"
SHOWN = 300


def write(name: str, model: Path) -> None:
    reference = Llama(str(model), vocab_only=True, verbose=False)

    def ids(text: str, special: bool) -> list[int]:
        return list(reference.tokenize(text.encode(), add_bos=False, special=special))

    strings = token_strings()
    plain = [ids(text, False) for text in strings]
    digests = [digest(a, ids(text, True)) for a, text in zip(plain, strings, strict=True)]
    np.savez_compressed(
        FOLDER / f"{name}.npz",
        **condensed(digests),
        shown=np.asarray([i for row in plain[:SHOWN] for i in row], dtype=np.int32),
        lengths=np.asarray([len(row) for row in plain[:SHOWN]], dtype=np.int32),
    )


if __name__ == "__main__":
    write("smollm2", Path(sys.argv[1]))
    write("llama-2", vocabulary("llama-spm"))
    write("llama-3", vocabulary("llama-bpe"))
