// How an activation becomes an integer on this instruction set (ActivationBlock in linear.h).
#pragma once

#include "simd.h"

namespace herd::HERD_ISA_NS {

// Bits of `fine`: a value is scale * (2^kFineBits * coarse + fine).
//
// With vector registers each fine block costs as much again as a coarse one, so few are fine and those well: 15 bits. A matrix unit
// multiplies both kinds of codes in the time of one, as `coarse` times 16 w and `fine` times w of 4-bit codes w, which
// are bytes both: so all blocks have 12 bits.
constexpr int kFineBits = kHasMatrixUnit ? 4 : 7;
constexpr bool kAllFine = kHasMatrixUnit;

}  // namespace herd::HERD_ISA_NS
