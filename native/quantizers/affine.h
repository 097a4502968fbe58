// The search for w = d * q + m, q in 0..top: scale and offset that leave least weighted squared error in each lane.
//
// Candidates lay the codes' grid between points a little inside and a little outside the block's extremes; of each the
// best line through its codes is known in closed form. The best candidate's codes and line are then fitted in turn.
#pragma once

#include "quantizers/symmetric.h"

namespace herd::HERD_ISA_NS {

struct Line {
  f32x16 d, m;
};

struct AffineRange {
  float top;
  bool signed_offset;  // false: m <= 0, as the k-quants store it
};

// What does not depend on the codes.
struct BlockSums {
  f32x16 w, x, lo, hi;
};

template <int kLen>
BlockSums block_sums(const Lanes<kLen>& b, const AffineRange& range) {
  BlockSums s{splat(0.0f), splat(0.0f), b.x[0], b.x[0]};
  for (int i = 0; i < kLen; ++i) {
    s.w = s.w + b.w[i];
    s.x = s.x + b.w[i] * b.x[i];
    s.lo = min(s.lo, b.x[i]);
    s.hi = max(s.hi, b.x[i]);
  }
  if (!range.signed_offset) s.lo = min(s.lo, splat(0.0f));
  return s;
}

// What the codes add to them: sums of w q, w q^2 and w x q.
struct CodeSums {
  f32x16 q, qq, xq;
};

// The best line for codes with these sums, and in `gain` how much less than the sum of w x^2 its error is.
HERD_INLINE Line best_line(const BlockSums& s, const CodeSums& codes, const AffineRange& range, f32x16* gain) {
  const auto& [q, qq, xq] = codes;
  const f32x16 det = s.w * qq - q * q;
  const i32x16 solvable = det > splat(0.0f);
  const f32x16 safe = select(solvable, det, splat(1.0f));
  Line line{(s.w * xq - s.x * q) / safe, (qq * s.x - q * xq) / safe};
  // Without an offset where the best one has the wrong sign or the codes are all alike.
  i32x16 through_zero = solvable == splat(int32_t{0});
  if (!range.signed_offset) through_zero = through_zero | (line.m > splat(0.0f));
  line.d = select(through_zero, quotient(xq, qq), line.d);
  line.m = select(through_zero, splat(0.0f), line.m);
  *gain = line.d * xq + line.m * s.x;
  return line;
}

template <int kLen>
f32x16 affine_error(const Lanes<kLen>& b, const Line& line, float top) {
  const f32x16 inv = inverse(line.d);
  f32x16 error = splat(0.0f);
  for (int i = 0; i < kLen; ++i) {
    const f32x16 e = b.x[i] - (line.d * nearest_code((b.x[i] - line.m) * inv, 0.0f, top) + line.m);
    error = error + b.w[i] * e * e;
  }
  return error;
}

// The same error, and the sums of the line's codes.
template <int kLen>
CodeSums line_sums(const Lanes<kLen>& b, const Line& line, float top, f32x16* error) {
  const f32x16 inv = inverse(line.d);
  CodeSums s{splat(0.0f), splat(0.0f), splat(0.0f)};
  f32x16 squared = splat(0.0f);
  for (int i = 0; i < kLen; ++i) {
    const f32x16 code = nearest_code((b.x[i] - line.m) * inv, 0.0f, top), wq = b.w[i] * code;
    const f32x16 e = b.x[i] - (line.d * code + line.m);
    s.q = s.q + wq;
    s.qq = s.qq + wq * code;
    s.xq = s.xq + wq * b.x[i];
    squared = squared + b.w[i] * e * e;
  }
  *error = squared;
  return s;
}

// The best line for each of kCount grids, which send x to code (x - lo) * scale + shift.
template <int kCount, int kLen>
void fit_lines(const Lanes<kLen>& b, const BlockSums& s, const f32x16& lo, const f32x16* scale, const f32x16* shift,
               const AffineRange& range, Line* line, f32x16* gain) {
  f32x16 q[kCount], qq[kCount], xq[kCount];
  _Pragma("GCC unroll 4") for (int c = 0; c < kCount; ++c) q[c] = qq[c] = xq[c] = splat(0.0f);
  for (int i = 0; i < kLen; ++i) {
    const f32x16 above = b.x[i] - lo;
    _Pragma("GCC unroll 4") for (int c = 0; c < kCount; ++c) {
      const f32x16 code = nearest_code(above * scale[c] + shift[c], 0.0f, range.top), wq = b.w[i] * code;
      q[c] = q[c] + wq;
      qq[c] = qq[c] + wq * code;
      xq[c] = xq[c] + wq * b.x[i];
    }
  }
  for (int c = 0; c < kCount; ++c) line[c] = best_line(s, {q[c], qq[c], xq[c]}, range, gain + c);
}

template <int kLen, class Round>
Line search_line(const Lanes<kLen>& b, const AffineRange& range, const Grid& grid, int refits, Round round) {
  const BlockSums s = block_sums(b, range);
  const f32x16 width = s.hi - s.lo;
  const auto rounded = [&](const Line& l) { return Line{round(l.d), round(l.m)}; };

  Line line{width / splat(range.top), s.lo};  // from one extreme to the other
  f32x16 most = splat(-__builtin_inff());
  for (int pair = 0; pair < grid.num_margins * grid.num_margins; pair += kAtOnce) {
    f32x16 scale[kAtOnce], shift[kAtOnce], gain[kAtOnce];
    Line fitted[kAtOnce];
    for (int c = 0; c < kAtOnce; ++c) {
      const float below = grid.margins[(pair + c) / grid.num_margins], above = grid.margins[(pair + c) % grid.num_margins];
      scale[c] = quotient(splat(range.top - below - above), width);
      shift[c] = splat(below);
    }
    fit_lines<kAtOnce>(b, s, s.lo, scale, shift, range, fitted, gain);
    for (int c = 0; c < kAtOnce; ++c) {
      const i32x16 better = gain[c] > most;
      line = {select(better, fitted[c].d, line.d), select(better, fitted[c].m, line.m)};
      most = select(better, gain[c], most);
    }
  }

  Line best = rounded({width / splat(range.top), s.lo});
  f32x16 least;
  CodeSums sums = line_sums(b, best, range.top, &least);
  for (int i = 0;; ++i) {
    const Line candidate = rounded(line);
    f32x16 error;
    const CodeSums of_candidate = line_sums(b, candidate, range.top, &error);
    const i32x16 better = error < least;
    best = {select(better, candidate.d, best.d), select(better, candidate.m, best.m)};
    least = select(better, error, least);
    if (i == refits || (i > 0 && !any(better))) return best;  // a further one would be the same again
    sums = {select(better, of_candidate.q, sums.q), select(better, of_candidate.qq, sums.qq),
            select(better, of_candidate.xq, sums.xq)};
    f32x16 gain;
    line = best_line(s, sums, range, &gain);
  }
}

}  // namespace herd::HERD_ISA_NS
