// Reading rows back from packed tiles: the embedding lookup when the embedding is also the output head.
#include <cstring>
#include <stdexcept>
#include <string>

#include "float16.h"
#include "packed_weight.h"
#include "tile_layout.h"

namespace herd {
namespace {

uint16_t half_at(const uint8_t* record, int offset, int64_t r) {
  uint16_t bits;
  std::memcpy(&bits, record + offset + 2 * r, 2);
  return bits;
}

// 2^(e - 128) without leaving the normal path for e < 2, where it is subnormal.
float exponent_to_f32(uint32_t e) { return bits_to_f32(e < 2 ? 0x00200000u << e : (e - 1) << 23); }

// Codes of row r in one step, k ascending.
void read_codes(const TileLayout& layout, const uint8_t* step, int64_t r, uint8_t* codes) {
  const auto word = [&](int vector) {
    uint32_t value;
    std::memcpy(&value, step + vector * kGroupBytes + r * 4, 4);
    return value;
  };
  for (int g = 0; g < kGroups; ++g) {
    uint32_t group;
    if (layout.low_bits == 8)
      group = word(g);
    else if (layout.low_bits == 4)
      group = (word(g % 4) >> (4 * (g / 4))) & 0x0f0f0f0fu;
    else
      group = (word(g % 2) >> (2 * (g / 2))) & 0x03030303u;
    if (layout.high_bits == 2)
      group |= ((word(layout.low_bits + g % 2) >> (2 * (g / 2))) & 0x03030303u) << layout.low_bits;
    else if (layout.high_bits == 1)
      group |= ((word(layout.low_bits) >> g) & 0x01010101u) << layout.low_bits;
    std::memcpy(codes + 4 * g, &group, 4);
  }
}

struct Affine {
  float scale;
  float offset;
};

// Scale and offset of sub-block `sub` (counted within its record) for row r.
Affine read_scale(const TileLayout& layout, const uint8_t* record, int sub, int64_t r) {
  if (layout.scales == ScaleKind::exponent) return {exponent_to_f32(record[r]), 0.0f};
  const float d = f16_to_f32(half_at(record, 0, r));
  const float m = layout.has_offset ? f16_to_f32(half_at(record, 32, r)) : 0.0f;
  const uint8_t* bytes = record + layout.header_bytes();
  const int n = kSuperSteps * layout.sub_blocks;
  switch (layout.scales) {
    case ScaleKind::super: {
      const float scale = d * static_cast<float>(static_cast<int8_t>(bytes[16 * sub + r]));
      return {scale, layout.has_offset ? -(m * static_cast<float>(bytes[16 * (n + sub) + r])) : 0.0f};
    }
    case ScaleKind::super_pair: {
      const uint8_t pair = bytes[16 * sub + r];
      return {d * static_cast<float>(pair & 15), -(m * static_cast<float>(pair >> 4))};
    }
    default: return {d, m};
  }
}

float code_value(const TileLayout& layout, uint8_t code) {
  if (layout.book != nullptr) return layout.book[code];
  return static_cast<float>((layout.is_signed ? static_cast<int8_t>(code) : code) - layout.zero);
}

void dequantize_blocks(const PackedView& view, const uint8_t* tile, int64_t r, float* out) {
  const TileLayout layout = tile_layout(view.type);
  const int run = kStep / layout.sub_blocks;  // values that share a scale
  for (int64_t s = 0; s < view.cols / kStep; ++s) {
    uint8_t codes[kStep];
    read_codes(layout, tile + s * layout.step_bytes(), r, codes);
    const uint8_t* record = tile + view.scales_offset + s / layout.record_steps() * layout.record_bytes();
    for (int half = 0; half < layout.sub_blocks; ++half) {
      const int sub = static_cast<int>(s % layout.record_steps()) * layout.sub_blocks + half;
      const Affine a = read_scale(layout, record, sub, r);
      for (int i = half * run; i < (half + 1) * run; ++i) {
        const float product = a.scale * code_value(layout, codes[i]);
        out[s * kStep + i] = layout.has_offset ? product + a.offset : product;
      }
    }
  }
}

}  // namespace

void PackedWeight::dequantize_row(int64_t r, float* out) const {
  if (r < 0 || r >= rows())
    throw std::invalid_argument("row " + std::to_string(r) + " is outside a weight of " + std::to_string(rows()) + " rows");
  const uint8_t* tile = view_.data + static_cast<size_t>(r / kTileRows) * view_.tile_bytes;
  const int64_t lane = r % kTileRows;
  if (!is_float(type())) return dequantize_blocks(view_, tile, lane, out);
  for (int64_t k = 0; k < cols(); ++k) {
    const int64_t at = k * kTileRows + lane;
    uint16_t half;
    if (type() == BlockType::f32) {
      std::memcpy(out + k, tile + 4 * at, 4);
      continue;
    }
    std::memcpy(&half, tile + 2 * at, 2);
    out[k] = type() == BlockType::f16 ? f16_to_f32(half) : bf16_to_f32(half);
  }
}

}  // namespace herd
