"""Vocabularies of other models, for tests: the `ggml-vocab-*.gguf` in llama-cpp-python's source distribution.

They are not in this repository because the models' licences, not llama.cpp's, cover them. The distribution (77 MB)
is fetched once through pip, checked, and kept in `build/vocabularies`.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from openherd.checkpoints.gguf_header import read_header
from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.gguf_tokenizer import read_tokenizer
from openherd.store.lock import exclusive
from openherd.tokenizers.spec import TokenizerSpec

VERSION = "0.3.36"
SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
FOLDER = Path(__file__).parents[2] / "build" / "vocabularies" / VERSION


def vocabulary(name: str) -> Path:
    """The file `ggml-vocab-NAME.gguf`, with llama.cpp's test cases beside it as `.gguf.inp` and `.gguf.out`."""
    FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(FOLDER.parent / "lock", on_wait=lambda: None):
        if not FOLDER.exists():
            _fetch()
    return FOLDER / f"ggml-vocab-{name}.gguf"


def spec_of(path: Path) -> TokenizerSpec:
    """The tokenizer a GGUF file carries; the file need not hold a model."""
    header = read_header(path)
    keys = Keys(path, header.keys)
    return read_tokenizer(keys, len(keys.strings("tokenizer.ggml.tokens")))


def _fetch() -> None:
    with tempfile.TemporaryDirectory(dir=FOLDER.parent) as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
        # pip asks the build back-end for the metadata: openherd's own, which the oracles' environment has too
        source = ["--no-binary", "llama-cpp-python", "--no-build-isolation", f"llama-cpp-python=={VERSION}"]
        subprocess.run([*pip, *source, "-d", folder], check=True)
        (archive,) = Path(folder).glob("*.tar.gz")
        assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
        files = Path(folder) / "vocabularies"
        files.mkdir()
        with tarfile.open(archive) as members:
            for member in members:
                name = Path(member.name).name
                data = members.extractfile(member) if name.startswith("ggml-vocab-") else None
                if data is not None:
                    (files / name).write_bytes(data.read())
        files.rename(FOLDER)
