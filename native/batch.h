// One step's rows, as they come from Python, and what they must satisfy. Mirrors engine/protocols.py: TokenBatch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace herd {

struct Limits {
  int64_t max_context;
  int64_t max_seqs;
  int64_t max_batch_tokens;
  int64_t max_logit_rows;
};

struct Batch {
  std::span<const int32_t> token_ids;     // [T]
  std::span<const int32_t> positions;     // [T]
  std::span<const int32_t> seq_starts;    // [S+1]
  std::span<const int32_t> kv_lens;       // [S]
  std::span<const int32_t> block_tables;  // [S, max_blocks]
  int64_t max_blocks;
  std::span<const int32_t> adapters;    // [S]
  std::span<const int32_t> logit_rows;  // [R]
  std::vector<std::span<const int32_t>> tap_rows;

  int64_t rows() const { return static_cast<int64_t>(token_ids.size()); }
  int64_t seqs() const { return static_cast<int64_t>(kv_lens.size()); }
  const int32_t* block_table(int64_t seq) const { return block_tables.data() + seq * max_blocks; }
};

// Throws std::invalid_argument, saying which array is wrong, unless every index a forward pass will follow is inside
// its bounds. Positions of a sequence must be consecutive and end at kv_len - 1, and no block is written twice.
void check_batch(const Batch& batch, const Limits& limits, int64_t vocab_size, int64_t num_blocks, int64_t num_adapters);

}  // namespace herd
