"""What LoRA files of every format have in common: pairs that must fit the linear maps of one model.

Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", eq. 3: W x + scale * B A x. Adapters may
add to the seven linear maps of a layer; embeddings and the output matrix are not covered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from openherd.checkpoints.required_tensors import LINEAR_MAPS, linear_shape
from openherd.checkpoints.source import LoraPair, Tensor
from openherd.config import ModelConfig
from openherd.errors import FormatError, UnsupportedError

_LINEAR = re.compile(r"model\.layers\.(0|[1-9][0-9]{0,8})\.(.+)\.weight")


def match_pairs(
    path: Path, halves: Mapping[str, Mapping[str, Tensor]], config: ModelConfig
) -> tuple[dict[str, LoraPair], int]:
    """The pairs of an adapter by canonical name of the weight, and their rank.

    `halves` has "a" and "b" for each weight. Raises UnsupportedError for weights that openherd does not adapt and for
    ranks that differ, FormatError for halves that are missing or do not fit `config`.
    """
    if not halves:
        raise FormatError(f"{path} holds no LoRA tensors")
    pairs: dict[str, LoraPair] = {}
    ranks: set[int] = set()
    for name, sides in halves.items():
        if sides.keys() != {"a", "b"}:
            raise FormatError(f"{path}: {name[:80]} has only one half of its LoRA pair, {''.join(sides).upper()}")
        pair = LoraPair(sides["a"], sides["b"])
        ranks.add(_rank(path, name, pair, config))
        pairs[name] = pair
    if len(ranks) > 1:
        raise UnsupportedError(f"{path}: pairs have ranks {sorted(ranks)[:8]}; openherd supports one rank an adapter")
    return pairs, ranks.pop()


def _rank(path: Path, name: str, pair: LoraPair, config: ModelConfig) -> int:
    """r of A [r, K] and B [N, r], checked against the weight's [N, K]."""
    match = _LINEAR.fullmatch(name)
    if match is None or match[2] not in LINEAR_MAPS:
        maps = ", ".join(linear.partition(".")[2] for linear in LINEAR_MAPS)
        raise UnsupportedError(f"{path} adapts {name[:80]}; openherd adapts {maps} of the layers")
    if int(match[1]) >= config.n_layers:
        raise FormatError(f"{path} adapts {name}, but the model has {config.n_layers} layers")
    n, k = linear_shape(config, match[2])
    rank = pair.a.shape[0]
    if pair.a.shape != (rank, k) or pair.b.shape != (n, rank):
        raise FormatError(
            f"{path}: {name} of shape ({n}, {k}) needs A (r, {k}) and B ({n}, r), not {pair.a.shape} and {pair.b.shape}"
        )
    return rank
