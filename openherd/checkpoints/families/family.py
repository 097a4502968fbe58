"""What a family of models declares: how its files are read. What it computes is `ModelConfig`'s to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from openherd.checkpoints.gguf_keys import Keys
from openherd.checkpoints.json_keys import JsonKeys
from openherd.checkpoints.name_table import NameTable
from openherd.config import ModelConfig

Layout = Literal["hf", "gguf", "meta"]


@dataclass(frozen=True, slots=True)
class Present:
    """What a file's tensors say of the model where its keys are silent (GGUF's are, about biases and ties)."""

    vocab_size: int  # rows of the embedding
    tied: bool  # there is no output matrix
    layer: frozenset[str]  # canonical tensors of layer 0 after the number: "self_attn.q_proj.bias"

    def has_bias(self, *stems: str) -> bool:
        """Whether layer 0 has a bias for any of the stems ("self_attn.q_proj"); what one has, each layer must have."""
        return any(f"{stem}.bias" in self.layer for stem in stems)


@dataclass(frozen=True, slots=True)
class Family:
    """One row of the table of families. A layout without names is one that the family does not come in."""

    name: str  # `ModelConfig.family`
    shown: str  # who belongs to it, for messages and the manual
    model_types: tuple[str, ...]  # config.json's `model_type`
    architecture: str  # GGUF's `general.architecture`
    hf_config: Callable[[JsonKeys, Present], ModelConfig]
    gguf_config: Callable[[Keys, Present], ModelConfig]
    names: Mapping[Layout, NameTable]
    interleaved: frozenset[Layout] = frozenset()  # layouts whose q and k rows are in Meta's order (`rotary_rows`)
    ignored: tuple[str, ...] = field(default=())  # endings of names of tensors that follow from the config
