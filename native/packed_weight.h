// A weight matrix W[N, K] in its block type, rearranged so that 16 rows are computed side by side.
//
// A tile is 16 consecutive rows (the last one is padded with zero blocks). Inside a tile k ascends in steps of 32
// (of 1 for float types), and one step's codes are groups of 4 k: 16 rows x 4 bytes = 64 bytes, one vector of byte dot
// products. Codes of fewer bits share those 64 bytes (kernels/step_weights.h reads them, packed_weight.cc writes them):
//
//   float   one k: 16 values of 2 or 4 bytes
//   8 bits  vector g (0..7) holds group g
//   4 bits  vector v (0..3) holds group v in the low nibbles and v + 4 in the high ones
//   2 bits  vector v (0..1) holds group v + 2 p in bits 2p, 2p + 1
//   1 bit   bit p of one vector belongs to group p
//
// Behind a tile's codes stand its scales, 16 rows side by side: per block of 32 as float16 (d, then m where the type
// has one; one exponent byte for MXFP4), or per super-block of 256 as d, dmin in float16 and then one vector of 16 bytes
// per sub-block of scales, then mins (Q2_K: scale and min share a byte). The 6-bit scales of K-quants take a byte each, the
// only thing that grows: at most 4 % (Q3_K).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "block_type.h"
#include "weight_memory.h"

namespace herd {

constexpr int64_t kTileRows = 16;

// What kernels see: plain data without member functions (see isa.h).
struct PackedView {
  const uint8_t* data;
  size_t tile_bytes;     // from one tile to the next; a multiple of 64
  size_t scales_offset;  // of the scales in a tile
  int64_t rows;          // N
  int64_t cols;          // K
  BlockType type;
};

class PackedWeight {
 public:
  // The contents are undefined until every tile has been packed. `memory`: where a model keeps its weights together.
  // Throws std::invalid_argument when a size is not positive or K does not end on a block's end, and
  // std::length_error when the size of the matrix does not fit 2^47 bytes.
  PackedWeight(BlockType type, int64_t rows, int64_t cols);
  PackedWeight(BlockType type, int64_t rows, int64_t cols, WeightMemory& memory);

  // The whole matrix at once: `file_rows` holds `rows` rows of blocks, `stride` bytes apart.
  static PackedWeight pack(BlockType type, int64_t rows, int64_t cols, const uint8_t* file_rows, size_t stride);

  // Packs tiles [begin, end) from the same arguments; disjoint ranges may be packed by different threads.
  void pack_tiles(const uint8_t* file_rows, size_t stride, int64_t begin, int64_t end);

  // out[cols] = row r in float32, bit for bit what openherd.quant.dequantize gives for the file's row.
  void dequantize_row(int64_t r, float* out) const;

  const PackedView& view() const { return view_; }
  BlockType type() const { return view_.type; }
  int64_t rows() const { return view_.rows; }
  int64_t cols() const { return view_.cols; }
  int64_t tiles() const { return (view_.rows + kTileRows - 1) / kTileRows; }
  size_t nbytes() const { return view_.tile_bytes * static_cast<size_t>(tiles()); }

  // Bytes that a matrix will take, for memory plans; checks and throws as the constructor does.
  static size_t packed_bytes(BlockType type, int64_t rows, int64_t cols);

 private:
  PackedView view_;
  std::shared_ptr<uint8_t> data_;
};

}  // namespace herd
