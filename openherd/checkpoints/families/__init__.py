"""The table of families: who is read, from which layouts, and how."""

from __future__ import annotations

from openherd.checkpoints.families.falcon import FALCON
from openherd.checkpoints.families.family import Family, Layout, Present
from openherd.checkpoints.families.gemma import GEMMA2, GEMMA3
from openherd.checkpoints.families.llama import LLAMA
from openherd.checkpoints.families.mpt import MPT
from openherd.checkpoints.families.phi3 import PHI3
from openherd.checkpoints.families.qwen import QWEN2, QWEN3
from openherd.checkpoints.families.smollm3 import SMOLLM3

__all__ = ["FAMILIES", "Family", "Layout", "Present", "by_architecture", "by_model_type", "by_name"]

FAMILIES: tuple[Family, ...] = (LLAMA, SMOLLM3, QWEN2, QWEN3, GEMMA2, GEMMA3, PHI3, FALCON, MPT)


def by_name(name: str) -> Family:
    """The family of a config (`ModelConfig.family`)."""
    return next(family for family in FAMILIES if family.name == name)


def by_architecture(architecture: str) -> Family | None:
    """The family that GGUF's `general.architecture` names."""
    return next((family for family in FAMILIES if family.architecture == architecture), None)


def by_model_type(model_type: str) -> Family | None:
    """The family that config.json's `model_type` names."""
    return next((family for family in FAMILIES if model_type in family.model_types), None)
