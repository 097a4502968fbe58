// Passes over a row of V logits. Each has one fixed order of float operations, whatever thread runs it.
#pragma once

#include <cstdint>

#include "isa.h"

namespace herd {

struct LogitExtent {
  float max;  // of the numbers; -inf if there are none
  bool nan;   // some value is NaN
};

// The draw's key; see openherd/kernels/philox.py for how it becomes noise.
struct DrawKey {
  uint64_t seed, place;
};

struct SamplingKernels {
  LogitExtent (*extent)(const float* x, int64_t n);

  // Sum of e^((x - shift) * scale): float32 within runs of 4096 values, float64 across them.
  double (*sum_exp)(const float* x, int64_t n, float shift, float scale);

  // Writes the ids with x >= threshold, ascending, and returns how many there are; `ids` has room for n.
  int64_t (*collect)(const float* x, int64_t n, float threshold, int32_t* ids);

  // Ids whose (x - shift) / temperature + noise may reach `score`, ascending: every id that does, and few others.
  // The noise -ln(-ln u) exceeds c only if 1 - u < e^-c, which needs one exponential and no logarithm. `shift` is the
  // greatest x, so that differences of those that can reach the score are exact.
  int64_t (*contenders)(const float* x, int64_t n, float shift, float temperature, DrawKey key, float score,
                        int32_t* ids);
};

const SamplingKernels& sampling_kernels(Isa isa);

}  // namespace herd
