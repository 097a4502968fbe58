#include "row_kernels.h"

#include "simd.h"

namespace herd::HERD_ISA_NS {
namespace {

// Calls body(i, lanes) for each vector of n values; the last may have fewer than 16 lanes.
template <class Body>
HERD_INLINE void for_vectors(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) body(i, kLanes);
  if (i < n) body(i, static_cast<int>(n - i));
}

HERD_INLINE f32x16 load_lanes(const float* from, int lanes) {
  return lanes == kLanes ? load(from) : load_first(from, lanes);
}

HERD_INLINE void store_lanes(float* to, const f32x16& v, int lanes) {
  if (lanes == kLanes) {
    store(to, v);
  } else {
    store_first(to, v, lanes);
  }
}

void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  f32x16 squares = splat(0.0f);
  for_vectors(n, [&](int64_t i, int lanes) {
    const f32x16 v = load_lanes(x + i, lanes);
    squares = fma(v, v, squares);
  });
  const f32x16 scale = splat(1.0f / __builtin_sqrtf(reduce_sum(squares) / static_cast<float>(n) + eps));
  for_vectors(n, [&](int64_t i, int lanes) {
    store_lanes(out + i, load_lanes(x + i, lanes) * scale * load_lanes(weight + i, lanes), lanes);
  });
}

void layer_norm(const float* x, const float* weight, const float* bias, int64_t n, float eps, float* out) {
  f32x16 total = splat(0.0f);
  for_vectors(n, [&](int64_t i, int lanes) { total = total + load_lanes(x + i, lanes); });
  const f32x16 mean = splat(reduce_sum(total) / static_cast<float>(n));
  f32x16 squares = splat(0.0f);
  for_vectors(n, [&](int64_t i, int lanes) {
    const f32x16 centred = select(first_lanes(lanes), load_lanes(x + i, lanes) - mean, splat(0.0f));
    squares = fma(centred, centred, squares);
  });
  const f32x16 scale = splat(1.0f / __builtin_sqrtf(reduce_sum(squares) / static_cast<float>(n) + eps));
  for_vectors(n, [&](int64_t i, int lanes) {
    const f32x16 normed = (load_lanes(x + i, lanes) - mean) * scale * load_lanes(weight + i, lanes);
    store_lanes(out + i, bias == nullptr ? normed : normed + load_lanes(bias + i, lanes), lanes);
  });
}

// out = activation(x) * up.
template <class Activation>
HERD_INLINE void activate(const float* x, const float* up, int64_t n, float* out, Activation activation) {
  for_vectors(n, [&](int64_t i, int lanes) {
    const f32x16 y = activation(load_lanes(x + i, lanes));
    store_lanes(out + i, up == nullptr ? y : y * load_lanes(up + i, lanes), lanes);
  });
}

void gelu(const float* x, const float* up, int64_t n, float* out) {
  activate(x, up, n, out, [](const f32x16& v) { return v * normal_cdf(v); });
}

void gelu_tanh(const float* x, const float* up, int64_t n, float* out) {
  activate(x, up, n, out, [](const f32x16& v) {
    constexpr float kTwoSqrt2OverPi = 1.59576912160573071f;
    const f32x16 u = splat(kTwoSqrt2OverPi) * fma(splat(0.044715f) * v, v * v, v);
    return v / (splat(1.0f) + exp(splat(0.0f) - u));  // (1 + tanh(u / 2)) / 2 = 1 / (1 + e^-u)
  });
}

void silu(const float* x, const float* up, int64_t n, float* out) {
  activate(x, up, n, out, [](const f32x16& v) { return v / (splat(1.0f) + exp(splat(0.0f) - v)); });
}

void softcap(const float* x, float cap, int64_t n, float* out) {
  const f32x16 limit = splat(cap);
  for_vectors(n, [&](int64_t i, int lanes) { store_lanes(out + i, limit * tanh(load_lanes(x + i, lanes) / limit), lanes); });
}

void silu_mul(const float* gate, const float* up, int64_t n, float* out) {
  const f32x16 one = splat(1.0f), zero = splat(0.0f);
  for_vectors(n, [&](int64_t i, int lanes) {
    const f32x16 g = load_lanes(gate + i, lanes);
    store_lanes(out + i, g / (one + exp(zero - g)) * load_lanes(up + i, lanes), lanes);
  });
}

void add_scaled(const float* x, float scale, int64_t n, float* out) {
  const f32x16 factor = splat(scale);
  for_vectors(n, [&](int64_t i, int lanes) {
    store_lanes(out + i, fma(factor, load_lanes(x + i, lanes), load_lanes(out + i, lanes)), lanes);
  });
}

void rotate(const float* x, const float* turns, int64_t rotary_dim, int64_t head_dim, float scale, float* out) {
  const int64_t half = rotary_dim / 2;
  const f32x16 factor = splat(scale);
  for_vectors(half, [&](int64_t i, int lanes) {
    const f32x16 left = load_lanes(x + i, lanes), right = load_lanes(x + half + i, lanes);
    const f32x16 cosine = load_lanes(turns + i, lanes), sine = load_lanes(turns + half + i, lanes);
    store_lanes(out + i, (left * cosine - right * sine) * factor, lanes);
    store_lanes(out + half + i, (right * cosine + left * sine) * factor, lanes);
  });
  for_vectors(head_dim - rotary_dim, [&](int64_t i, int lanes) {
    store_lanes(out + rotary_dim + i, load_lanes(x + rotary_dim + i, lanes) * factor, lanes);
  });
}

void to_f16(const float* x, int64_t n, uint16_t* out) {
  for_vectors(n, [&](int64_t i, int lanes) {
    uint16_t halves[kLanes];
    store_f16(halves, load_lanes(x + i, lanes));
    for (int lane = 0; lane < lanes; ++lane) out[i + lane] = halves[lane];
  });
}

}  // namespace

extern const RowKernels row_kernels;
const RowKernels row_kernels{rms_norm, layer_norm, silu_mul, gelu, gelu_tanh, silu, softcap, add_scaled, rotate, to_f16};

}  // namespace herd::HERD_ISA_NS
