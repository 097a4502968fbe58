"""The customary mixes: which tensor gets which block type.

The names are those that people know from llama.cpp's quantiser (Q4_K_M and the like), and so are the rules, of the
version in llama-cpp-python 0.3.36: for the families here, which tensor of float weights gets which type. Some tensors
hurt more than others when they lose bits; a mix keeps those finer: the output matrix, the values, the down projection,
and the first and last layers.

Where files differ from llama.cpp's: a tensor that has as few bits already stays as it is (a source that is quantised,
or that is stored in 16 bits where only 16 bits fit its rows).

Not covered: codebook types (IQ4_NL and others), whose codes are not searched for here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from openherd.errors import OptionError
from openherd.quant.types import BLOCK_TYPES, BlockType

# What a type that needs rows of whole 256-value blocks becomes where they are not: the next 32-value type with at least
# as many bits.
FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
LAST_RESORT = "F16"  # rows that are not even whole blocks of 32
_LAYER = re.compile(r"^blk\.(\d+)\.(.+)\.weight$")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a mix asks of a model."""

    family: str
    n_layers: int
    heads_per_kv_head: int
    n_experts: int
    tied: bool

    @property
    def is_seventy(self) -> bool:
        """A model of 70B or 72B, by its layers: eight query heads share the values, which are small and count eight
        times. Of Llamas that leaves out 65B, whose heads share nothing; a Qwen 2 is not asked, as in llama.cpp."""
        shares = self.family == "qwen2" or (self.family == "llama" and self.heads_per_kv_head > 1)
        return self.n_layers == 80 and shares


@dataclass(frozen=True, slots=True)
class _Place:
    """A linear map in its layer."""

    part: str  # GGUF's stem, "attn_v"; also of queries, keys and values in one tensor, which goes by the values' rules
    layer: int
    model: Shape
    weighted: bool  # columns count by an importance matrix

    @property
    def is_first_eighth(self) -> bool:
        return self.layer < self.model.n_layers // 8

    @property
    def is_first_sixteenth(self) -> bool:
        return self.layer < self.model.n_layers // 16

    @property
    def has_more_bits(self) -> bool:
        """The first and the last eighth of the layers, and every third between."""
        eighth, n = self.model.n_layers // 8, self.model.n_layers
        return self.layer < eighth or self.layer >= 7 * n // 8 or (self.layer - eighth) % 3 == 2


Rule = Callable[[_Place], str | None]  # a type, or None for the mix's own


@dataclass(frozen=True, slots=True)
class Mix:
    name: str
    file_type: int  # GGUF's general.file_type
    type: str
    rule: Rule

    def type_for(self, name: str, shape: tuple[int, ...], model: Shape, *, weighted: bool = False) -> BlockType | None:
        """The type of the GGUF tensor `name`, before rows are looked at; None: it stays as it is.

        `weighted`: an importance matrix is in use.
        """
        if not _is_quantized(name, shape):
            return None
        if name == "output.weight" or (name == "token_embd.weight" and model.tied):
            return BLOCK_TYPES[self._head_type(shape, model)]
        if match := _LAYER.match(name):
            part = "attn_v" if match[2] == "attn_qkv" else match[2].removesuffix("_exps")
            place = _Place(part, int(match[1]), model, weighted)
            return BLOCK_TYPES[_raised(place, self.rule(place) or self.type)]
        return BLOCK_TYPES[self.type]

    def _head_type(self, shape: tuple[int, ...], model: Shape) -> str:
        coarse = model.family == "falcon" or shape[-1] % BLOCK_TYPES[self.type].block_len or self.type == "Q8_0"
        return "Q8_0" if coarse else "Q6_K"


def fitting(wanted: BlockType, shape: tuple[int, ...]) -> BlockType:
    """`wanted`, or what stands in for it where rows are not whole blocks of it."""
    for name in (wanted.name, FALLBACK.get(wanted.name, "Q8_0")):
        if shape[-1] % BLOCK_TYPES[name].block_len == 0:
            return BLOCK_TYPES[name]
    return BLOCK_TYPES[LAST_RESORT]


def find_mix(name: str) -> Mix:
    """The mix of that name, in any case. Raises `OptionError` with a guess."""
    spelled = name.upper().replace("-", "_")
    mix = MIXES.get(ALIASES.get(spelled, spelled))
    if mix is None:
        near = difflib.get_close_matches(spelled, MIXES, n=1)
        guess = f"; did you mean {near[0]}?" if near else ""
        raise OptionError(f"type has no mix called {name!r}{guess}", hint=f"there are {', '.join(MIXES)}")
    return mix


def _is_quantized(name: str, shape: tuple[int, ...]) -> bool:
    """Matrices; not norms, biases, nor the router of experts, which is small and decides much."""
    return len(shape) > 1 and name.endswith(".weight") and "_norm." not in name and "ffn_gate_inp" not in name


def _raised(place: _Place, chosen: str) -> str:
    """Where keys and values are a small part of the file, whatever the mix: with eight experts, and in 70B."""
    if place.model.n_experts == 8 and place.part in ("attn_k", "attn_v"):
        return "Q8_0"
    if place.model.is_seventy and place.part == "attn_v" and chosen in ("Q3_K", "Q4_K"):
        return "Q5_K"
    return chosen


def _q2_k(place: _Place) -> str | None:
    values = "Q4_K" if place.model.heads_per_kv_head >= 4 else "Q3_K"
    output = "Q5_K" if place.model.n_experts == 8 else "Q3_K"
    parts = {"attn_v": values, "ffn_down": "Q3_K", "attn_output": None if _is_falcon(place) else output}
    return parts.get(place.part)


def _q3_k_s(place: _Place) -> str | None:
    return _expert_output(place) if place.part == "attn_output" else None


def _q3_k_m(place: _Place) -> str | None:
    if _is_falcon(place) and not place.has_more_bits and not place.is_first_sixteenth:
        down = None
    else:
        down = "Q5_K" if place.is_first_sixteenth else "Q4_K"
    values = "Q5_K" if place.layer < 2 else "Q4_K"
    output = None if _is_falcon(place) else _expert_output(place) or "Q4_K"
    return {"attn_v": values, "ffn_down": down, "attn_output": output}.get(place.part)


def _q3_k_l(place: _Place) -> str | None:
    finer = "Q4_K" if _is_falcon(place) else "Q5_K"
    output = None if place.model.n_experts == 8 else finer
    return {"attn_v": "Q5_K", "ffn_down": finer, "attn_output": output}.get(place.part)


def _q4_k_s(place: _Place) -> str | None:
    values = "Q5_K" if place.layer < 4 else None
    down = "Q5_K" if place.is_first_eighth and not _is_falcon(place) else None
    return {"attn_v": values, "ffn_down": down, "attn_output": _expert_output(place)}.get(place.part)


def _q4_k_m(place: _Place) -> str | None:
    values = "Q6_K" if place.has_more_bits else None
    if _is_falcon(place):
        down = "Q6_K" if place.is_first_sixteenth else "Q5_K" if place.has_more_bits else None
    else:
        down = "Q6_K" if place.has_more_bits else None
    return {"attn_v": values, "ffn_down": down, "attn_output": _expert_output(place)}.get(place.part)


def _q5_k_m(place: _Place) -> str | None:
    finer = "Q6_K" if place.has_more_bits else None
    return {"attn_v": finer, "ffn_down": finer}.get(place.part)


def _uniform(_place: _Place) -> str | None:
    return None


def _q4_0(place: _Place) -> str | None:
    """With an importance matrix the first layers' down maps get offsets, as llama.cpp's do."""
    return "Q4_1" if place.part == "ffn_down" and place.weighted and place.is_first_eighth else None


def _q5_0(place: _Place) -> str | None:
    return "Q5_1" if place.part == "ffn_down" and place.weighted and place.is_first_eighth else None


def _is_falcon(place: _Place) -> bool:
    return place.model.family == "falcon"


def _expert_output(place: _Place) -> str | None:
    return "Q5_K" if place.model.n_experts == 8 and not _is_falcon(place) else None


MIXES: dict[str, Mix] = {
    mix.name: mix
    for mix in (
        Mix("Q8_0", 7, "Q8_0", _uniform),
        Mix("Q6_K", 18, "Q6_K", _uniform),
        Mix("Q5_K_M", 17, "Q5_K", _q5_k_m),
        Mix("Q5_K_S", 16, "Q5_K", _uniform),
        Mix("Q5_1", 9, "Q5_1", _uniform),
        Mix("Q5_0", 8, "Q5_0", _q5_0),
        Mix("Q4_K_M", 15, "Q4_K", _q4_k_m),
        Mix("Q4_K_S", 14, "Q4_K", _q4_k_s),
        Mix("Q4_1", 3, "Q4_1", _uniform),
        Mix("Q4_0", 2, "Q4_0", _q4_0),
        Mix("Q3_K_L", 13, "Q3_K", _q3_k_l),
        Mix("Q3_K_M", 12, "Q3_K", _q3_k_m),
        Mix("Q3_K_S", 11, "Q3_K", _q3_k_s),
        Mix("Q2_K", 10, "Q2_K", _q2_k),
    )
}
ALIASES = {"Q5_K": "Q5_K_M", "Q4_K": "Q4_K_M", "Q3_K": "Q3_K_M"}
