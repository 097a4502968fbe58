// max and min for sets whose own instructions treat a NaN or two zeros otherwise than the comparison does.
#pragma once

namespace herd::HERD_ISA_NS {

HERD_INLINE f32x16 max(const f32x16& a, const f32x16& b) { return select(a > b, a, b); }
HERD_INLINE f32x16 min(const f32x16& a, const f32x16& b) { return select(a < b, a, b); }

}  // namespace herd::HERD_ISA_NS
