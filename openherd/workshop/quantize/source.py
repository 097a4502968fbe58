"""The model to be quantised as the tensors and keys of a GGUF file, whatever its own layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openherd.checkpoints import open_checkpoint
from openherd.checkpoints.families import by_name
from openherd.checkpoints.file_name import file_name
from openherd.checkpoints.gguf_writer import KeyValue, PlannedTensor
from openherd.checkpoints.source import Checkpoint
from openherd.quant.types import PLAIN_TYPES
from openherd.workshop.convert.to_gguf import QUANTISED_BY, plan
from openherd.workshop.quantize.mixes import Shape

# What the new file says anew.
REPLACED_KEYS = ("general.file_type", "general.quantization_version", "general.alignment")


@dataclass(frozen=True, slots=True)
class Source:
    checkpoint: Checkpoint
    keys: Mapping[str, KeyValue]
    tensors: tuple[PlannedTensor, ...]  # as a GGUF file of the same weights has them

    @property
    def path(self) -> Path:
        return self.checkpoint.path

    @property
    def name(self) -> str:
        return file_name(self.path.resolve())

    @property
    def files(self) -> tuple[Path, ...]:
        return self.checkpoint.files or (self.path,)

    @property
    def nbytes(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    @property
    def shape(self) -> Shape:
        config = self.checkpoint.config
        return Shape(
            family=config.family,
            n_layers=config.n_layers,
            heads_per_kv_head=config.n_heads // config.n_kv_heads,
            n_experts=config.n_experts,
            tied=config.tied_embeddings,
        )

    @property
    def quantized_types(self) -> tuple[str, ...]:
        """Block types, other than plain floats, that the model already has."""
        return tuple(sorted({tensor.type.name for tensor in self.tensors} - set(PLAIN_TYPES)))

    def retyped(self, planned: Sequence[PlannedTensor]) -> dict[str, tuple[str, str]]:
        """Of the model's tensors that get another type, by canonical name: the one that they have, and that one."""
        written = {tensor.name: tensor.type.name for tensor in planned}
        places = by_name(self.checkpoint.config.family).names["gguf"]
        types = {name: self.checkpoint.tensors[name].type.name for name in self.checkpoint.tensors}
        gets = {name: written.get(places.to_file(name) or "", type) for name, type in types.items()}
        return {name: (type, gets[name]) for name, type in types.items() if gets[name] != type}


def open_source(path: Path) -> Source:
    """Raises what `open_checkpoint` raises, and UnsupportedError for a model that GGUF cannot say."""
    checkpoint = open_checkpoint(path)
    keys, tensors = plan(checkpoint, path)
    kept = {key: v for key, v in keys.items() if key not in REPLACED_KEYS and not key.startswith(QUANTISED_BY)}
    return Source(checkpoint, kept, tuple(tensors))
