#include "batch.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "attention.h"

namespace herd {
namespace {

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

void require_range(std::span<const int32_t> values, int64_t low, int64_t high, const char* name) {
  for (const int32_t value : values)
    if (value < low || value >= high)
      throw std::invalid_argument(std::string(name) + ": " + std::to_string(value) + " is not in [" +
                                  std::to_string(low) + ", " + std::to_string(high) + ")");
}

void check_sequence(const Batch& batch, int64_t seq, const Limits& limits, int64_t num_blocks) {
  const int64_t begin = batch.seq_starts[static_cast<size_t>(seq)], end = batch.seq_starts[static_cast<size_t>(seq) + 1];
  require(begin < end, "seq_starts must rise: a sequence without rows");
  const int64_t first = batch.positions[static_cast<size_t>(begin)], length = batch.kv_lens[static_cast<size_t>(seq)];
  require(first >= 0 && first + (end - begin) == length, "kv_lens must be a sequence's last position plus one");
  require(length <= limits.max_context, "a sequence is longer than max_context");
  for (int64_t row = begin; row < end; ++row)
    require(batch.positions[static_cast<size_t>(row)] == first + (row - begin), "a sequence's positions must be consecutive");
  const int64_t needed = (length + kBlockLen - 1) / kBlockLen;
  require(needed <= batch.max_blocks, "block_tables have too few columns for kv_lens");
  require_range({batch.block_table(seq), static_cast<size_t>(needed)}, 0, num_blocks, "block_tables");
}

// Threads store rows side by side, so none may be stored where another is; blocks that are only read may be shared.
void check_written_blocks(const Batch& batch) {
  std::vector<int32_t> written;
  for (int64_t seq = 0; seq < batch.seqs(); ++seq) {
    const int64_t first = batch.positions[static_cast<size_t>(batch.seq_starts[static_cast<size_t>(seq)])];
    const int64_t last = batch.kv_lens[static_cast<size_t>(seq)] - 1;
    const int32_t* table = batch.block_table(seq);
    written.insert(written.end(), table + first / kBlockLen, table + last / kBlockLen + 1);
  }
  std::sort(written.begin(), written.end());
  const auto twice = std::adjacent_find(written.begin(), written.end());
  if (twice != written.end())
    throw std::invalid_argument("block_tables: block " + std::to_string(*twice) + " would be written twice in one step");
}

}  // namespace

void check_batch(const Batch& batch, const Limits& limits, int64_t vocab_size, int64_t num_blocks, int64_t num_adapters) {
  const int64_t rows = batch.rows(), seqs = batch.seqs();
  require(rows >= 1 && rows <= limits.max_batch_tokens, "token_ids must have from 1 to max_batch_tokens rows");
  require(seqs >= 1 && seqs <= limits.max_seqs, "kv_lens must have from 1 to max_seqs sequences");
  require(static_cast<int64_t>(batch.positions.size()) == rows, "positions must be as long as token_ids");
  require(static_cast<int64_t>(batch.seq_starts.size()) == seqs + 1, "seq_starts must have one entry more than kv_lens");
  require(static_cast<int64_t>(batch.adapters.size()) == seqs, "adapters must be as long as kv_lens");
  require(static_cast<int64_t>(batch.block_tables.size()) == seqs * batch.max_blocks, "block_tables must have a row a sequence");
  require(static_cast<int64_t>(batch.logit_rows.size()) <= limits.max_logit_rows, "more logit_rows than max_logit_rows");
  require_range(batch.token_ids, 0, vocab_size, "token_ids");
  require_range(batch.adapters, -1, num_adapters, "adapters");
  require_range(batch.logit_rows, 0, rows, "logit_rows");
  for (const auto& kept : batch.tap_rows) require_range(kept, 0, rows, "tap rows");
  require(batch.seq_starts.front() == 0 && batch.seq_starts.back() == rows, "seq_starts must go from 0 to T");
  require_range(batch.seq_starts, 0, rows + 1, "seq_starts");
  for (int64_t seq = 0; seq < seqs; ++seq) check_sequence(batch, seq, limits, num_blocks);
  check_written_blocks(batch);
}

}  // namespace herd
