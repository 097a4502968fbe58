// Operations on one row of activations. Each result depends on that row alone, in one fixed order of float operations.
#pragma once

#include <cstdint>

#include "isa.h"

namespace herd {

struct RowKernels {
  // out = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, eq. 4). `out` may be `x`.
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out);

  // out = (x - mean) / sqrt(variance + eps) * weight + bias (Ba et al. 2016, eq. 4), without a bias if it is null. `out` may
  // be `x`.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, int64_t n, float eps, float* out);

  // out = gate / (1 + e^-gate) * up (Shazeer 2020). `out` may be either input.
  void (*silu_mul)(const float* gate, const float* up, int64_t n, float* out);

  // out = gelu(x) * up, or gelu(x) where `up` is null, and the same of silu and of gelu's approximation by tanh (Hendrycks
  // and Gimpel 2016, section 2). `out` may be either input.
  void (*gelu)(const float* x, const float* up, int64_t n, float* out);
  void (*gelu_tanh)(const float* x, const float* up, int64_t n, float* out);
  void (*silu)(const float* x, const float* up, int64_t n, float* out);

  // out = cap * tanh(x / cap). `out` may be `x`.
  void (*softcap)(const float* x, float cap, int64_t n, float* out);

  // out += scale * x.
  void (*add_scaled)(const float* x, float scale, int64_t n, float* out);

  // One head turned by its row's angles (Su et al. 2021, eq. 34, halves paired as in GPT-NeoX), times `scale`:
  // pair i is (x[i], x[i + rotary_dim / 2]); turns[] holds rotary_dim / 2 cosines, then as many sines. Dimensions past
  // rotary_dim are only scaled; rotary_dim 0 turns nothing.
  void (*rotate)(const float* x, const float* turns, int64_t rotary_dim, int64_t head_dim, float scale, float* out);

  // Between float32 and IEEE halves, nearest, ties to even.
  void (*to_f16)(const float* x, int64_t n, uint16_t* out);
};

const RowKernels& row_kernels(Isa isa);

}  // namespace herd
