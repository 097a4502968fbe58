// Codes and scales of one lane to the bytes of a file's block; openherd/quant/block32.py and k_quants.py say which are which.
#pragma once

#include <cstdint>
#include <cstring>

#include "float16.h"

namespace herd::HERD_ISA_NS {

static inline uint8_t* put_half(uint8_t* out, float value) {
  const uint16_t half = f32_to_f16(value);
  std::memcpy(out, &half, sizeof half);
  return out + sizeof half;
}

// Codes [n] as nibbles: of each run of 2 * width the first `width` low, the others high.
static inline void put_nibbles(uint8_t* out, const uint8_t* codes, int n, int width) {
  for (int run = 0; run < n; run += 2 * width)
    for (int i = 0; i < width; ++i)
      out[run / 2 + i] = static_cast<uint8_t>((codes[run + i] & 15) | (codes[run + width + i] & 15) << 4);
}

// Bits `shift` and following of each code in planes of `bits` bits: of each run of width * 8 / bits, the lowest bits of a
// byte are those of the first `width` codes, the next of the second, and so on.
static inline void put_planes(uint8_t* out, const uint8_t* codes, int n, int width, int bits, int shift) {
  const int planes = 8 / bits, mask = (1 << bits) - 1;
  for (int run = 0; run < n; run += planes * width)
    for (int i = 0; i < width; ++i) {
      int byte = 0;
      for (int p = 0; p < planes; ++p) byte |= (codes[run + p * width + i] >> shift & mask) << (bits * p);
      out[run / planes + i] = static_cast<uint8_t>(byte);
    }
}

// Bit 4 of 32 codes as a little-endian word: code i's at bit i.
static inline uint8_t* put_fifth_bits(uint8_t* out, const uint8_t* codes) {
  uint32_t high = 0;
  for (int i = 0; i < 32; ++i) high |= static_cast<uint32_t>(codes[i] >> 4 & 1) << i;
  std::memcpy(out, &high, sizeof high);
  return out + sizeof high;
}

// Eight 6-bit scales and minima in 12 bytes: see k_quants.py.
static inline void put_scales_and_mins(uint8_t* out, const uint8_t* sc, const uint8_t* mn) {
  for (int i = 0; i < 4; ++i) {
    out[i] = static_cast<uint8_t>(sc[i] | (sc[i + 4] >> 4) << 6);
    out[4 + i] = static_cast<uint8_t>(mn[i] | (mn[i + 4] >> 4) << 6);
    out[8 + i] = static_cast<uint8_t>((sc[i + 4] & 15) | (mn[i + 4] & 15) << 4);
  }
}

// Sixteen 6-bit scales, already plus 32, in 12 bytes.
static inline void put_six_bit_scales(uint8_t* out, const uint8_t* sc) {
  for (int i = 0; i < 8; ++i) out[i] = static_cast<uint8_t>((sc[i] & 15) | (sc[i + 8] & 15) << 4);
  for (int i = 0; i < 4; ++i) {
    int byte = 0;
    for (int p = 0; p < 4; ++p) byte |= (sc[4 * p + i] >> 4) << (2 * p);
    out[8 + i] = static_cast<uint8_t>(byte);
  }
}

}  // namespace herd::HERD_ISA_NS
