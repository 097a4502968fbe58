// IEEE 754 binary16 and bfloat16 as bit patterns. `static`, so that kernel sources may use them too (see isa.h).
#pragma once

#include <cstdint>
#include <cstring>

namespace herd {

static inline float bits_to_f32(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t f32_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float bf16_to_f32(uint16_t half) { return bits_to_f32(uint32_t{half} << 16); }

static inline float f16_to_f32(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t exponent = (half >> 10) & 31u;
  const uint32_t fraction = half & 1023u;
  if (exponent == 0) {  // zero or subnormal: fraction * 2^-24, exact in float32
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return bits_to_f32(f32_to_bits(magnitude) | sign);
  }
  if (exponent == 31) return bits_to_f32(sign | 0x7f800000u | (fraction << 13));
  return bits_to_f32(sign | ((exponent + 112u) << 23) | (fraction << 13));
}

// Nearest, ties to even; beyond 65504 + half a unit: infinity; NaN stays NaN.
static inline uint16_t f32_to_f16(float value) {
  const uint32_t bits = f32_to_bits(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {  // subnormal half: adding 0.5 rounds to a multiple of 2^-24
    const float rounded = bits_to_f32(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (f32_to_bits(rounded) - f32_to_bits(0.5f)));
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

}  // namespace herd
