"""Tensor names: from those of one layout (Hugging Face's, GGUF's, Meta's) to the canonical ones, and back.

A table says for every canonical stem where its rows lie in a file: in a tensor of their own, or in ranges of rows of
one that holds several (Phi-3's `qkv_proj`, Falcon's `query_key_value`, GGUF's stacked experts). The ranges of all
canonical tensors of one file's tensor must cover it: `mapped_tensors` checks that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from openherd.config import ModelConfig

# (config, number of the expert, 0 where there are none) -> ranges of the rows of the file's tensor, in order.
Pick = Callable[[ModelConfig, int], Sequence[range]]

# A suffix is the same in all layouts.
_SUFFIXES = ("weight", "bias")
_NUMBER = re.compile(r"(?<=\.)(0|[1-9][0-9]{0,8})(?=\.)")
ANY_EXPERT = "*"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a canonical tensor's rows lie: `stem` is the file's, `rows` None means all of it.

    `added` is what a vector's values are short of (Gemma's norms in Hugging Face's layout multiply by 1 + weight).
    """

    stem: str
    rows: Pick | None = None
    added: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """One canonical tensor's place in a file, with its numbers filled in."""

    name: str  # the tensor as the file spells it
    expert: int
    rows: Pick | None
    added: float = 0.0


class NameTable:
    """{canonical stem: Source}. In stems the first `{}` is the number of the layer, the second that of the expert.

    A file's stem with one `{}`, where the canonical one has two, holds all experts of a layer.
    """

    def __init__(self, sources: Mapping[str, str | Source]) -> None:
        self.sources = {
            canonical: Source(source) if isinstance(source, str) else source for canonical, source in sources.items()
        }
        self._canonical: dict[str, list[str]] = {}
        for canonical, source in self.sources.items():
            self._canonical.setdefault(source.stem, []).append(canonical)

    def place(self, canonical: str) -> Place | None:
        """Where a file of this layout has the tensor `canonical`; None when the table does not know it."""
        split = _split(canonical)
        source = self.sources.get(split.stem) if split else None
        if split is None or source is None:
            return None
        numbers = split.numbers[: source.stem.count("{}")]
        expert = int(split.numbers[1]) if len(split.numbers) > 1 else 0
        return Place(f"{source.stem.format(*numbers)}.{split.suffix}", expert, source.rows, source.added)

    def to_file(self, canonical: str) -> str | None:
        """The name of the file's tensor that holds `canonical`; None when the table has none."""
        place = self.place(canonical)
        return place.name if place else None

    def from_file(self, name: str) -> tuple[str, ...]:
        """Canonical names of what the file's tensor `name` holds, `*` for the number of the expert where it has all.

        Empty when the table does not know it.
        """
        split = _split(name)
        if split is None:
            return ()
        return tuple(_filled(stem, split.numbers, split.suffix) for stem in self._canonical.get(split.stem, ()))


@dataclass(frozen=True, slots=True)
class _Split:
    stem: str  # with {} for numbers
    numbers: tuple[str, ...]
    suffix: str


def _split(name: str) -> _Split | None:
    stem, dot, suffix = name.rpartition(".")
    if not dot or suffix not in _SUFFIXES or "{" in stem or "}" in stem:  # literal braces are no number
        return None
    dotted = f".{stem}."
    return _Split(_NUMBER.sub("{}", dotted)[1:-1], tuple(_NUMBER.findall(dotted)), suffix)


def _filled(stem: str, numbers: tuple[str, ...], suffix: str) -> str:
    missing = stem.count("{}") - len(numbers)
    return f"{stem.format(*numbers, *[ANY_EXPERT] * missing)}.{suffix}"


def qkv_rows(config: ModelConfig) -> tuple[int, int, int]:
    """Rows of queries, keys and values where one tensor holds them one after another."""
    return config.q_dim, config.kv_dim, config.kv_dim


def picked(sizes: Callable[[ModelConfig], Sequence[int]], part: int) -> Pick:
    """The rows of part number `part` of a tensor whose parts stand one after another with `sizes(config)` rows.

    Phi-3's `qkv_proj` is (q_dim, kv_dim, kv_dim), its `gate_up_proj` (ffn_dim, ffn_dim).
    """

    def pick(config: ModelConfig, expert: int) -> list[range]:
        all_sizes = sizes(config)
        start = sum(all_sizes[:part])
        return [range(start, start + all_sizes[part])]

    return pick


def expert_rows(size: Callable[[ModelConfig], int]) -> Pick:
    """The rows of one expert in a tensor [E * size, K] that stacks all of a layer's."""
    return lambda config, expert: [range(expert * size(config), (expert + 1) * size(config))]
