"""The scales of k-quants: integers for sub-blocks times the super-block's own; see `quantize_search`.

Legend: B sub-blocks, `n_subs` of which are a super-block. Arrays are float32 [B] unless said otherwise, with what
belongs to a super-block repeated for its sub-blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openherd.quant.quantize_lines import (
    F32,
    ZERO,
    Blocks,
    Bool,
    Line,
    Symmetric,
    affine_error,
    inverse_of,
    keep_f32,
    nearest,
    quotient,
    round_f16,
    search_line,
    search_scale,
    symmetric_error,
)

F64 = NDArray[np.float64]
ROUNDS = 2  # of neighbouring integers and new super-block scales


def _held(x: F32, scales: tuple[int, int]) -> F32:
    return np.clip(x, np.float32(scales[0]), np.float32(scales[1]))


def _super_sums(x: F32, n_subs: int) -> F64:
    """Of each super-block, in order, in float64."""
    total = np.zeros(len(x) // n_subs)
    for column in x.reshape(-1, n_subs).T:
        total = total + column.astype(np.float64)
    return total


def _spread(per_super: NDArray[Any], n_subs: int) -> NDArray[Any]:
    return np.repeat(per_super, n_subs)


def _first_super_scale(d: F32, scales: tuple[int, int], n_subs: int) -> F32:
    """The scale of largest magnitude becomes the end of the integers' range."""
    rows = d.reshape(-1, n_subs)
    peak = np.take_along_axis(rows, np.abs(rows).argmax(axis=1)[:, None], axis=1)[:, 0]
    return _spread(round_f16(peak / np.float32(scales[0] if scales[0] < 0 else scales[1])), n_subs)


@dataclass(frozen=True, slots=True)
class SymmetricScales:
    super: F32
    sub: F32


def search_symmetric_scales(b: Blocks, codes: Symmetric, scales: tuple[int, int], n_subs: int) -> SymmetricScales:
    d = search_scale(b, codes, 2, keep_f32)
    first = _first_super_scale(d, scales, n_subs)
    best = SymmetricScales(first, nearest(quotient(d, first), *scales))
    least = symmetric_error(b, best.super * best.sub, codes.lo, codes.hi)
    for _ in range(ROUNDS):
        for step in (-1, 1):
            sub = _held(best.sub + np.float32(step), scales)
            error = symmetric_error(b, best.super * sub, codes.lo, codes.hi)
            best = replace(best, sub=np.where(error < least, sub, best.sub))
            least = np.where(error < least, error, least)
        inverse, xq, qq = inverse_of(best.super * best.sub), ZERO * d, ZERO * d
        for x, w in b.columns():
            q = best.sub * nearest(x * inverse, codes.lo, codes.hi)
            xq, qq = xq + w * q * x, qq + w * q * q
        above, below = _super_sums(xq, n_subs), _super_sums(qq, n_subs)
        fitted = np.where(below > 0, round_f16((above / below).astype(np.float32)), best.super[::n_subs])
        candidate = replace(best, super=_spread(fitted, n_subs))
        error = symmetric_error(b, candidate.super * candidate.sub, codes.lo, codes.hi)
        better = _is_better(error, least, n_subs)
        best = replace(best, super=np.where(better, candidate.super, best.super))
        least = np.where(better, error, least)
    return best


def _is_better(error: F32, least: F32, n_subs: int) -> Bool:
    """Which super-blocks' whole error has fallen."""
    now, before = (_super_sums(e, n_subs).astype(np.float32) for e in (error, least))
    return _spread(now < before, n_subs)


@dataclass(frozen=True, slots=True)
class AffineScales:
    super: F32
    sub: F32
    super_min: F32
    sub_min: F32

    def line(self) -> Line:
        return Line(self.super * self.sub, ZERO - self.super_min * self.sub_min)


def search_affine_scales(b: Blocks, top: int, scales: tuple[int, int], n_subs: int) -> AffineScales:
    own = search_line(b, top, False, 2, keep_f32)
    minimum = ZERO - own.m
    first, first_min = (_first_super_scale(v, scales, n_subs) for v in (own.d, minimum))
    best = AffineScales(
        first,
        nearest(quotient(own.d, first), *scales),
        first_min,
        nearest(quotient(minimum, first_min), *scales),
    )
    least = affine_error(b, best.line(), top)
    for _ in range(ROUNDS):
        middle = best
        for step in (-1, 0, 1):
            for min_step in (-1, 0, 1):
                near = replace(
                    middle,
                    sub=_held(middle.sub + np.float32(step), scales),
                    sub_min=_held(middle.sub_min + np.float32(min_step), scales),
                )
                error = affine_error(b, near.line(), top)
                better = error < least
                best = replace(
                    best,
                    sub=np.where(better, near.sub, best.sub),
                    sub_min=np.where(better, near.sub_min, best.sub_min),
                )
                least = np.where(better, error, least)
        candidate = _refit_affine(b, best, top, n_subs)
        error = affine_error(b, candidate.line(), top)
        better = _is_better(error, least, n_subs)
        best = replace(
            best,
            super=np.where(better, candidate.super, best.super),
            super_min=np.where(better, candidate.super_min, best.super_min),
        )
        least = np.where(better, error, least)
    return best


def _refit_affine(b: Blocks, s: AffineScales, top: int, n_subs: int) -> AffineScales:
    """The super-block's two scales that suit the codes best: two equations in two unknowns."""
    line = s.line()
    inverse, zero = inverse_of(line.d), np.zeros_like(line.d)
    sqq, sq, sw, sxq, sx = zero, zero, zero, zero, zero
    for x, w in b.columns():
        q = nearest((x - line.m) * inverse, 0, top)
        wq = w * q
        sqq, sq, sw, sxq, sx = sqq + wq * q, sq + wq, sw + w, sxq + wq * x, sx + w * x
    A, C, E = (
        _super_sums(v, n_subs) for v in (sqq * s.sub * s.sub, sq * s.sub * s.sub_min, sw * s.sub_min * s.sub_min)
    )
    P, R = _super_sums(sxq * s.sub, n_subs), _super_sums(sx * s.sub_min, n_subs)
    det = A * E - C * C
    d = np.where(det > 0, (P * E - C * R) / det, np.where(A > 0, P / A, s.super[::n_subs]))
    m = np.where(det > 0, (C * P - A * R) / det, s.super_min[::n_subs])
    super, super_min = (_spread(round_f16(np.where(v > 0, v, 0).astype(np.float32)), n_subs) for v in (d, m))
    return replace(s, super=super, super_min=super_min)
