// The executor's attention: angles, the division of work, the cache's writes and reads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "executor.h"

namespace herd {
namespace {

// Multiplications below which one thread does all attention of a step, a tile counted as tile_cost says.
constexpr int64_t kWorthSharing = 32768;

// What a tile costs, in units of computing it for one query. Reading it takes as long as so many, which are computed
// meanwhile. One thread of a Xeon with AMX, 90 heads of 4,096 positions in halves: 6.9 ms with 3 queries, 7.9 with 6, 8.9 with
// 9, 15.5 with 18, 20.2 with 24. (Taken for less, decodes beside a prompt's rows made one thread wait for the other in each
// layer: four behind 830 positions and 12 rows behind 4,032 took 30.8 ms, and 28.7 so.)
constexpr int64_t kTileReadCost = 8;

int64_t tile_cost(int64_t queries) { return std::max(queries + 1, kTileReadCost); }

// Units of more queries are not cut: prefill has many units, and the records of a tile take room.
constexpr int64_t kMostCutQueries = 32;

// Rows of a sequence are taken in more chunks, with no fewer rows than this, where threads then share its units (chunk, KV
// head) evenly and nobody has to merge records of a cut one. Smaller chunks read the tiles too often for what that saves.
constexpr int64_t kLeastDividedRows = 4;

// `most` bounds the rows of a chunk; there are `rows` in the sequence.
int64_t rows_of_a_chunk(int64_t rows, int64_t most, int64_t kv_heads, int64_t threads) {
  const int64_t chunks = (rows + most - 1) / most, step = threads / std::gcd(threads, kv_heads);
  const int64_t even = (chunks + step - 1) / step * step;
  return rows < even * kLeastDividedRows ? most : (rows + even - 1) / even;
}

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
  const int64_t rows = batch_.rows() * shape_.rotary_tables;
  turns_.resize(static_cast<size_t>(rows * shape_.rotary_dim));
  pool_.run([&](int thread) {
    const Range mine = partition(rows, 1, thread, pool_.size());
    for (int64_t row = mine.begin; row < mine.end; ++row) {
      const RotaryTable& table = model_.rotary_tables_[static_cast<size_t>(row / batch_.rows())];
      const int32_t position = batch_.positions[static_cast<size_t>(row % batch_.rows())];
      float* turns = turns_.data() + row * shape_.rotary_dim;
      for (int64_t i = 0; i < half; ++i) {
        const double angle = position * table.inverse_frequencies[static_cast<size_t>(i)];
        turns[i] = static_cast<float>(std::cos(angle) * table.scale);
        turns[half + i] = static_cast<float>(std::sin(angle) * table.scale);
      }
    }
  });
}

// Units (chunk, KV head) in order, each a line of tiles, cut so that each thread's tiles cost about as much. A cut falls
// between tiles: one long sequence with 3 KV heads still makes equal work for 2 threads.
void Executor::divide_attention() {
  const int64_t group = shape_.heads / shape_.kv_heads;
  const int64_t most = std::clamp<int64_t>(kMostQueries / group, 1, kMostChunkRows);
  std::vector<int64_t> costs{0};  // of one KV head up to each chunk
  for (int64_t seq = 0; seq < batch_.seqs(); ++seq) {
    const int64_t begin = batch_.seq_starts[static_cast<size_t>(seq)], end = batch_.seq_starts[static_cast<size_t>(seq) + 1];
    const int64_t chunk_rows = rows_of_a_chunk(end - begin, most, shape_.kv_heads, pool_.size());
    for (int64_t row = begin; row < end; row += chunk_rows) {
      const int64_t rows = std::min(chunk_rows, end - row), first = batch_.positions[static_cast<size_t>(row)];
      const int64_t tiles = (first + rows + kTileLen - 1) / kTileLen;
      chunks_.push_back({seq, row, rows, first, tiles});
      costs.push_back(costs.back() + tiles * tile_cost(rows * group));
    }
  }
  const int64_t work = costs.back() * shape_.kv_heads * kTileLen * shape_.head_dim;
  const int threads = work < kWorthSharing ? 1 : pool_.size();
  attention_cuts_.push_back({0, 0});
  size_t chunk = 0;
  for (int thread = 1; thread < threads; ++thread) {
    const int64_t target = costs.back() * shape_.kv_heads * thread / threads;
    while (costs[chunk + 1] * shape_.kv_heads <= target) ++chunk;
    const int64_t unit_cost = costs[chunk + 1] - costs[chunk], past = target - costs[chunk] * shape_.kv_heads;
    const bool whole = chunks_[chunk].rows * group > kMostCutQueries;
    const int64_t steps = whole ? 1 : chunks_[chunk].tiles;  // a unit's places to cut
    const int64_t place = (2 * past % (2 * unit_cost) * steps + unit_cost) / (2 * unit_cost);
    const int64_t unit = static_cast<int64_t>(chunk) * shape_.kv_heads + past / unit_cost;
    attention_cuts_.push_back(place == steps ? AttentionCut{unit + 1, 0} : AttentionCut{unit, place * chunks_[chunk].tiles / steps});
  }
  attention_cuts_.push_back({static_cast<int64_t>(chunks_.size()) * shape_.kv_heads, 0});
  size_t floats = 0;
  for (const AttentionCut& cut : attention_cuts_) {
    if (cut.tile == 0 || (!cut_units_.empty() && cut_units_.back().unit == cut.unit)) continue;
    cut_units_.push_back({cut.unit, cut.tile, floats});
    const Chunk& divided = chunk_of(cut.unit);
    floats += static_cast<size_t>((1 + divided.tiles - cut.tile) * divided.rows * group * record_floats(shape_.head_dim));
  }
}

size_t cut_records_floats(const ModelShape& shape, int64_t max_context, int threads) {
  const int64_t group = shape.heads / shape.kv_heads, rows = std::min(kMostCutQueries / group, kMostChunkRows);
  const int64_t tiles = (max_context + kTileLen - 1) / kTileLen;
  return static_cast<size_t>((threads - 1) * tiles * rows * group * record_floats(shape.head_dim));
}

void Executor::store_kv(const Operation& op) {
  const auto part = [&](Range rows, int thread) {
    for (int64_t row = rows.begin; row < rows.end; ++row) store_row(op, row, model_.scratch(thread));
  };
  if (store_shared()) {
    pool_.run([&](int thread) { part(partition(batch_.rows(), 1, thread, pool_.size()), thread); });
  } else {
    part({0, batch_.rows()}, 0);
  }
}

void Executor::store_row(const Operation& op, int64_t row, float* scratch) {
  const int64_t position = batch_.positions[static_cast<size_t>(row)], head_dim = shape_.head_dim;
  const int32_t block = batch_.block_table(seq_of_row_[static_cast<size_t>(row)])[position / kBlockLen];
  std::byte* base = model_.cache_.block(block);
  const int64_t rotary_dim = op.rope == kNone ? 0 : shape_.rotary_dim;
  const int64_t offset = position % kBlockLen;
  auto* halves = reinterpret_cast<uint16_t*>(scratch + padded_dim(head_dim));
  for (int64_t head = 0; head < shape_.kv_heads; ++head) {
    const HeadCache cache = model_.cache_.head(op.layer, head);
    const float* value = at(op.reads[1]).row(row) + head * head_dim;
    row_.rotate(at(op.reads[0]).row(row) + head * head_dim, turns_of(op, row), rotary_dim, head_dim, 1.0f, scratch);
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
  const auto part = [&](int thread) {
    const auto t = static_cast<size_t>(thread);
    if (t + 1 >= attention_cuts_.size()) return;
    const AttentionCut begin = attention_cuts_[t], end = attention_cuts_[t + 1];
    for (int64_t unit = begin.unit; unit < end.unit || (unit == end.unit && end.tile > 0); ++unit)
      attend(op, unit, unit == begin.unit ? begin.tile : 0, unit == end.unit ? end.tile : chunk_of(unit).tiles,
             model_.scratch(thread));
  };
  if (attention_shared()) {
    spread(op, part);
  } else {
    part(0);
  }
  for (const CutUnit& cut : cut_units_) merge_cut(op, cut);
}

AttentionJob Executor::attention_job(const Operation& op, int64_t unit) {
  const Buffer &q = at(op.reads[0]), &out = at(op.writes[0]);
  const Chunk& chunk = chunk_of(unit);
  const int64_t kv_head = unit % shape_.kv_heads;
  AttentionJob job{};
  job.heads = shape_.heads / shape_.kv_heads;
  job.head_dim = shape_.head_dim;
  job.q = q.row(chunk.row) + kv_head * job.heads * job.head_dim;
  job.q_stride = q.width;
  job.rows = chunk.rows;
  job.first_position = chunk.first_position;
  job.turns = turns_of(op, chunk.row);
  job.turns_stride = shape_.rotary_dim;
  job.rotary_dim = op.rope == kNone ? 0 : shape_.rotary_dim;
  job.scale = shape_.attention_scale;
  job.cache = model_.cache_.head(op.layer, kv_head);
  job.block_table = batch_.block_table(chunk.seq);
  job.out = out.row(chunk.row) + kv_head * job.heads * job.head_dim;
  job.out_stride = out.width;
  return job;
}

ScoreRules Executor::score_rules(const Operation& op, int64_t unit) const {
  const int64_t first_head = unit % shape_.kv_heads * (shape_.heads / shape_.kv_heads);
  const float* slopes = model_.alibi_slopes_.empty() ? nullptr : model_.alibi_slopes_.data() + first_head;
  return {shape_.attention_softcap, slopes, op.window};
}

void Executor::attend(const Operation& op, int64_t unit, int64_t tile_begin, int64_t tile_end, float* scratch) {
  AttentionJob job = attention_job(op, unit);
  const ScoreRules rules = score_rules(op, unit);
  if (rules.softcap > 0 || rules.slopes != nullptr || rules.window > 0) job.rules = &rules;
  const int64_t queries = job.rows * job.heads, record = record_floats(job.head_dim);
  job.tile_begin = tile_begin;
  job.tile_end = tile_end;
  const auto cut = std::find_if(cut_units_.begin(), cut_units_.end(), [&](const CutUnit& c) { return c.unit == unit; });
  if (cut == cut_units_.end()) {
    job.records = scratch;
    job.scratch = scratch + padded_dim(queries) * record;
    attention_.attend(job);
    attention_.finish(job);
  } else {
    const int64_t before = tile_begin == 0 ? 0 : 1 + tile_begin - cut->first_tile;
    job.records = model_.cut_records() + cut->records + before * queries * record;
    job.scratch = scratch;
    attention_.attend(job);
  }
}

// What threads have of a cut unit becomes its result, tile by tile as one thread would have merged it.
void Executor::merge_cut(const Operation& op, const CutUnit& cut) {
  AttentionJob job = attention_job(op, cut.unit);
  const int64_t queries = job.rows * job.heads, floats = queries * record_floats(job.head_dim);
  job.records = model_.cut_records() + cut.records;
  for (int64_t i = 1; i <= chunk_of(cut.unit).tiles - cut.first_tile; ++i)
    attention_.merge(job.records, job.records + i * floats, queries, job.head_dim);
  attention_.finish(job);
}

}  // namespace herd
