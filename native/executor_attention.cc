// The executor's attention: angles, the division of work, the cache's writes and reads.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "executor.h"

namespace herd {
namespace {

// Multiplications below which one thread does all attention of a step.
constexpr int64_t kWorthSharing = 32768;

// Puts one value into column `position` of keys [head_dim][16 positions].
template <class Element>
void store_key(Element* keys, const Element* row, int64_t head_dim, int64_t position) {
  for (int64_t d = 0; d < head_dim; ++d) keys[d * kBlockLen + position] = row[d];
}

template <class Element>
void store_value(Element* values, const Element* row, int64_t head_dim, int64_t position) {
  Element* out = values + position * padded_dim(head_dim);
  std::copy(row, row + head_dim, out);
  std::fill(out + head_dim, out + padded_dim(head_dim), Element{});
}

}  // namespace

// Angles are float64, so that position 100,000 is as exact as position 1.
void Executor::turn_angles() {
  const int64_t half = shape_.rotary_dim / 2;
  turns_.resize(static_cast<size_t>(batch_.rows() * shape_.rotary_dim));
  pool_.run([&](int thread) {
    const Range mine = partition(batch_.rows(), 1, thread, pool_.size());
    for (int64_t row = mine.begin; row < mine.end; ++row) {
      float* turns = turns_.data() + row * shape_.rotary_dim;
      for (int64_t i = 0; i < half; ++i) {
        const double angle = batch_.positions[static_cast<size_t>(row)] * model_.inverse_frequencies_[static_cast<size_t>(i)];
        turns[i] = static_cast<float>(std::cos(angle) * model_.rope_scale_);
        turns[half + i] = static_cast<float>(std::sin(angle) * model_.rope_scale_);
      }
    }
  });
}

// Pairs (chunk, head) in order, cut so that each thread reads about as many positions. A pair is never cut.
void Executor::divide_attention() {
  const int64_t group = shape_.heads / shape_.kv_heads;
  const int64_t most = std::clamp<int64_t>(kMostQueries / group, 1, kMostChunkRows);
  std::vector<int64_t> read{0};  // positions read by one head up to each chunk
  for (int64_t seq = 0; seq < batch_.seqs(); ++seq) {
    const int64_t end = batch_.seq_starts[static_cast<size_t>(seq) + 1];
    for (int64_t row = batch_.seq_starts[static_cast<size_t>(seq)]; row < end; row += most) {
      const int64_t rows = std::min(most, end - row), first = batch_.positions[static_cast<size_t>(row)];
      chunks_.push_back({seq, row, rows, first});
      read.push_back(read.back() + rows * (first + rows));
    }
  }
  const int threads = read.back() * shape_.heads * shape_.head_dim < kWorthSharing ? 1 : pool_.size();
  const int64_t pairs = static_cast<int64_t>(chunks_.size()) * shape_.heads;
  int64_t pair = 0;
  for (int thread = 0; thread < threads; ++thread) {
    attention_parts_.push_back(pair);
    const double share = static_cast<double>(read.back()) * static_cast<double>(shape_.heads) * (thread + 1) / threads;
    while (pair < pairs) {
      const size_t chunk = static_cast<size_t>(pair / shape_.heads);
      const double cost = static_cast<double>(read[chunk + 1] - read[chunk]);
      const double done = static_cast<double>(read[chunk]) * static_cast<double>(shape_.heads) + cost * static_cast<double>(pair % shape_.heads);
      if (done + cost / 2 > share) break;
      ++pair;
    }
  }
  attention_parts_.push_back(pairs);
}

void Executor::store_kv(const Operation& op) {
  for_rows(at(op.reads[0]), [&](int64_t row, float* scratch) { store_row(op, row, scratch); });
}

void Executor::store_row(const Operation& op, int64_t row, float* scratch) {
  const int64_t position = batch_.positions[static_cast<size_t>(row)], head_dim = shape_.head_dim;
  const int32_t block = batch_.block_table(seq_of_row_[static_cast<size_t>(row)])[position / kBlockLen];
  std::byte* base = model_.cache_.block(block);
  const int64_t rotary_dim = op.rotated ? shape_.rotary_dim : 0;
  const int64_t offset = position % kBlockLen;
  auto* halves = reinterpret_cast<uint16_t*>(scratch + padded_dim(head_dim));
  for (int64_t head = 0; head < shape_.kv_heads; ++head) {
    const HeadCache cache = model_.cache_.head(op.layer, head);
    const float* value = at(op.reads[1]).row(row) + head * head_dim;
    row_.rotate(at(op.reads[0]).row(row) + head * head_dim, turns_.data() + row * shape_.rotary_dim, rotary_dim, head_dim,
                1.0f, scratch);
    if (cache.half) {
      row_.to_f16(scratch, head_dim, halves);
      store_key(reinterpret_cast<uint16_t*>(base + cache.keys_offset), halves, head_dim, offset);
      row_.to_f16(value, head_dim, halves);
      store_value(reinterpret_cast<uint16_t*>(base + cache.values_offset), halves, head_dim, offset);
    } else {
      store_key(reinterpret_cast<float*>(base + cache.keys_offset), scratch, head_dim, offset);
      store_value(reinterpret_cast<float*>(base + cache.values_offset), value, head_dim, offset);
    }
  }
}

void Executor::attention(const Operation& op) {
  const int64_t group = shape_.heads / shape_.kv_heads;
  const auto part = [&](int thread) {
    const auto t = static_cast<size_t>(thread);
    if (t + 1 >= attention_parts_.size()) return;
    for (int64_t pair = attention_parts_[t]; pair < attention_parts_[t + 1];) {
      const int64_t head = pair % shape_.heads;
      const int64_t heads = std::min(group - head % group, attention_parts_[t + 1] - pair);
      attend(op, chunks_[static_cast<size_t>(pair / shape_.heads)], head, heads, model_.scratch(thread));
      pair += heads;
    }
  };
  if (attention_parts_.size() > 2) {
    pool_.run(part);
  } else {
    part(0);
  }
  const Buffer& out = at(op.writes[0]);
  if (out.q8)
    for_rows(out, [&](int64_t row, float*) { linear_.quantize_row(out.row(row), out.width, out.q8_row(row)); });
}

void Executor::attend(const Operation& op, const Chunk& chunk, int64_t first_head, int64_t heads, float* scratch) {
  const Buffer &q = at(op.reads[0]), &out = at(op.writes[0]);
  AttentionJob job{};
  job.q = q.row(chunk.row) + first_head * shape_.head_dim;
  job.q_stride = q.width;
  job.rows = chunk.rows;
  job.first_position = chunk.first_position;
  job.heads = heads;
  job.head_dim = shape_.head_dim;
  job.turns = turns_.data() + chunk.row * shape_.rotary_dim;
  job.turns_stride = shape_.rotary_dim;
  job.rotary_dim = op.rotated ? shape_.rotary_dim : 0;
  job.cache = model_.cache_.head(op.layer, first_head / (shape_.heads / shape_.kv_heads));
  job.block_table = batch_.block_table(chunk.seq);
  job.out = out.row(chunk.row) + first_head * shape_.head_dim;
  job.out_stride = out.width;
  job.scratch = scratch;
  attention_.attend(job);
}

}  // namespace herd
