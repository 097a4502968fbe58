// The quantisers under the sanitizers and on foreign processors: the same bytes and sums on every instruction set and number
// of threads, what the blocks stand for is near what went in, and numbers of strangers stay within the arrays. (That the
// bytes are those of the specification is held by tests/unit/native in Python.)
#include "quantizers/quantize_rows.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "packed_weight.h"

namespace herd {
namespace {

constexpr BlockType kTypes[] = {BlockType::q4_0, BlockType::q4_1, BlockType::q5_0, BlockType::q5_1, BlockType::q8_0,
                                BlockType::q2_k, BlockType::q3_k, BlockType::q4_k, BlockType::q5_k, BlockType::q6_k};
constexpr int64_t kRows = 5, kCols = 512;  // the last group of sixteen scales is not full for any type
constexpr int64_t kManyRows = 83;          // threads take six turns or more, the last one shorter

std::vector<float> weights(int64_t rows = kRows) {
  std::mt19937 random(3);
  std::vector<float> x(static_cast<size_t>(rows * kCols));
  for (float& value : x) value = static_cast<float>(random() % 4001) / 1000.0f - 2.0f;
  std::fill_n(x.begin(), 40, 0.0f);
  return x;
}

struct Quantized {
  std::vector<uint8_t> blocks;
  TotalError error;
};

Quantized quantized(ThreadPool& pool, Isa isa, BlockType type, const std::vector<float>& x, const float* importance) {
  const BlockShape shape = block_shape(type);
  const auto rows = static_cast<int64_t>(x.size()) / kCols;
  Quantized out{std::vector<uint8_t>(static_cast<size_t>(rows * kCols / shape.values * shape.bytes)), {}};
  out.error = quantize_rows(pool, isa, type, x.data(), importance, rows, kCols, out.blocks.data());
  return out;
}

HERD_TEST(quantisers_agree_whatever_the_set_and_the_threads) {
  std::vector<float> x = weights(kManyRows);
  x[1000] = std::nanf(""), x[2000] = -0.0f, x[3000] = std::numeric_limits<float>::infinity();  // sets compare alike
  std::vector<float> importance(kCols);
  for (int64_t i = 0; i < kCols; ++i) importance[static_cast<size_t>(i)] = static_cast<float>(i % 7 + 1);
  ThreadPool one(1), three(3);
  for (const BlockType type : kTypes)
    for (const float* counts : {static_cast<const float*>(nullptr), static_cast<const float*>(importance.data())}) {
      const Quantized plain = quantized(one, Isa::portable, type, x, counts);
      for (const Isa isa : available_isas()) {
        const Quantized other = quantized(three, isa, type, x, counts);
        CHECK(other.blocks == plain.blocks);
        // To the bit: a sum with a NaN is one.
        CHECK(std::memcmp(&other.error, &plain.error, sizeof plain.error) == 0);
      }
    }
}

HERD_TEST(quantised_rows_stand_for_what_went_in) {
  const std::vector<float> x = weights();
  ThreadPool pool(2);
  for (const BlockType type : kTypes) {
    const Quantized made = quantized(pool, default_isa(), type, x, nullptr);
    const size_t row_bytes = made.blocks.size() / kRows;
    const PackedWeight weight = PackedWeight::pack(type, kRows, kCols, made.blocks.data(), row_bytes);
    double squared = 0;
    for (int64_t r = 0; r < kRows; ++r) {
      std::vector<float> row(kCols);
      weight.dequantize_row(r, row.data());
      for (int64_t k = 0; k < kCols; ++k) {
        const double e = static_cast<double>(row[static_cast<size_t>(k)]) - x[static_cast<size_t>(r * kCols + k)];
        squared += e * e;
      }
    }
    CHECK(std::abs(squared - made.error.squared) < 1e-3 * squared + 1e-9);
    CHECK(made.error.squared < 0.1 * made.error.power);
  }
}

HERD_TEST(quantisers_survive_any_number) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  ThreadPool pool(1);
  for (const float odd : {kInfinity, -kInfinity, std::nanf(""), 3e38f, 1e-45f, -0.0f})
    for (const size_t stride : {1, 7, 2000}) {
      std::vector<float> x = weights();
      for (size_t i = 0; i < x.size(); i += stride) x[i] = odd;
      for (const BlockType type : kTypes)
        for (const Isa isa : available_isas()) quantized(pool, isa, type, x, nullptr);
    }
}

}  // namespace
}  // namespace herd
