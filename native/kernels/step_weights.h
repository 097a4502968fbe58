// One step (32 k) of a tile, unpacked into registers: the reading half of packed_weight.h's picture.
#pragma once

#include "simd.h"
#include "tile_layout.h"

namespace herd::HERD_ISA_NS {

// 16 rows x 32 k: bytes for the dot product and, per sub-block, the scale and offset of each row.
template <BlockType kType>
struct StepWeights {
  static constexpr TileLayout kLayout = tile_layout(kType);
  static constexpr int kSubBlocks = kLayout.sub_blocks;
  // Signed bytes (as they are or through a code book) go through dot4_signed, with its bias.
  static constexpr bool kSigned = kLayout.is_signed || kLayout.book != nullptr;
  // The code that stands for 0 becomes an offset of -zero * scale.
  static constexpr int kZero = kLayout.zero;
  static constexpr bool kHasOffset = kLayout.has_offset || kZero != 0;

  u8x64 codes[kGroups];
  f32x16 scale[kSubBlocks];
  f32x16 offset[kSubBlocks];  // only where kHasOffset
};

HERD_INLINE u8x64 low_bits(const u8x64& bytes, int shift, uint8_t mask) {
  // Bits that a 16-bit shift drags in from the neighbouring byte are masked away.
  typedef uint16_t u16_part __attribute__((vector_size(HERD_VECTOR_BYTES)));
  u8x64 r;
  HERD_FOR_PARTS(i) r.part[i] = (u8_part)((u16_part)bytes.part[i] >> shift) & (mask - (u8_part){});
  return r;
}

HERD_INLINE u8x64 shift_bytes_left(const u8x64& bytes, int shift) {
  typedef uint16_t u16_part __attribute__((vector_size(HERD_VECTOR_BYTES)));
  u8x64 r;
  HERD_FOR_PARTS(i) r.part[i] = (u8_part)((u16_part)bytes.part[i] << shift);  // no bit of ours leaves its byte
  return r;
}

// The code book in the form that dot4_signed wants.
template <BlockType kType>
struct BiasedBook {
  alignas(16) int8_t values[16];
  constexpr BiasedBook() : values() {
    for (int i = 0; i < 16; ++i) values[i] = static_cast<int8_t>(tile_layout(kType).book[i] + kSignedBias);
  }
};

template <BlockType kType>
HERD_INLINE void unpack_codes(const uint8_t* step, StepWeights<kType>& w) {
  constexpr TileLayout kLayout = tile_layout(kType);
  constexpr int kLow = kLayout.low_bits, kHigh = kLayout.high_bits;
  constexpr int kLowVectors = kLow, kHighVectors = kHigh;  // n bits a code take n vectors of 64 bytes
  u8x64 low[kLowVectors];
  _Pragma("GCC unroll 8") for (int v = 0; v < kLowVectors; ++v) low[v] = load_bytes<u8x64>(step + v * kGroupBytes);
  _Pragma("GCC unroll 8") for (int g = 0; g < kGroups; ++g) {
    if constexpr (kLow == 8)
      w.codes[g] = low[g];
    else
      w.codes[g] = low_bits(low[g % kLowVectors], kLow * (g / kLowVectors), (1 << kLow) - 1);
  }
  if constexpr (kHigh > 0) {
    u8x64 high[kHighVectors];
    _Pragma("GCC unroll 2") for (int v = 0; v < kHighVectors; ++v)
      high[v] = load_bytes<u8x64>(step + (kLowVectors + v) * kGroupBytes);
    _Pragma("GCC unroll 8") for (int g = 0; g < kGroups; ++g) {
      const u8x64 bits = low_bits(high[g % kHighVectors], kHigh * (g / kHighVectors), (1 << kHigh) - 1);
      w.codes[g] = w.codes[g] | shift_bytes_left(bits, kLow);
    }
  }
  if constexpr (kLayout.book != nullptr) {
    static constexpr BiasedBook<kType> kBook;
    _Pragma("GCC unroll 8") for (int g = 0; g < kGroups; ++g)
      w.codes[g] = bit_cast<u8x64>(lookup16(kBook.values, w.codes[g]));
  } else if constexpr (StepWeights<kType>::kSigned && kSignedBias != 0) {
    _Pragma("GCC unroll 8") for (int g = 0; g < kGroups; ++g)
      w.codes[g] = w.codes[g] ^ splat(static_cast<uint8_t>(kSignedBias));
  }
}

// 2^(e - 128) for 16 exponent bytes; subnormal for e < 2.
HERD_INLINE f32x16 load_exponents(const uint8_t* from) {
  const i32x16 e = load_u8(from);
  const i32x16 normal = shift_left(e - splat(int32_t{1}), 23);
  const i32x16 subnormal = splat(int32_t{0x00200000}) * (e + splat(int32_t{1}));
  return select(e < splat(int32_t{2}), bit_cast<f32x16>(subnormal), bit_cast<f32x16>(normal));
}

// The scales and offsets as the file has them.
template <BlockType kType>
HERD_INLINE void read_scales(const uint8_t* record, int step_in_record, StepWeights<kType>& w) {
  constexpr TileLayout kLayout = tile_layout(kType);
  constexpr int kSubBlocks = kLayout.sub_blocks;
  constexpr int kHeader = kLayout.header_bytes();
  if constexpr (kLayout.scales == ScaleKind::exponent) {
    w.scale[0] = load_exponents(record);
    return;
  }
  const f32x16 d = load_f16(reinterpret_cast<const uint16_t*>(record));
  f32x16 m = d;
  if constexpr (kLayout.has_offset) m = load_f16(reinterpret_cast<const uint16_t*>(record + 32));
  if constexpr (kLayout.scales == ScaleKind::halves) {
    w.scale[0] = d;
    w.offset[0] = m;
    return;
  }
  if constexpr (kLayout.is_super()) {
    const f32x16 minus_m = splat(0.0f) - m;
    _Pragma("GCC unroll 2") for (int h = 0; h < kSubBlocks; ++h) {
      const uint8_t* bytes = record + kHeader + 16 * (step_in_record * kSubBlocks + h);
      if constexpr (kLayout.scales == ScaleKind::super_pair) {
        const i32x16 pair = load_u8(bytes);
        w.scale[h] = d * to_f32(pair & splat(int32_t{15}));
        w.offset[h] = minus_m * to_f32(shift_right(pair, 4));
      } else {
        w.scale[h] = d * to_f32(load_s8(reinterpret_cast<const int8_t*>(bytes)));
        if constexpr (kLayout.has_offset)
          w.offset[h] = minus_m * to_f32(load_u8(bytes + 16 * kSuperSteps * kSubBlocks));
      }
    }
  }
}

// `record` holds the scales of a block, or of a super-block of which this is step `step_in_record`.
template <BlockType kType>
HERD_INLINE void unpack_scales(const uint8_t* record, int step_in_record, StepWeights<kType>& w) {
  using W = StepWeights<kType>;
  read_scales<kType>(record, step_in_record, w);
  if constexpr (W::kZero != 0) {
    static_assert(!W::kLayout.has_offset);
    _Pragma("GCC unroll 2") for (int h = 0; h < W::kSubBlocks; ++h)
      w.offset[h] = w.scale[h] * splat(-static_cast<float>(W::kZero));
  }
}

}  // namespace herd::HERD_ISA_NS
