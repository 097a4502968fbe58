// Causal attention of some rows of one sequence over its paged cache: one routine for prefill and decode.
//
// Positions are taken in tiles of 64 at absolute multiples of 64. Each tile alone gives a record (out, sum, max) for each
// query, and records are merged left to right (online softmax: Milakov and Gimelshein 2018; splitting one sequence among
// threads: Flash-Decoding, Dao et al. 2023). A row's bits therefore depend on its query and the cache up to its position,
// and on nothing else: not on the chunk, the batch, or which thread computed which tile.
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

// What a query has from some tiles: out [padded_dim], not yet divided by the sum; the sum, in 16 lanes that are added up at
// the end; the maximum of the scores, 16 times. Scores are in units of ln 2, so that weights are powers of 2.
constexpr int64_t kRecordLanes = 16;
static constexpr int64_t record_floats(int64_t head_dim) { return padded_dim(head_dim) + 2 * kRecordLanes; }

// Queries that share each load of a key or value.
constexpr int64_t kQueryGroup = 6;

// Variations of attention that some families declare. All follow from a row's and a key's absolute positions.
struct ScoreRules {
  float softcap;        // scores become c tanh(score / c) (Gemma 2); 0: none
  const float* slopes;  // of the job's heads: -slope * distance is added to scores (ALiBi, Press et al. 2022); or null
  int64_t window;       // positions that a query sees, its own the last; 0: all
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
  float scale;          // of scores; 0: 1 / sqrt(head_dim)
  const ScoreRules* rules;  // what else becomes of scores; null: nothing
  HeadCache cache;
  const int32_t* block_table;  // of the sequence
  int64_t tile_begin, tile_end;  // which tiles to read
  // From tile 0 on: the merged records of all queries (row by row, its heads in order). From a later tile on: all queries'
  // records of each tile, one tile after the other, to be merged when those of the tiles before are there.
  float* records;
  float* out;  // as q
  int64_t out_stride;
  float* scratch;  // attention_scratch(rows * heads, head_dim) floats, 64-byte aligned
};

// Floats of scratch for `queries` = rows * heads.
static constexpr int64_t attention_scratch(int64_t queries, int64_t head_dim) {
  const int64_t tile = kTileLen * (padded_dim(head_dim) + head_dim);
  return padded_dim(queries) * head_dim + kQueryGroup * record_floats(head_dim) + tile;
}

struct AttentionKernels {
  // Reads the job's tiles into its records.
  void (*attend)(const AttentionJob& job);
  // Merges the records of the tiles that follow into those of the tiles before.
  void (*merge)(float* records, const float* following, int64_t queries, int64_t head_dim);
  // Makes the job's out from merged records.
  void (*finish)(const AttentionJob& job);
};

const AttentionKernels& attention_kernels(Isa isa);

}  // namespace herd
