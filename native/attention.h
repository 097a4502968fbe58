// Causal attention of some rows of one sequence over its paged cache: one routine for prefill and decode.
//
// Positions are taken in tiles of 64 at absolute multiples of 64. Each tile's scores move a running (max, sum, out), left
// to right (online softmax: Milakov and Gimelshein 2018, algorithm 3; Dao et al. 2022). A row's bits therefore depend on
// its query and the cache up to its position, and on nothing else: not on the chunk, the batch or the thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "isa.h"

namespace herd {

constexpr int64_t kBlockLen = 16;   // positions in a block of the cache
constexpr int64_t kTileLen = 64;    // positions in a tile
constexpr int64_t kTileBlocks = kTileLen / kBlockLen;

// Values of one position are padded with zeros to whole vectors.
static constexpr int64_t padded_dim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }

// Where one layer's keys and values of one KV head lie in each block: keys [head_dim][16 positions], so that one vector
// covers the block's positions, values [16 positions][padded_dim].
struct HeadCache {
  const std::byte* blocks;  // block b begins at blocks + b * block_bytes
  size_t block_bytes;
  size_t keys_offset;
  size_t values_offset;
  bool half;  // IEEE halves, else float32
};

struct AttentionJob {
  const float* q;  // first row, first head; heads are adjacent
  int64_t q_stride;
  int64_t rows;            // consecutive positions of one sequence
  int64_t first_position;  // of row 0
  int64_t heads;           // query heads, all of one KV head
  int64_t head_dim;
  const float* turns;  // cosines and sines of row 0 (see RowKernels::rotate)
  int64_t turns_stride;
  int64_t rotary_dim;  // 0: queries are not rotated
  HeadCache cache;
  const int32_t* block_table;  // of the sequence
  float* out;                  // as q
  int64_t out_stride;
  float* scratch;  // attention_scratch(rows * heads, head_dim) floats, 64-byte aligned
};

// Floats of scratch for `queries` = rows * heads.
static constexpr int64_t attention_scratch(int64_t queries, int64_t head_dim) {
  const int64_t tile = kTileLen * (padded_dim(head_dim) + head_dim);
  return padded_dim(queries) * (head_dim + padded_dim(head_dim) + 2) + tile;
}

struct AttentionKernels {
  void (*attend)(const AttentionJob& job);
};

const AttentionKernels& attention_kernels(Isa isa);

}  // namespace herd
