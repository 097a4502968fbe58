// Included by the instruction sets that add four products of bytes into 32 bits at once.
#pragma once

namespace herd::HERD_ISA_NS {

using DotSums = i32x16;

// 2^16 groups of four products of at most 2^7 * 2^7 fit; no step has that many.
constexpr int groups_that_fit(int) { return 1 << 16; }

HERD_INLINE DotSums begin_sums(const i32x16& dots) { return dots; }
HERD_INLINE i32x16 end_sums(const i32x16& /*dots*/, const DotSums& sums) { return sums; }

}  // namespace herd::HERD_ISA_NS
