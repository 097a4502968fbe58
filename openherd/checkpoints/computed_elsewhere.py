"""What llama.cpp computes otherwise than a converted GGUF file says: keys that it does not read, or reads and ignores.

Source: llama.cpp's loaders of the architectures that are written here. Not covered: other programs that read GGUF.
"""

from __future__ import annotations

import math

from openherd.config import ModelConfig

# Layers by which llama.cpp knows the 27B models, whose scores it scales by what a head has of the width.
_SCALED_BY_WIDTH = {"gemma2": 46, "gemma3": 62}
_WINDOW_OF_GEMMA2 = 4096  # where the file gives none


def computes_elsewhere(config: ModelConfig) -> list[str]:
    """A line for each difference; nothing for a model that llama.cpp computes as it is."""
    notes = []
    gemma = config.family in _SCALED_BY_WIDTH
    if gemma and not math.isclose(_score_scale(config), _assumed_score_scale(config), rel_tol=1e-5):
        notes.append(
            f"llama.cpp does not read {config.family}.attention.scale: it multiplies scores by"
            f" {_assumed_score_scale(config):.6g}, where this model has {_score_scale(config):.6g}"
        )
    if config.family == "gemma3" and config.attention_softcap:
        notes.append("llama.cpp does not read gemma3.attn_logit_softcapping: it leaves scores uncapped")
    if not gemma and 0 < config.sliding_window < config.max_seq_len:
        notes.append(
            f"llama.cpp has no sliding window for this architecture: beyond {config.sliding_window} tokens its"
            " logits are others"
        )
    if config.family == "gemma2" and not config.sliding_window and config.max_seq_len > _WINDOW_OF_GEMMA2:
        notes.append(f"llama.cpp takes a window of {_WINDOW_OF_GEMMA2} tokens for granted, where this model has none")
    return notes


def _score_scale(config: ModelConfig) -> float:
    return 1 / math.sqrt(config.head_dim) if config.attention_scale is None else config.attention_scale


def _assumed_score_scale(config: ModelConfig) -> float:
    by_width = config.n_layers == _SCALED_BY_WIDTH[config.family]
    return 1 / math.sqrt(config.dim // config.n_heads if by_width else config.head_dim)
