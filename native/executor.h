// Runs one program for one batch: operation after operation, each divided among the pool's threads.
#pragma once

#include <cstdint>
#include <vector>

#include "attention.h"
#include "linear.h"
#include "model.h"
#include "row_kernels.h"

namespace herd {

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
  };

  void embed(const Operation& op);
  void rms_norm(const Operation& op);
  void silu_mul(const Operation& op);
  void add(const Operation& op);
  void keep(const Operation& op);
  void pick_rows(const Operation& op);

  void linear(const Operation& op);
  void linear_part(const Operation& op, size_t map, int64_t tile_begin, int64_t tile_end);
  void add_adapters(const Operation& op, size_t map);
  void add_adapter(const Operation& op, size_t map, const LowRankAdapter& adapter, const LowRankPair& pair,
                   const std::vector<int64_t>& rows);
  int32_t adapter_of(const Buffer& buffer, int64_t row) const;

  void turn_angles();
  void divide_attention();
  void store_kv(const Operation& op);
  void store_row(const Operation& op, int64_t row, float* scratch);
  void attention(const Operation& op);
  void attend(const Operation& op, const Chunk& chunk, int64_t first_head, int64_t heads, float* scratch);

  // body(row, scratch) for each row of a buffer; by one thread where there is little to do.
  template <class Body>
  void for_rows(const Buffer& buffer, Body body);
  // compute(row, out) leaves a row of `buffer` in out; it is then kept in the forms the buffer has.
  template <class Compute>
  void make_rows(const Buffer& buffer, Compute compute);

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
  std::vector<float> turns_;             // [T, rotary_dim]: cosines, then sines
  std::vector<Chunk> chunks_;            // of all sequences
  std::vector<int64_t> attention_parts_;  // [threads + 1]: where each thread's (chunk, head) pairs begin
};

// Below this many values a hand-over to other threads costs more than it saves.
constexpr int64_t kRowsWorthSharing = 8192;

template <class Body>
void Executor::for_rows(const Buffer& buffer, Body body) {
  const int64_t rows = rows_of(buffer);
  const bool share = rows > 1 && rows * buffer.width >= kRowsWorthSharing;
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

}  // namespace herd
