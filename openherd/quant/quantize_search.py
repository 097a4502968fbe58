"""Float32 to raw blocks by searching for the codes of least weighted squared error: what the native core must give.

`native/quantizers` computes the same on sixteen blocks at a time; both give the same bytes. So every sum here goes over
a block's values in order, in float32, one rounding for each product and each sum; what concerns a whole super-block is
summed in float64.

    symmetric   w = d * q: a grid of scales, then codes and scale fitted in turn (Lloyd 1957)
    affine      w = d * q + m: a grid of ends, the best line through each one's codes, then fitted in turn
    k-quants    each sub-block's own scale (and minimum), rounded to an integer times the super-block's; then, in
                turn, neighbouring integers for each sub-block and the best scales for the super-block

Covers Q8_0, Q5_1, Q5_0, Q4_1, Q4_0, Q6_K, Q5_K, Q4_K, Q3_K and Q2_K. Slow: for checking, not for models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from openherd.quant import pack
from openherd.quant.pack import U8
from openherd.quant.quantize_lines import (
    F32,
    FEW,
    MANY,
    Blocks,
    Symmetric,
    codes_of,
    round_f16,
    search_line,
    search_scale,
)
from openherd.quant.quantize_super import search_affine_scales, search_symmetric_scales
from openherd.quant.types import BlockType


@dataclass(frozen=True, slots=True)
class Format:
    """How a type's codes are searched for: `symmetric`, or affine with codes 0..top."""

    scale_len: int  # values that share a scale
    symmetric: Symmetric | None = None
    top: int = 0
    scales: tuple[int, int] | None = None  # k-quants: the range of a sub-block's integer
    mean_share: float = 4  # what the mean square counts beside a value's own, without importance


FORMATS: dict[str, Format] = {
    "Q4_0": Format(32, Symmetric(-8, 7), mean_share=0.25),
    "Q5_0": Format(32, Symmetric(-16, 15)),
    "Q8_0": Format(32, Symmetric(-127, 127, mirrored=False)),
    "Q4_1": Format(32, top=15),
    "Q5_1": Format(32, top=31),
    "Q3_K": Format(16, Symmetric(-4, 3), scales=(-32, 31)),
    "Q6_K": Format(16, Symmetric(-32, 31), scales=(-128, 127)),
    "Q2_K": Format(16, top=3, scales=(0, 15)),
    "Q4_K": Format(32, top=15, scales=(0, 63)),
    "Q5_K": Format(32, top=31, scales=(0, 63)),
}


def search(values: F32, type: BlockType, importance: F32 | None = None) -> U8:
    """Rows of finite float32 [N, K] as raw blocks [N, row_bytes]; `importance` [K] weighs the columns' errors."""
    form = FORMATS[type.name]
    n_rows, width = values.shape
    row_bytes = type.row_bytes(width)
    x = values.reshape(-1, form.scale_len)
    if importance is None:
        b = Blocks(x, _weights_by_size(x, form.mean_share), FEW)
    else:
        b = Blocks(x, np.broadcast_to(importance, values.shape).reshape(x.shape), MANY)
    with np.errstate(all="ignore"):
        if form.scales is None:
            raw = _simple(type, form, b)
        else:
            raw = _super(type, form, form.scales, b, type.block_len // form.scale_len)
    return raw.reshape(n_rows, row_bytes)


def _weights_by_size(x: F32, mean_share: float) -> F32:
    """The values' squares and a share of the block's mean square [B, n]: what an error counts without importance."""
    power = np.zeros(len(x), np.float32)
    for column in x.T:
        power = power + column * column
    return (power * np.float32(mean_share / x.shape[1]))[:, None] + x * x


def _simple(type: BlockType, form: Format, b: Blocks) -> U8:
    if form.symmetric:
        d = search_scale(b, form.symmetric, 3, round_f16)
        codes = codes_of(b.x, d, None, form.symmetric.lo, form.symmetric.hi)
        return pack.symmetric(type, d, codes - np.float32(form.symmetric.lo) if type.name != "Q8_0" else codes)
    line = search_line(b, form.top, True, 3, round_f16)
    return pack.affine(type, line.d, line.m, codes_of(b.x, line.d, line.m, 0, form.top))


def _super(type: BlockType, form: Format, scales: tuple[int, int], b: Blocks, n_subs: int) -> U8:
    if form.symmetric:
        s = search_symmetric_scales(b, form.symmetric, scales, n_subs)
        codes = codes_of(b.x, s.super * s.sub, None, form.symmetric.lo, form.symmetric.hi)
        return pack.symmetric_super(type, s.super[::n_subs], s.sub, codes - np.float32(form.symmetric.lo))
    a = search_affine_scales(b, form.top, scales, n_subs)
    codes = codes_of(b.x, a.line().d, a.line().m, 0, form.top)
    return pack.affine_super(type, a.super[::n_subs], a.super_min[::n_subs], a.sub, a.sub_min, codes)
