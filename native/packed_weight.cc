#include "packed_weight.h"

#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "file_block.h"
#include "tile_layout.h"

namespace herd {
namespace {

// A cache line: no vector of codes straddles two.
constexpr size_t kAlignment = 64;
// Far above any memory, and far enough below 2^63 that no size computed from two such factors overflows.
constexpr int64_t kMaxBytes = int64_t{1} << 47;

size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

void check_sizes(BlockType type, int64_t rows, int64_t cols) {
  const BlockShape shape = block_shape(type);
  if (rows <= 0 || cols <= 0)
    throw std::invalid_argument("a weight needs at least one row and one column, not " + std::to_string(rows) + " x " +
                                std::to_string(cols));
  if (cols % shape.values != 0)
    throw std::invalid_argument(std::string(shape.name) + " rows hold a multiple of " + std::to_string(shape.values) +
                                " values, not " + std::to_string(cols));
  // 4 bytes bound every type's bytes per value; 16 rows bound the padding of the last tile.
  if (rows > kMaxBytes || cols > kMaxBytes / 4 / (rows + kTileRows))
    throw std::length_error("a weight of " + std::to_string(rows) + " x " + std::to_string(cols) + " does not fit 2^47 bytes");
}

PackedView make_view(BlockType type, int64_t rows, int64_t cols) {
  check_sizes(type, rows, cols);
  PackedView view{nullptr, 0, 0, rows, cols, type};
  if (is_float(type)) {
    view.scales_offset = static_cast<size_t>(kTileRows * cols * block_shape(type).bytes);
    view.tile_bytes = round_up(view.scales_offset, kAlignment);
  } else {
    const TileLayout layout = tile_layout(type);
    const size_t steps = static_cast<size_t>(cols / kStep);
    view.scales_offset = steps * layout.step_bytes();
    view.tile_bytes = round_up(view.scales_offset + steps / layout.record_steps() * layout.record_bytes(), kAlignment);
  }
  return view;
}

// Row r of one step: 32 codes as 8 words, a group each, spread over the planes of the step.
void put_codes(const TileLayout& layout, const uint8_t* codes, int64_t r, uint8_t* step) {
  uint32_t group[kGroups];
  std::memcpy(group, codes, sizeof group);
  const auto put = [&](int vector, uint32_t word) { std::memcpy(step + vector * kGroupBytes + r * 4, &word, 4); };
  if (layout.low_bits == 8) {
    for (int g = 0; g < kGroups; ++g) put(g, group[g]);
  } else if (layout.low_bits == 4) {
    for (int v = 0; v < 4; ++v) put(v, (group[v] & 0x0f0f0f0fu) | ((group[v + 4] & 0x0f0f0f0fu) << 4));
  } else {
    for (int v = 0; v < 2; ++v) {
      uint32_t word = 0;
      for (int p = 0; p < 4; ++p) word |= (group[v + 2 * p] & 0x03030303u) << (2 * p);
      put(v, word);
    }
  }
  if (layout.high_bits == 2) {
    for (int v = 0; v < 2; ++v) {
      uint32_t word = 0;
      for (int p = 0; p < 4; ++p) word |= ((group[v + 2 * p] >> layout.low_bits) & 0x03030303u) << (2 * p);
      put(layout.low_bits + v, word);
    }
  } else if (layout.high_bits == 1) {
    uint32_t word = 0;
    for (int p = 0; p < kGroups; ++p) word |= ((group[p] >> layout.low_bits) & 0x01010101u) << p;
    put(layout.low_bits, word);
  }
}

// Row r of one record of scales.
void put_scales(const TileLayout& layout, const FileBlock& block, int64_t r, uint8_t* record) {
  if (layout.scales == ScaleKind::exponent) {
    record[r] = static_cast<uint8_t>(block.d);
    return;
  }
  std::memcpy(record + 2 * r, &block.d, 2);
  if (layout.has_offset) std::memcpy(record + 32 + 2 * r, &block.m, 2);
  if (!layout.is_super()) return;
  uint8_t* scales = record + layout.header_bytes();
  const int n = kSuperSteps * layout.sub_blocks;
  for (int i = 0; i < n; ++i) scales[16 * i + r] = block.scale[i];
  if (layout.scales == ScaleKind::super && layout.has_offset)
    for (int i = 0; i < n; ++i) scales[16 * (n + i) + r] = block.min[i];
}

// Whether a row's nibbles lie in the file as in a step: byte i of 16 holds codes i and i + 16, as byte i % 4 of vector
// i / 4 does. Then a block's bytes are moved, not taken apart.
bool keeps_nibbles(BlockType type) {
  return type == BlockType::q4_0 || type == BlockType::q4_1 || type == BlockType::iq4_nl || type == BlockType::mxfp4;
}

void pack_nibble_row(const PackedView& view, const uint8_t* row, int64_t r, uint8_t* tile) {
  const TileLayout layout = tile_layout(view.type);
  const BlockShape shape = block_shape(view.type);
  const int64_t header = shape.bytes - 16;  // of scales, before the nibbles
  const int64_t record = layout.record_bytes(), step = layout.step_bytes();
  const int64_t scale = layout.scales == ScaleKind::exponent ? 1 : 2;
  uint8_t* codes = tile + r * 4;
  uint8_t* scales = tile + view.scales_offset + r * scale;
  for (const uint8_t* block = row; block < row + view.cols / kStep * shape.bytes; block += shape.bytes) {
    for (int v = 0; v < 4; ++v) std::memcpy(codes + v * kGroupBytes, block + header + 4 * v, 4);
    if (scale == 1) {
      *scales = *block;
    } else {
      std::memcpy(scales, block, 2);
      if (layout.has_offset) std::memcpy(scales + 2 * kTileRows, block + 2, 2);
    }
    codes += step;
    scales += record;
  }
}

void pack_row(const PackedView& view, const uint8_t* row, int64_t r, uint8_t* tile) {
  if (keeps_nibbles(view.type)) return pack_nibble_row(view, row, r, tile);
  const TileLayout layout = tile_layout(view.type);
  const BlockShape shape = block_shape(view.type);
  const int64_t steps = shape.values / kStep;
  FileBlock block;
  for (int64_t b = 0; b < view.cols / shape.values; ++b) {
    read_file_block(view.type, row + b * shape.bytes, block);
    for (int64_t s = 0; s < steps; ++s)
      put_codes(layout, block.codes + s * kStep, r, tile + (b * steps + s) * layout.step_bytes());
    put_scales(layout, block, r, tile + view.scales_offset + static_cast<size_t>(b) * layout.record_bytes());
  }
}

void pack_float_row(const PackedView& view, const uint8_t* row, int64_t r, uint8_t* tile) {
  if (view.type == BlockType::f32) {
    for (int64_t k = 0; k < view.cols; ++k) std::memcpy(tile + (k * kTileRows + r) * 4, row + k * 4, 4);
  } else {
    for (int64_t k = 0; k < view.cols; ++k) std::memcpy(tile + (k * kTileRows + r) * 2, row + k * 2, 2);
  }
}

}  // namespace

PackedWeight::PackedWeight(BlockType type, int64_t rows, int64_t cols) : view_(make_view(type, rows, cols)) {
  data_.reset(static_cast<uint8_t*>(::operator new[](nbytes(), std::align_val_t{kAlignment})),
              [](uint8_t* p) { ::operator delete[](p, std::align_val_t{kAlignment}); });
  view_.data = data_.get();
}

PackedWeight::PackedWeight(BlockType type, int64_t rows, int64_t cols, WeightMemory& memory)
    : view_(make_view(type, rows, cols)), data_(memory.take(nbytes())) {
  view_.data = data_.get();
}

PackedWeight PackedWeight::pack(BlockType type, int64_t rows, int64_t cols, const uint8_t* file_rows, size_t stride) {
  PackedWeight weight(type, rows, cols);
  weight.pack_tiles(file_rows, stride, 0, weight.tiles());
  return weight;
}

void PackedWeight::pack_tiles(const uint8_t* file_rows, size_t stride, int64_t begin, int64_t end) {
  const BlockShape shape = block_shape(type());
  if (begin < 0 || end > tiles() || begin > end) throw std::invalid_argument("tiles to pack are outside the weight");
  if (stride < static_cast<size_t>(cols() / shape.values * shape.bytes))
    throw std::invalid_argument("rows of " + std::to_string(cols()) + " values overlap at a stride of " +
                                std::to_string(stride) + " bytes");
  for (int64_t t = begin; t < end; ++t) {
    uint8_t* tile = data_.get() + static_cast<size_t>(t) * view_.tile_bytes;
    const int64_t last_row = rows() - t * kTileRows;
    if (last_row < kTileRows) std::memset(tile, 0, view_.tile_bytes);
    for (int64_t r = 0; r < kTileRows && r < last_row; ++r) {
      const uint8_t* row = file_rows + static_cast<size_t>(t * kTileRows + r) * stride;
      is_float(type()) ? pack_float_row(view_, row, r, tile) : pack_row(view_, row, r, tile);
    }
  }
}

size_t PackedWeight::packed_bytes(BlockType type, int64_t rows, int64_t cols) {
  const PackedView view = make_view(type, rows, cols);  // throws before a sum with `rows` could overflow
  return view.tile_bytes * static_cast<size_t>((rows + kTileRows - 1) / kTileRows);
}

}  // namespace herd
