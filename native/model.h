// One loaded model: weights, programs, adapters, the KV cache, and what the last step left.
//
// Not safe for several threads at once. Every array of a batch is checked before a pointer is followed.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "arena.h"
#include "batch.h"
#include "isa.h"
#include "kv_cache.h"
#include "program.h"
#include "sampler.h"
#include "thread_pool.h"
#include "weights.h"

namespace herd {

// How a layer's queries and keys turn: rotary_dim / 2 radians per position; cosines and sines are multiplied by `scale`.
struct RotaryTable {
  std::vector<double> inverse_frequencies;
  double scale;
};

class Model {
 public:
  // `rotary_tables` by the numbers that operations give; `alibi_slopes` one a head, or empty.
  Model(std::shared_ptr<ThreadPool> pool, Isa isa, const ModelShape& shape, const Limits& limits, bool kv_half,
        int64_t num_blocks, std::vector<RotaryTable> rotary_tables, std::vector<float> alibi_slopes = {});

  // Memory for attention units that threads share (see executor.h); what is never needed is never touched.
  // Throws std::invalid_argument for sizes that the constructor refuses.
  static size_t cut_records_bytes(const ModelShape& shape, const Limits& limits, int threads);

  // Each returns the id by which operations name it.
  int32_t add_matrix(PackedWeight weight);
  int32_t add_vector(std::vector<float> values);
  int32_t add_program(Program program);
  int32_t add_adapter(LowRankAdapter adapter);

  // Packs with all threads; `rows` of blocks are `stride` bytes apart.
  PackedWeight pack(BlockType type, int64_t rows, int64_t cols, const uint8_t* file_rows, size_t stride);

  // Runs a program for one step. Its logits and kept rows stay until the next forward.
  void forward(int32_t program, const Batch& batch);

  int64_t step() const { return step_; }  // number of the last forward; 0 before the first
  int64_t num_logit_rows() const { return num_logit_rows_; }
  const float* logits(int64_t row) const { return logits_ + row * shape_.vocab_size; }
  const std::vector<float>& kept(int32_t tap) const;

  const KVCache& cache() const { return cache_; }
  const ModelShape& shape() const { return shape_; }
  ThreadPool& pool() { return *pool_; }
  RowSampler& row_sampler(int thread) { return row_samplers_[static_cast<size_t>(thread)]; }
  Isa isa() const { return isa_; }

 private:
  friend class Executor;

  size_t scratch_bytes() const { return scratch_floats_ * sizeof(float); }  // of each thread
  float* scratch(int thread) const {
    return reinterpret_cast<float*>(scratch_.data()) + static_cast<size_t>(thread) * scratch_floats_;
  }

  float* cut_records() const { return reinterpret_cast<float*>(cut_records_.data()); }

  // The most columns of a quantised matrix.
  int64_t widest_input() const;

  struct Loaded {
    Program program;
    std::vector<Buffer> buffers;
  };

  std::shared_ptr<ThreadPool> pool_;
  Isa isa_;
  ModelShape shape_;
  Limits limits_;
  KVCache cache_;
  std::vector<RotaryTable> rotary_tables_;
  std::vector<float> alibi_slopes_;
  WeightMemory weight_memory_;
  Weights weights_;
  std::vector<LowRankAdapter> adapters_;
  std::vector<Loaded> programs_;
  Arena arena_;  // buffers of whichever program runs
  size_t arena_bytes_ = 0;
  Arena scratch_;  // of each thread in turn
  size_t scratch_floats_ = 0;
  Arena cut_records_;  // cut_records_bytes

  std::vector<RowSampler> row_samplers_;  // one a thread

  // Atomic, because threads look at them while another computes.
  std::atomic<int64_t> step_{0};
  std::atomic<int64_t> num_logit_rows_{0};
  const float* logits_ = nullptr;
  std::vector<std::vector<float>> kept_;
};

}  // namespace herd
