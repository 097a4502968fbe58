// Runs one program for one batch: operation after operation, each divided among the pool's threads.
//
// Operations too small to divide (with one row: all but the linear maps) are put off until the next divided one, where
// thread 0 does them first while the others fetch the weights that they will read: a decode step is as fast as memory
// only if some thread reads weights at every moment.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>
#include <vector>

#include "attention.h"
#include "linear.h"
#include "model.h"
#include "row_kernels.h"
#include "tile_shares.h"

namespace herd {

// Rows of keys and values: few values, but a key lies in as many cache lines as half a head has dimensions, which after
// another step's worth of memory are far away (32 sequences of SmolLM2-135M on two cores, a step: 3.0 ms alone).
constexpr int64_t kStoredRowsWorthSharing = 8;

class Executor {
 public:
  Executor(Model& model, const Program& program, const std::vector<Buffer>& buffers, const Batch& batch);
  void run();

 private:
  // Consecutive rows of one sequence that attend together.
  struct Chunk {
    int64_t seq;
    int64_t row;
    int64_t rows;
    int64_t first_position;
    int64_t tiles;  // of the cache that its last row sees
  };

  // A place in the line of all units' tiles; a unit is a chunk with one KV head, chunk by chunk.
  struct AttentionCut {
    int64_t unit;
    int64_t tile;
  };

  // A unit that threads share: records of the tiles before the first cut, merged, then those of each tile.
  struct CutUnit {
    int64_t unit;
    int64_t first_tile;  // of its first cut
    size_t records;      // where they begin among the model's cut_records
  };

  void execute(const Operation& op);
  bool shared(const Operation& op) const;
  bool shared(const Buffer& buffer) const;

  // work(thread) by every thread, once thread 0 has done what was put off.
  template <class Work>
  void spread(const Operation& op, Work work);
  void do_put_off();
  void fetch_until(const std::atomic<int>& ready, const Operation& op, int thread) const;
  // What `thread` reads once it has done these tiles of `op`: the next ones of its part, else its part of the next map.
  const uint8_t* read_after(const Operation& op, Range tiles, int thread) const;
  const Operation* next_linear(const Operation& op) const {
    return op.next_linear == kNone ? nullptr : &program_.operations[static_cast<size_t>(op.next_linear)];
  }

  void embed(const Operation& op);
  void rms_norm(const Operation& op);
  void layer_norm(const Operation& op);
  void head_norm(const Operation& op);
  void quantize(const Operation& op);
  void silu_mul(const Operation& op);
  void activate(const Operation& op);
  void element_wise(const Operation& op);
  void add(const Operation& op);
  void keep(const Operation& op);
  void pick_rows(const Operation& op);

  void linear(const Operation& op);
  void linear_places(const Operation& op, Range places, int64_t panels, int thread);
  // These tiles of all maps, and of one map, for some rows of x.
  void linear_tiles(const Operation& op, Range tiles, Range rows, const uint8_t* next, int thread);
  void linear_part(const Operation& op, size_t map, Range tiles, Range rows, const uint8_t* next, int thread);
  bool has_scratch(const PackedWeight& w) const {
    return !is_float(w.type()) && linear_.scratch_bytes(w.cols()) <= model_.scratch_bytes();
  }
  void add_adapters(const Operation& op, size_t map);
  void add_adapter(const Operation& op, size_t map, const LowRankAdapter& adapter, const LowRankPair& pair,
                   const std::vector<int64_t>& rows);
  // A few rows copied together, with what a linear map of any type reads of them.
  struct GatheredRows {
    std::vector<float> x;
    std::vector<ActivationBlock> xq;  // made when a quantised map first asks
  };
  // y [rows, N] = in W^T, by all threads.
  void multiply(const PackedWeight& w, GatheredRows& in, float* y);
  int32_t adapter_of(const Buffer& buffer, int64_t row) const;

  void experts(const Operation& op);
  std::vector<std::vector<std::pair<int64_t, float>>> choose_experts(const Operation& op) const;

  void turn_angles();
  void divide_attention();
  bool attention_shared() const { return attention_cuts_.size() > 2; }
  void store_kv(const Operation& op);
  bool store_shared() const { return batch_.rows() >= kStoredRowsWorthSharing; }
  void store_row(const Operation& op, int64_t row, float* scratch);
  void attention(const Operation& op);
  const float* turns_of(const Operation& op, int64_t row) const {
    return op.rope == kNone ? nullptr : turns_.data() + (op.rope * batch_.rows() + row) * shape_.rotary_dim;
  }
  AttentionJob attention_job(const Operation& op, int64_t unit);
  ScoreRules score_rules(const Operation& op, int64_t unit) const;
  void attend(const Operation& op, int64_t unit, int64_t tile_begin, int64_t tile_end, float* scratch);
  void merge_cut(const Operation& op, const CutUnit& cut);

  struct TileBytes {
    const uint8_t* data;
    size_t bytes;
  };
  // A tile of a linear operation, all of whose maps' tiles are numbered in one line.
  TileBytes tile_bytes(const Operation& op, int64_t tile) const;

  // body(row, scratch) for each row of a buffer; by one thread where there is little to do.
  template <class Body>
  void for_rows(const Buffer& buffer, Body body);
  // compute(row, out) leaves a row of `buffer` in out; it is then kept in the forms the buffer has.
  template <class Compute>
  void make_rows(const Buffer& buffer, Compute compute);

  const Chunk& chunk_of(int64_t unit) const { return chunks_[static_cast<size_t>(unit / shape_.kv_heads)]; }
  const Buffer& at(int32_t id) const { return buffers_[static_cast<size_t>(id)]; }
  int64_t rows_of(const Buffer& buffer) const {
    return buffer.per_logit_row ? static_cast<int64_t>(batch_.logit_rows.size()) : batch_.rows();
  }

  Model& model_;
  const std::vector<Buffer>& buffers_;
  const Batch& batch_;
  const ModelShape& shape_;
  ThreadPool& pool_;
  const LinearKernels& linear_;
  const RowKernels& row_;
  const AttentionKernels& attention_;

  const Program& program_;
  std::vector<int32_t> seq_of_row_;      // [T]
  bool adapted_ = false;                 // some sequence has an adapter
  std::vector<float> turns_;             // [tables, T, rotary_dim]: cosines, then sines
  std::vector<Chunk> chunks_;            // of all sequences
  std::vector<AttentionCut> attention_cuts_;  // [threads + 1]: where each thread's tiles begin
  std::vector<CutUnit> cut_units_;
  std::vector<const Operation*> put_off_;  // small operations that the next divided one begins with
  TileShares tile_shares_;
  std::vector<LinearScratch> linear_scratch_;  // of each thread, for the operation in hand
};

// Below this many values a hand-over to other threads costs more than it saves.
constexpr int64_t kRowsWorthSharing = 8192;

template <class Work>
void Executor::spread(const Operation& op, Work work) {
  alignas(64) std::atomic<int> ready{put_off_.empty()};  // polled by others: on a line of its own
  pool_.run([&](int thread) {
    if (thread == 0) {
      do_put_off();
      ready.store(1, std::memory_order_seq_cst);  // see ThreadPool::Workers::wake
      ready.notify_all();
    } else {
      fetch_until(ready, op, thread);
    }
    work(thread);
  });
}

template <class Body>
void Executor::for_rows(const Buffer& buffer, Body body) {
  const int64_t rows = rows_of(buffer);
  const bool share = shared(buffer);
  const auto part = [&](int thread) {
    const Range mine = share ? partition(rows, 1, thread, pool_.size()) : Range{0, rows};
    for (int64_t row = mine.begin; row < mine.end; ++row) body(row, model_.scratch(thread));
  };
  if (share) {
    pool_.run(part);
  } else {
    part(0);
  }
}

template <class Compute>
void Executor::make_rows(const Buffer& buffer, Compute compute) {
  for_rows(buffer, [&](int64_t row, float* scratch) {
    float* out = buffer.f32 ? buffer.row(row) : scratch;
    compute(row, out);
    if (buffer.q8) linear_.quantize_row(out, buffer.width, buffer.q8_row(row));
  });
}

// Rows that attend together share each load of a key or value; more of them would leave the first-level cache.
constexpr int64_t kMostQueries = 96;
constexpr int64_t kMostChunkRows = 32;

// Floats of scratch that each thread needs.
size_t scratch_floats(const ModelShape& shape, const Program& program);

// Floats for the records of attention units that threads share: at most one unit for each cut, all of whose tiles but the
// first may have records of their own.
size_t cut_records_floats(const ModelShape& shape, int64_t max_context, int threads);

}  // namespace herd
