"""The readers of files that are not GGUF, each with sound inputs to spoil and a way to read what came of them.

A case is the bytes of one file; the rest of its folder, where it has one, stays sound. `CORPUS` keeps cases that once
went wrong or reach far; `make test` replays them all.
"""

from __future__ import annotations

import json
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.describe import describe
from openherd.checkpoints.hf_template import read_hf_template
from openherd.checkpoints.hf_tokenizer import read_hf_tokenizer
from openherd.checkpoints.hf_weights import read_weights
from openherd.checkpoints.mapped_file import map_file
from openherd.checkpoints.meta_tokenizer import read_meta_tokenizer
from openherd.checkpoints.sentencepiece_model import read_sentencepiece_model
from openherd.checkpoints.source import Tensor
from openherd.checkpoints.tiktoken_file import read_tiktoken_file
from openherd.checkpoints.torch_file import read_torch_file
from openherd.checkpoints.torch_pickle import read_tensor_places
from openherd.checkpoints.zip_members import read_members
from openherd.tokenizers import Tokenizer
from openherd.tokenizers.spec import TokenizerSpec
from tests.fuzz.mutations import EDGES, mutated
from tests.parity.reader_cases import FOLDER, VOCAB

CORPUS = Path(__file__).with_name("corpus")
HF, BIN, META1, META3 = (FOLDER / name for name in ("llama3-hf", "llama2-hf-bin", "llama1-meta", "llama3-meta"))
Mutate = Callable[[bytes, Random], bytes]


@dataclass(frozen=True)
class Target:
    """`folder` is copied for each run and `file` in it replaced by the case; `read` is given both."""

    file: str
    sound: Callable[[], bytes]
    read: Callable[[Path, Path], object]
    folder: Path | None = None
    mutate: Mutate = mutated

    def lay_out(self, folder: Path) -> None:
        if self.folder is not None:
            shutil.copytree(self.folder, folder, dirs_exist_ok=True)


def spoilt_json(sound: bytes, random: Random) -> bytes:
    """One or two values of the tree changed, or now and then the bytes."""
    if random.random() < 0.2:
        return mutated(sound, random)
    tree: Any = json.loads(sound)
    for _ in range(random.randint(1, 2)):
        places = [place for place in _places(tree) if random.random() < 0.5] or list(_places(tree))
        holder, key = random.choice(places)
        match random.randrange(6):
            case 0 if isinstance(holder, dict):
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[random.choice(("x", "type", "id", str(key) + "x"))] = holder[key]
            case 2:
                other, other_key = random.choice(places)
                if isinstance(other, list) or other_key in other:
                    holder[key] = deepcopy(other[other_key])
            case _:
                holder[key] = deepcopy(
                    random.choice((None, True, -1, 1.5, "", "x", "../x", [], {}, [[]], {"a": None}, "\u2581", *EDGES))
                )
    return json.dumps(tree, default=str).encode()


def _places(tree: Any, depth: int = 0) -> Iterable[tuple[Any, Any]]:
    """Every (container, key), of long containers only some."""
    if isinstance(tree, dict | list) and depth < 8:
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        for key in keys[:: max(1, len(keys) // 12)]:
            yield tree, key
            yield from _places(tree[key], depth + 1)


def spoilt_archive(sound: bytes, random: Random) -> bytes:
    """The pickle inside changed and its checksum made right again, or the archive itself."""
    if random.random() < 0.4:
        return mutated(sound, random)
    at = sound.index(pickle_bytes())
    pickle = spoilt_pickle(pickle_bytes(), random)[: len(pickle_bytes())].ljust(len(pickle_bytes()), b".")
    old, new = (struct.pack("<L", zlib.crc32(raw)) for raw in (pickle_bytes(), pickle))
    return (sound[:at] + pickle + sound[at + len(pickle) :]).replace(old, new)


_OPCODES = bytes(range(0x21, 0x7F)) + bytes(
    (0x80, 0x81, 0x82, 0x85, 0x86, 0x87, 0x88, 0x8A, 0x8C, 0x92, 0x93, 0x94, 0x95)
)


def spoilt_pickle(sound: bytes, random: Random) -> bytes:
    """Opcodes put in, small stretches doubled or dropped, or the bytes changed anyhow."""
    data = bytearray(mutated(sound, random) if random.random() < 0.5 else sound)
    for _ in range(random.randint(0, 3)):
        at = random.randrange(len(data) + 1)
        data[at:at] = bytes((random.choice(_OPCODES),)) + random.randbytes(random.choice((0, 0, 1, 4)))
    return bytes(data)


@cache
def pickle_bytes() -> bytes:
    with zipfile.ZipFile(META1 / "consolidated.00.pth") as archive:
        return archive.read("consolidated.00/data.pkl")


def _read_tensors(tensors: dict[str, Tensor]) -> None:
    for tensor in tensors.values():
        assert tensor.rows().shape == (tensor.n_rows, tensor.type.row_bytes(tensor.shape[-1]))


def _use(spec: TokenizerSpec) -> None:
    """The tokenizer built of what was read encodes and decodes."""
    tokenizer = Tokenizer(spec)
    text = "Hello <s> world<|eot_id|>  12345 \u00e9\u2581\n"
    ids = tokenizer.encode(text, special=True)
    assert all(0 <= token_id < tokenizer.vocab_size for token_id in ids)
    tokenizer.decode(ids)


def _whole(folder: Path, path: Path) -> None:
    describe(folder)
    checkpoint = open_checkpoint(folder)
    _read_tensors(dict(checkpoint.tensors.items()))
    _use(checkpoint.tokenizer)


def _hf_tokenizer(folder: Path, path: Path) -> None:
    _use(read_hf_tokenizer(folder, VOCAB, ())[0])


def _sound(path: Path) -> Callable[[], bytes]:
    return path.read_bytes


TARGETS: dict[str, Target] = {
    "torch-pickle": Target(
        "data.pkl", pickle_bytes, lambda folder, path: read_tensor_places(path.read_bytes(), "x"), mutate=spoilt_pickle
    ),
    "zip": Target(
        "a.pth", _sound(META1 / "consolidated.00.pth"), lambda folder, path: read_members(path, map_file(path))
    ),
    "torch-file": Target(
        "a.pth",
        _sound(META1 / "consolidated.00.pth"),
        lambda folder, path: _read_tensors(read_torch_file(path)),
        mutate=spoilt_archive,
    ),
    "bin-index": Target(
        "pytorch_model.bin.index.json",
        _sound(BIN / "pytorch_model.bin.index.json"),
        lambda folder, path: read_weights(folder, lambda name: name.endswith("inv_freq")),
        BIN,
        spoilt_json,
    ),
    "safetensors-index": Target(
        "model.safetensors.index.json",
        _sound(HF / "model.safetensors.index.json"),
        lambda folder, path: read_weights(folder, lambda name: False),
        HF,
        spoilt_json,
    ),
    "config": Target("config.json", _sound(HF / "config.json"), _whole, HF, spoilt_json),
    "generation-config": Target(
        "generation_config.json", _sound(HF / "generation_config.json"), _whole, HF, spoilt_json
    ),
    "params": Target("params.json", _sound(META3 / "params.json"), _whole, META3, spoilt_json),
    "tokenizer-json": Target("tokenizer.json", _sound(HF / "tokenizer.json"), _hf_tokenizer, None, spoilt_json),
    "tokenizer-json-spm": Target(
        "tokenizer.json", _sound(FOLDER / "llama2-hf-legacy" / "tokenizer.json"), _hf_tokenizer, None, spoilt_json
    ),
    "tokenizer-config": Target(
        "tokenizer_config.json",
        _sound(BIN / "tokenizer_config.json"),
        lambda folder, path: (read_hf_template(folder), _hf_tokenizer(folder, path)),
        BIN,
        spoilt_json,
    ),
    "sentencepiece": Target(
        "tokenizer.model",
        _sound(META1 / "tokenizer.model"),
        lambda folder, path: (read_sentencepiece_model(path), _use(read_meta_tokenizer(path, VOCAB, "Llama 2"))),
    ),
    "tiktoken": Target(
        "tokenizer.model",
        _sound(META3 / "tokenizer.model"),
        lambda folder, path: (read_tiktoken_file(path), _use(read_meta_tokenizer(path, VOCAB, "Llama 3.1"))),
    ),
}
