// A model's forward pass as the recorder left it: fused operations over reused buffers.
// Mirrors openherd/kernels/program.py, which says what each operation means.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "arena.h"
#include "linear.h"
#include "weights.h"

namespace herd {

enum class OpKind { embed, rms_norm, linear, store_kv, attention, silu_mul, add, keep, pick_rows };

// Throws std::invalid_argument for a name that is not an operation.
OpKind op_kind_from_name(const std::string& name);

struct BufferSpec {
  int64_t width;
  bool per_logit_row;  // R rows, else T
  bool f32;
  bool q8;
};

constexpr int32_t kNone = -1;

struct Operation {
  OpKind kind;
  std::vector<int32_t> reads, writes;  // buffers
  std::vector<int32_t> weights;        // matrices of embed and linear; vectors of rms_norm
  std::vector<int32_t> biases;         // linear: a vector for each weight, or kNone
  std::vector<int32_t> residuals;      // linear: a buffer for each weight, or kNone
  bool rotated;
  int32_t layer;
  int32_t tap;
};

// Sizes of the model that operations are checked against.
struct ModelShape {
  int64_t layers;
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t rotary_dim;
  int64_t vocab_size;
  float norm_eps;
};

// Where a buffer lies in the arena; null where it has no such form.
struct Buffer {
  int64_t width;
  bool per_logit_row;
  float* f32;
  ActivationBlock* q8;
  float* row(int64_t r) const { return f32 + r * width; }
  ActivationBlock* q8_row(int64_t r) const { return q8 + r * activation_blocks(width); }
};

struct Program {
  std::vector<BufferSpec> buffers;
  std::vector<Operation> operations;
  int32_t output;

  // Gives a form f32 to what attention writes, which heads of different threads finish together, and throws
  // std::invalid_argument unless every index and every width fits.
  void complete(const ModelShape& shape, const Weights& weights);

  int32_t num_taps() const;

  // Whether every linear map's input is kept in f32, as rows with an adapter need it.
  bool adapted() const;

  size_t arena_bytes(int64_t max_rows, int64_t max_logit_rows) const;
  std::vector<Buffer> place(std::byte* arena, int64_t max_rows, int64_t max_logit_rows) const;
};

}  // namespace herd
