"""Tensor names that families of Llama's form share: canonical stems and GGUF's."""

from __future__ import annotations

from openherd.checkpoints.families.llama import STEMS
from openherd.checkpoints.name_table import NameTable

GGUF_STEMS: dict[str, str] = {canonical: gguf for canonical, gguf, _ in STEMS}
QK_NORMS: dict[str, str] = {
    "model.layers.{}.self_attn.q_norm": "blk.{}.attn_q_norm",
    "model.layers.{}.self_attn.k_norm": "blk.{}.attn_k_norm",
}


def as_they_are(*stems: str) -> NameTable:
    """A layout whose names are the canonical ones."""
    return NameTable({stem: stem for stem in stems})
