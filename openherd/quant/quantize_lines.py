"""The scale, or scale and offset, of each block that leaves least weighted squared error; see `quantize_search`.

Legend: B blocks, n values that share a scale. Arrays are float32 [B] unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
Bool = NDArray[np.bool_]
Rounding = Callable[[F32], F32]
ZERO = np.float32(0)


@dataclass(frozen=True, slots=True)
class Grid:
    """The candidates: more where weights differ, because there a large value of little weight may be clipped far."""

    ratios: tuple[float, ...]  # where the value of largest magnitude is put, in codes: times lo, and times hi
    margins: tuple[float, ...]  # how far a line's ends lie outside (negative: inside) the extremes, in codes; all pairs


FEW = Grid((0.800, 0.853, 0.909, 0.969, 1.032, 1.100, 1.173, 1.250), (-0.8, -0.4, 0.0, 0.4))
MANY = Grid(
    (
        0.700, 0.736, 0.773, 0.813, 0.854, 0.898, 0.944, 0.992, 1.043, 1.096, 1.152, 1.210,
        1.272, 1.337, 1.405, 1.477, 1.553, 1.632, 1.715, 1.803, 1.895, 1.991, 2.093, 2.200,
    ),
    (-2.5, -1.7, -1.1, -0.6, -0.2, 0.2),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Symmetric:
    """Codes lo..hi; `mirrored` where the two ends differ, so that both are tried."""

    lo: int
    hi: int
    mirrored: bool = True

    def ends(self, grid: Grid) -> Iterator[np.float32]:
        """Codes at which the value of largest magnitude is put, in order."""
        for end in (self.lo, self.hi)[: 2 if self.mirrored else 1]:
            for ratio in grid.ratios:
                yield np.float32(end) * np.float32(ratio)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Values x and weights w of [B, n]."""

    x: F32
    w: F32
    grid: Grid

    def columns(self) -> Iterator[tuple[F32, F32]]:
        """Value i of every block, i ascending: the order of all sums."""
        return zip(self.x.T, self.w.T, strict=True)


def quotient(a: F32, b: F32) -> F32:
    """a / b, 0 where b is 0."""
    return np.where(b == 0, ZERO, a / np.where(b == 0, np.float32(1), b))


def inverse_of(d: F32) -> F32:
    """1 / d, 0 where d is 0."""
    return quotient(np.ones_like(d), d)


def nearest(x: F32, lo: float, hi: float) -> F32:
    """The nearest code, ties to even."""
    return np.rint(np.clip(x, np.float32(lo), np.float32(hi)))


def codes_of(x: F32, d: F32, m: F32 | None, lo: float, hi: float) -> F32:
    """Of whole blocks [B, n], for scales d and offsets m [B]; m None: 0."""
    above = x if m is None else x - m[:, None]
    return nearest(above * inverse_of(d)[:, None], lo, hi)


def round_f16(x: F32) -> F32:
    return x.astype(np.float16).astype(np.float32)


def keep_f32(x: F32) -> F32:
    return x


def symmetric_error(b: Blocks, d: F32, lo: float, hi: float) -> F32:
    inverse, error = inverse_of(d), np.zeros_like(d)
    for x, w in b.columns():
        e = x - d * nearest(x * inverse, lo, hi)
        error = error + w * e * e
    return error


def refit_scale(b: Blocks, d: F32, lo: float, hi: float) -> F32:
    """The best scale for the codes that d gives; d where all are 0."""
    inverse, xq, qq = inverse_of(d), np.zeros_like(d), np.zeros_like(d)
    for x, w in b.columns():
        q = nearest(x * inverse, lo, hi)
        xq, qq = xq + w * q * x, qq + w * q * q
    return np.where(qq > 0, quotient(xq, qq), d)


def search_scale(b: Blocks, codes: Symmetric, refits: int, rounded: Rounding) -> F32:
    peak = np.take_along_axis(b.x, np.abs(b.x).argmax(axis=1)[:, None], axis=1)[:, 0]
    best = rounded(peak / np.float32(codes.lo))
    least = symmetric_error(b, best, codes.lo, codes.hi)
    for end in codes.ends(b.grid):
        best, least = _better(b, rounded(peak / end), best, least, codes)
    for _ in range(refits):
        best, least = _better(b, rounded(refit_scale(b, best, codes.lo, codes.hi)), best, least, codes)
    return best


def _better(b: Blocks, d: F32, best: F32, least: F32, codes: Symmetric) -> tuple[F32, F32]:
    error = symmetric_error(b, d, codes.lo, codes.hi)
    return np.where(error < least, d, best), np.where(error < least, error, least)


@dataclass(frozen=True, slots=True)
class Line:
    d: F32
    m: F32


def affine_error(b: Blocks, line: Line, top: float) -> F32:
    inverse, error = inverse_of(line.d), np.zeros_like(line.d)
    for x, w in b.columns():
        e = x - (line.d * nearest((x - line.m) * inverse, 0, top) + line.m)
        error = error + w * e * e
    return error


def _fit_line(b: Blocks, lo: F32, scale: F32, shift: np.float32, top: float, signed: bool) -> tuple[Line, F32]:
    """The best line for the codes of (x - lo) * scale + shift, and how much error it takes away from all-zero codes."""
    sw = sx = sq = sqq = sxq = np.zeros_like(scale)
    for x, w in b.columns():
        code = nearest((x - lo) * scale + shift, 0, top)
        wq = w * code
        sw, sx = sw + w, sx + w * x
        sq, sqq, sxq = sq + wq, sqq + wq * code, sxq + wq * x
    det = sw * sqq - sq * sq
    safe: F32 = np.where(det > 0, det, np.float32(1))
    d, m = quotient(sw * sxq - sx * sq, safe), quotient(sqq * sx - sq * sxq, safe)
    through_zero = ~(det > 0) if signed else ~(det > 0) | (m > 0)
    d, m = np.where(through_zero, quotient(sxq, sqq), d), np.where(through_zero, ZERO, m)
    gain: F32 = d * sxq + m * sx
    return Line(d, m), gain


def search_line(b: Blocks, top: int, signed: bool, refits: int, rounded: Rounding) -> Line:
    lo, hi = b.x.min(axis=1), b.x.max(axis=1)
    if not signed:
        lo = np.minimum(lo, ZERO)
    width = hi - lo
    line, most = Line(width / np.float32(top), lo), np.full_like(width, -np.inf)
    best = Line(rounded(line.d), rounded(line.m))
    margins = np.array(b.grid.margins, np.float32)
    for below in margins:
        for above in margins:
            fitted, gain = _fit_line(b, lo, quotient(np.float32(top) - below - above, width), below, top, signed)
            line = _chosen(gain > most, fitted, line)
            most = np.where(gain > most, gain, most)
    least = affine_error(b, best, top)
    for i in range(refits + 1):
        candidate = Line(rounded(line.d), rounded(line.m))
        error = affine_error(b, candidate, top)
        best, least = _chosen(error < least, candidate, best), np.where(error < least, error, least)
        if i < refits:
            line, _ = _fit_line(b, best.m, inverse_of(best.d), ZERO, top, signed)
    return best


def _chosen(where: Bool, a: Line, b: Line) -> Line:
    return Line(np.where(where, a.d, b.d), np.where(where, a.m, b.m))
