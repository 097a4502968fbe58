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

// `quantize` is not recorded: `complete` puts it behind an attention whose result a quantised weight reads.
enum class OpKind {
  embed, rms_norm, layer_norm, head_norm, linear, store_kv, attention, quantize, silu, gelu, gelu_tanh, silu_mul, gelu_mul,
  gelu_tanh_mul, experts, scale, clip, softcap, add, keep, pick_rows
};
constexpr int kOpKinds = static_cast<int>(OpKind::pick_rows) + 1;

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
  std::vector<int32_t> weights;        // matrices of embed, linear and experts; vectors of norms
  std::vector<int32_t> biases;         // linear, layer_norm: a vector for each weight, or kNone
  std::vector<int32_t> residuals;      // linear: a buffer for each weight, or kNone
  int32_t rope;  // store_kv, attention: a table of angles, or kNone
  int32_t layer;
  int32_t tap;
  int32_t window = 0;   // attention: positions that a query sees; 0: all before it
  float value = 0.0f;   // scale, clip, softcap; experts: how many a row has
  // Filled in by Program::divide.
  std::vector<int32_t> parts;   // linear: where each thread's part of the tiles of all maps begins, and where the last ends
  int32_t next_linear = kNone;  // the next linear operation after this one, whose weights are fetched while threads wait
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
  float attention_scale = 0.0f;    // of scores; 0: 1 / sqrt(head_dim)
  float attention_softcap = 0.0f;  // 0: none
  int64_t rotary_tables = 1;
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

  // Splits an attention with a quantised result in two, since heads of different threads make one row together. Throws
  // std::invalid_argument unless every index and every width fits.
  void complete(const ModelShape& shape, const Weights& weights);

  // Divides the tiles of linear operations among threads, by their bytes.
  void divide(const Weights& weights, int threads);

  int32_t num_taps() const;

  // Whether every linear map's input is kept in f32, as rows with an adapter need it.
  bool adapted() const;

  size_t arena_bytes(int64_t max_rows, int64_t max_logit_rows) const;
  std::vector<Buffer> place(std::byte* arena, int64_t max_rows, int64_t max_logit_rows) const;
};

}  // namespace herd
