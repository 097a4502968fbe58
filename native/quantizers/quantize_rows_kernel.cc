// Sixteen scales' worth of values at a time: gather, search, measure, store.
#include "quantizers/quantize_rows.h"

#include "quantizers/store_codes.h"
#include "quantizers/super_block.h"
#include "quantizers/transpose.h"

namespace herd::HERD_ISA_NS {
namespace {

// A group's values and, once searched, its codes. Lanes past the last block of the job repeat its first.
template <int kLen>
struct Group {
  Lanes<kLen> lanes;
  uint8_t codes[kLanes][kLen];  // as stored: with the type's offset
};

template <int kLen>
void gather(const QuantizeJob& job, int64_t scales, int64_t first, Group<kLen>& g) {
  const float *values[kLanes], *counts[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int64_t scale = first + lane < scales ? first + lane : first;
    values[lane] = job.x + scale * kLen;
    counts[lane] = job.importance ? job.importance + scale * kLen % job.cols : nullptr;
  }
  alignas(64) float x[kLen][kLanes], w[kLen][kLanes];
  put_side_by_side<kLen>(values, x);
  if (job.importance) put_side_by_side<kLen>(counts, w);
  f32x16 power = splat(0.0f);
  for (int i = 0; i < kLen; ++i) {
    g.lanes.x[i] = load(x[i]);
    power = power + g.lanes.x[i] * g.lanes.x[i];
  }
  const f32x16 least = power * splat(mean_share(job.type) / kLen);
  for (int i = 0; i < kLen; ++i)
    g.lanes.w[i] = job.importance ? load(w[i]) : least + g.lanes.x[i] * g.lanes.x[i];
}

// Codes for the lanes' lines, stored plus `offset`, and what they cost: in every column alike where nothing else is given.
template <int kLen>
void encode(Group<kLen>& g, const Line& line, float lo, float hi, int offset, bool affine, int lanes, bool weighted,
            BlockError* errors) {
  const f32x16 inv = inverse(line.d);
  f32x16 squared = splat(0.0f), power = splat(0.0f);
  uint8_t codes[kLen][kLanes];
  for (int i = 0; i < kLen; ++i) {
    const f32x16 x = g.lanes.x[i];
    const f32x16 q = nearest_code((affine ? x - line.m : x) * inv, lo, hi);
    const f32x16 product = line.d * q, e = x - (affine ? product + line.m : product);
    const f32x16 counts = weighted ? g.lanes.w[i] : splat(1.0f);
    squared = squared + counts * e * e;
    power = power + counts * x * x;
    store_s8(reinterpret_cast<int8_t*>(codes[i]), to_i32(q) + splat(int32_t{offset}));
  }
  put_one_after_another<kLen>(codes, g.codes);
  float lane_squared[kLanes], lane_power[kLanes];
  store(lane_squared, squared);
  store(lane_power, power);
  for (int lane = 0; lane < lanes; ++lane) errors[lane] = {lane_squared[lane], lane_power[lane]};
}

const Grid& grid_of(const QuantizeJob& job) { return job.importance ? kMany : kFew; }

// --- Blocks of 32 ---------------------------------------------------------------------------------------------------

template <class Format>
void quantize_symmetric_32(const QuantizeJob& job, int64_t scales, int64_t begin, int64_t end) {
  for (int64_t group = begin; group < end; ++group) {
    const int64_t first = group * kLanes;
    const int lanes = static_cast<int>(scales - first < kLanes ? scales - first : kLanes);
    Group<32> g;
    gather<32>(job, scales, first, g);
    const Line line{search_scale(g.lanes, Format::kCodes, grid_of(job), 3, RoundF16()), splat(0.0f)};
    encode(g, line, Format::kCodes.lo, Format::kCodes.hi, Format::kOffset, false, lanes, job.importance, job.errors + first);
    float d[kLanes];
    store(d, line.d);
    for (int lane = 0; lane < lanes; ++lane)
      Format::put(job.out + (first + lane) * Format::kBytes, d[lane], g.codes[lane]);
  }
}

template <class Format>
void quantize_affine_32(const QuantizeJob& job, int64_t scales, int64_t begin, int64_t end) {
  for (int64_t group = begin; group < end; ++group) {
    const int64_t first = group * kLanes;
    const int lanes = static_cast<int>(scales - first < kLanes ? scales - first : kLanes);
    Group<32> g;
    gather<32>(job, scales, first, g);
    const Line line = search_line(g.lanes, AffineRange{Format::kTop, true}, grid_of(job), 3, RoundF16());
    encode(g, line, 0.0f, Format::kTop, 0, true, lanes, job.importance, job.errors + first);
    float d[kLanes], m[kLanes];
    store(d, line.d);
    store(m, line.m);
    for (int lane = 0; lane < lanes; ++lane)
      Format::put(job.out + (first + lane) * Format::kBytes, d[lane], m[lane], g.codes[lane]);
  }
}

struct Q4_0 {
  static constexpr SymmetricRange kCodes{-8, 7, true};
  static constexpr int kOffset = 8, kBytes = 18;
  static void put(uint8_t* out, float d, const uint8_t* codes) { put_nibbles(put_half(out, d), codes, 32, 16); }
};

struct Q5_0 {
  static constexpr SymmetricRange kCodes{-16, 15, true};
  static constexpr int kOffset = 16, kBytes = 22;
  static void put(uint8_t* out, float d, const uint8_t* codes) {
    put_nibbles(put_fifth_bits(put_half(out, d), codes), codes, 32, 16);
  }
};

struct Q8_0 {
  static constexpr SymmetricRange kCodes{-127, 127, false};
  static constexpr int kOffset = 0, kBytes = 34;
  static void put(uint8_t* out, float d, const uint8_t* codes) { std::memcpy(put_half(out, d), codes, 32); }
};

struct Q4_1 {
  static constexpr float kTop = 15;
  static constexpr int kBytes = 20;
  static void put(uint8_t* out, float d, float m, const uint8_t* codes) {
    put_nibbles(put_half(put_half(out, d), m), codes, 32, 16);
  }
};

struct Q5_1 {
  static constexpr float kTop = 31;
  static constexpr int kBytes = 24;
  static void put(uint8_t* out, float d, float m, const uint8_t* codes) {
    put_nibbles(put_fifth_bits(put_half(put_half(out, d), m), codes), codes, 32, 16);
  }
};

// --- K-quants -------------------------------------------------------------------------------------------------------

template <class Format>
void quantize_symmetric_super(const QuantizeJob& job, int64_t scales, int64_t begin, int64_t end) {
  for (int64_t group = begin; group < end; ++group) {  // one super-block
    Group<16> g;
    gather<16>(job, scales, group * kLanes, g);
    const SymmetricScales s = search_symmetric_scales<16>(g.lanes, Format::kCodes, Format::kScales, grid_of(job));
    encode(g, Line{s.super * s.sub, splat(0.0f)}, Format::kCodes.lo, Format::kCodes.hi, Format::kOffset, false, kLanes,
           job.importance, job.errors + group * kLanes);
    float super[kLanes], sub[kLanes];
    store(super, s.super);
    store(sub, s.sub);
    Format::put(job.out + group * Format::kBytes, super[0], sub, g.codes[0]);
  }
}

template <class Format>
void quantize_affine_super(const QuantizeJob& job, int64_t scales, int64_t begin, int64_t end) {
  constexpr int kSubs = 256 / Format::kLen;
  for (int64_t group = begin; group < end; ++group) {
    const int64_t first = group * kLanes;
    const int lanes = static_cast<int>(scales - first < kLanes ? scales - first : kLanes);
    Group<Format::kLen> g;
    gather<Format::kLen>(job, scales, first, g);
    const AffineScales s = search_affine_scales<kSubs>(g.lanes, Format::kTop, Format::kScales, grid_of(job));
    encode(g, s.line(), 0.0f, Format::kTop, 0, true, lanes, job.importance, job.errors + first);
    float super[kLanes], sub[kLanes], super_min[kLanes], sub_min[kLanes];
    store(super, s.super);
    store(sub, s.sub);
    store(super_min, s.super_min);
    store(sub_min, s.sub_min);
    for (int lane = 0; lane < lanes; lane += kSubs) {
      uint8_t sc[kSubs], mn[kSubs];
      for (int i = 0; i < kSubs; ++i) {
        sc[i] = static_cast<uint8_t>(sub[lane + i]);
        mn[i] = static_cast<uint8_t>(sub_min[lane + i]);
      }
      Format::put(job.out + (first + lane) / kSubs * Format::kBytes, super[lane], super_min[lane], sc, mn, g.codes[lane]);
    }
  }
}

struct Q2_K {
  static constexpr float kTop = 3;
  static constexpr int kLen = 16, kBytes = 84;
  static constexpr ScaleRange kScales{0, 15};
  static void put(uint8_t* out, float d, float m, const uint8_t* sc, const uint8_t* mn, const uint8_t* codes) {
    for (int i = 0; i < 16; ++i) out[i] = static_cast<uint8_t>(sc[i] | mn[i] << 4);
    put_planes(out + 16, codes, 256, 32, 2, 0);
    put_half(put_half(out + 80, d), m);
  }
};

struct Q4_K {
  static constexpr float kTop = 15;
  static constexpr int kLen = 32, kBytes = 144;
  static constexpr ScaleRange kScales{0, 63};
  static void put(uint8_t* out, float d, float m, const uint8_t* sc, const uint8_t* mn, const uint8_t* codes) {
    put_scales_and_mins(put_half(put_half(out, d), m), sc, mn);
    put_nibbles(out + 16, codes, 256, 32);
  }
};

struct Q5_K {
  static constexpr float kTop = 31;
  static constexpr int kLen = 32, kBytes = 176;
  static constexpr ScaleRange kScales{0, 63};
  static void put(uint8_t* out, float d, float m, const uint8_t* sc, const uint8_t* mn, const uint8_t* codes) {
    put_scales_and_mins(put_half(put_half(out, d), m), sc, mn);
    put_planes(out + 16, codes, 256, 32, 1, 4);
    put_nibbles(out + 48, codes, 256, 32);
  }
};

struct Q3_K {
  static constexpr SymmetricRange kCodes{-4, 3, true};
  static constexpr ScaleRange kScales{-32, 31};
  static constexpr int kOffset = 4, kBytes = 110;
  static void put(uint8_t* out, float d, const float* sub, const uint8_t* codes) {
    uint8_t sc[16];
    for (int i = 0; i < 16; ++i) sc[i] = static_cast<uint8_t>(static_cast<int>(sub[i]) + 32);
    put_planes(out, codes, 256, 32, 1, 2);
    put_planes(out + 32, codes, 256, 32, 2, 0);
    put_six_bit_scales(out + 96, sc);
    put_half(out + 108, d);
  }
};

struct Q6_K {
  static constexpr SymmetricRange kCodes{-32, 31, true};
  static constexpr ScaleRange kScales{-128, 127};
  static constexpr int kOffset = 32, kBytes = 210;
  static void put(uint8_t* out, float d, const float* sub, const uint8_t* codes) {
    put_nibbles(out, codes, 256, 64);
    put_planes(out + 128, codes, 256, 32, 2, 4);
    for (int i = 0; i < 16; ++i) out[192 + i] = static_cast<uint8_t>(static_cast<int>(sub[i]));
    put_half(out + 208, d);
  }
};

void quantize(const QuantizeJob& job, int64_t scales, int64_t begin, int64_t end) {
  switch (job.type) {
    case BlockType::q4_0: return quantize_symmetric_32<Q4_0>(job, scales, begin, end);
    case BlockType::q5_0: return quantize_symmetric_32<Q5_0>(job, scales, begin, end);
    case BlockType::q8_0: return quantize_symmetric_32<Q8_0>(job, scales, begin, end);
    case BlockType::q4_1: return quantize_affine_32<Q4_1>(job, scales, begin, end);
    case BlockType::q5_1: return quantize_affine_32<Q5_1>(job, scales, begin, end);
    case BlockType::q2_k: return quantize_affine_super<Q2_K>(job, scales, begin, end);
    case BlockType::q4_k: return quantize_affine_super<Q4_K>(job, scales, begin, end);
    case BlockType::q5_k: return quantize_affine_super<Q5_K>(job, scales, begin, end);
    case BlockType::q3_k: return quantize_symmetric_super<Q3_K>(job, scales, begin, end);
    case BlockType::q6_k: return quantize_symmetric_super<Q6_K>(job, scales, begin, end);
    default: return;
  }
}

}  // namespace

extern const QuantizeKernels quantize_kernels_of_isa;
const QuantizeKernels quantize_kernels_of_isa{quantize};

}  // namespace herd::HERD_ISA_NS
