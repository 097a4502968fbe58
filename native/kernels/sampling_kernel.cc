#include "sampling_kernels.h"

#include "philox.h"
#include "simd.h"

namespace herd::HERD_ISA_NS {
namespace {

constexpr float kInfinity = __builtin_inff();

// Vector i of x; lanes past n read as -inf, which no pass below counts.
HERD_INLINE f32x16 load_padded(const float* x, int64_t i, int64_t n) {
  if (i + kLanes <= n) return load(x + i);
  const int lanes = static_cast<int>(n - i);
  return select(first_lanes(lanes), load_first(x + i, lanes), splat(-kInfinity));
}

LogitExtent extent(const float* x, int64_t n) {
  f32x16 highest = splat(-kInfinity);
  i32x16 nan = splat(int32_t{0});
  for (int64_t i = 0; i < n; i += kLanes) {
    const f32x16 v = load_padded(x, i, n);
    highest = max(v, highest);
    nan = nan | (v != v);
  }
  return {reduce_max(highest), reduce_sum(nan) != 0};
}

double sum_exp(const float* x, int64_t n, float shift, float scale) {
  constexpr int64_t kRun = 4096;
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kRun) {
    const int64_t end = begin + kRun < n ? begin + kRun : n;
    f32x16 sum = splat(0.0f);
    for (int64_t i = begin; i < end; i += kLanes)
      sum = sum + exp((load_padded(x, i, n) - splat(shift)) * splat(scale));
    total += static_cast<double>(reduce_sum(sum));
  }
  return total;
}

// Appends the ids i + lane of the lanes that are true.
HERD_INLINE int64_t append(const i32x16& lanes, int64_t i, int32_t* ids, int64_t count) {
  if (reduce_sum(lanes) == 0) return count;
  int32_t flags[kLanes];
  store(flags, lanes);
  for (int lane = 0; lane < kLanes; ++lane)
    if (flags[lane] != 0) ids[count++] = static_cast<int32_t>(i + lane);
  return count;
}

int64_t collect(const float* x, int64_t n, float threshold, int32_t* ids) {
  int64_t count = 0;
  const f32x16 low = splat(threshold);
  for (int64_t i = 0; i < n; i += kLanes) {
    const f32x16 v = load_padded(x, i, n);
    const i32x16 inside = first_lanes(static_cast<int>(n - i < kLanes ? n - i : kLanes));
    count = append(((v > low) | (v == low)) & inside, i, ids, count);
  }
  return count;
}

int64_t contenders(const float* x, int64_t n, float shift, float temperature, DrawKey key, float score, int32_t* ids) {
  // The noise is below 23.6, since 1 - u >= 2^-33: what lies further below the score cannot reach it. One per cent of
  // slack covers the rounding of the quotient and of the exponential.
  constexpr float kHighestNoise = 23.6f, kSlack = 1.01f;
  int64_t count = 0;
  for (int64_t i = 0; i < n; i += kLanes) {
    const f32x16 lead = (load_padded(x, i, n) - splat(shift)) / splat(temperature) - splat(score);
    if (!(reduce_max(lead) > -kHighestNoise)) continue;
    alignas(64) uint32_t words[kLanes];
    philox_words<kLanes>(static_cast<uint32_t>(i), key.seed, key.place, words);
    int32_t above[kLanes];  // 2^24 (1 - u), rounded down
    for (int lane = 0; lane < kLanes; ++lane) above[lane] = static_cast<int32_t>(~words[lane] >> 8);
    const f32x16 reach = exp(lead) * splat(kSlack * 0x1p24f);
    const i32x16 far = lead < splat(-kHighestNoise);
    const i32x16 near = far == splat(int32_t{0});
    count = append((to_f32(load(above)) < reach + splat(0x1p-10f)) & near, i, ids, count);
  }
  return count;
}

}  // namespace

extern const SamplingKernels sampling_kernels;
const SamplingKernels sampling_kernels{extent, sum_exp, collect, contenders};

}  // namespace herd::HERD_ISA_NS
