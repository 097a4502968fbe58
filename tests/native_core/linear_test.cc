// Every block type's kernel on every instruction set, against float64 over the rows read back one by one. (That those are
// what the file says is held by tests/unit/native in Python.) Sizes are odd, so that tails are taken.
#include "arena.h"
#include "linear.h"

#include <cmath>
#include <cstring>

#include "check.h"
#include "random_model.h"

namespace herd {
namespace {

constexpr BlockType kTypes[] = {BlockType::f32,  BlockType::f16,  BlockType::bf16, BlockType::q4_0,   BlockType::q4_1,
                                BlockType::q5_0, BlockType::q5_1, BlockType::q8_0, BlockType::q2_k,   BlockType::q3_k,
                                BlockType::q4_k, BlockType::q5_k, BlockType::q6_k, BlockType::iq4_nl, BlockType::mxfp4};
constexpr int64_t kRows = 37;  // two tiles and a part of a third
constexpr int64_t kMostColumns = 67;

// Blocks as quantize_row leaves them, and the values they stand for.
struct Activations {
  std::vector<float> x;
  std::vector<ActivationBlock> blocks;
  std::vector<double> values;
};

Activations activations(const LinearKernels& kernels, BlockType type, int64_t cols) {
  std::mt19937 random(7);
  Activations in;
  in.x.resize(static_cast<size_t>(kMostColumns * cols));
  for (float& x : in.x) x = static_cast<float>(random() % 4001) / 1000.0f - 2.0f;
  for (size_t i = 0; i < in.x.size(); i += 157) in.x[i] *= 30;  // outliers: blocks of 15 bits
  in.values.assign(in.x.begin(), in.x.end());
  if (is_float(type)) return in;
  const int64_t per_row = activation_blocks(cols);
  in.blocks.resize(static_cast<size_t>(kMostColumns * per_row));
  for (int64_t t = 0; t < kMostColumns; ++t) kernels.quantize_row(in.x.data() + t * cols, cols, in.blocks.data() + t * per_row);
  for (size_t i = 0; i < in.values.size(); ++i) {
    const ActivationBlock& block = in.blocks[i / kActivationBlock];
    const int code = (1 << kernels.fine_bits) * block.coarse[i % kActivationBlock] + block.fine[i % kActivationBlock];
    in.values[i] = static_cast<double>(block.scale) * code;
  }
  return in;
}

std::vector<float> multiply(const LinearKernels& kernels, const PackedWeight& weight, const Activations& in, int64_t columns,
                            LinearScratch* scratch) {
  std::vector<float> y(static_cast<size_t>(columns * weight.rows()));
  LinearJob job{};
  job.weight = weight.view();
  job.tile_end = weight.tiles();
  job.rows = columns;
  job.x = in.x.data();
  job.x_stride = weight.cols();
  job.xq = in.blocks.data();
  job.y = y.data();
  job.y_stride = weight.rows();
  job.scratch = scratch;
  kernels.linear(job);
  return y;
}

std::vector<float> multiply(const LinearKernels& kernels, const PackedWeight& weight, const Activations& in, int64_t columns) {
  const Arena memory(kernels.scratch_bytes(weight.cols()));
  LinearScratch scratch{.memory = memory.data()};
  return multiply(kernels, weight, in, columns, &scratch);
}

void check_type(Isa isa, BlockType type, int64_t cols) {
  std::mt19937 random(static_cast<uint32_t>(type));
  const BlockShape shape = block_shape(type);
  const std::vector<uint8_t> rows = test::random_rows(type, kRows, cols, random);
  const PackedWeight weight = PackedWeight::pack(type, kRows, cols, rows.data(), static_cast<size_t>(cols / shape.values * shape.bytes));
  const LinearKernels& kernels = linear_kernels(isa);
  const Activations in = activations(kernels, type, cols);
  const std::vector<float> all = multiply(kernels, weight, in, kMostColumns);
  for (const int64_t columns : {1, 2, 3, 5, 6, 8, 12, 17, 24, 33, 64}) {
    const std::vector<float> some = multiply(kernels, weight, in, columns);
    CHECK(std::memcmp(some.data(), all.data(), some.size() * sizeof(float)) == 0);
  }
  CHECK(multiply(kernels, weight, in, kMostColumns, nullptr) == all);
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t n = 0; n < kRows; ++n) {
    weight.dequantize_row(n, row.data());
    for (int64_t t = 0; t < kMostColumns; ++t) {
      double exact = 0, magnitude = 0;
      for (int64_t k = 0; k < cols; ++k) {
        const double term = in.values[static_cast<size_t>(t * cols + k)] * row[static_cast<size_t>(k)];
        exact += term, magnitude += std::abs(term);
      }
      // At most 2 roundings a k and some for scales (Higham 2002, 3.1); offsets can cancel, hence the factor of 8.
      const double bound = 8 * (2 * static_cast<double>(cols) + 5) * 0x1p-24 * magnitude + 1e-30;
      CHECK(std::abs(all[static_cast<size_t>(t * kRows + n)] - exact) <= bound);
    }
  }
}

HERD_TEST(linear_maps_of_every_type_and_instruction_set) {
  for (const Isa isa : available_isas())
    for (const BlockType type : kTypes) check_type(isa, type, is_float(type) ? 67 : 3 * std::max<int64_t>(32, block_shape(type).values));
}

// Maps of one input whose blocks are divided otherwise, in turn over one scratch, as queries, keys and values of mixed types.
HERD_TEST(one_scratch_serves_types_with_other_sub_blocks) {
  constexpr int64_t kCols = 512, kColumns = 20;
  for (const Isa isa : available_isas()) {
    const LinearKernels& kernels = linear_kernels(isa);
    const Activations in = activations(kernels, BlockType::q4_k, kCols);
    const Arena memory(kernels.scratch_bytes(kCols));
    LinearScratch scratch{.memory = memory.data()};
    for (const BlockType type : {BlockType::q4_k, BlockType::q6_k, BlockType::q4_1, BlockType::q2_k, BlockType::q4_k}) {
      std::mt19937 random(static_cast<uint32_t>(type));
      const BlockShape shape = block_shape(type);
      const std::vector<uint8_t> rows = test::random_rows(type, kRows, kCols, random);
      const PackedWeight weight =
          PackedWeight::pack(type, kRows, kCols, rows.data(), static_cast<size_t>(kCols / shape.values * shape.bytes));
      CHECK(multiply(kernels, weight, in, kColumns, &scratch) == multiply(kernels, weight, in, kColumns, nullptr));
    }
  }
}

HERD_TEST(weights_packed_by_many_threads_are_the_same) {
  std::mt19937 random(3);
  for (const BlockType type : kTypes) {
    const BlockShape shape = block_shape(type);
    const std::vector<uint8_t> rows = test::random_rows(type, 101, 256, random);
    const auto stride = static_cast<size_t>(256 / shape.values * shape.bytes);
    const PackedWeight alone = PackedWeight::pack(type, 101, 256, rows.data(), stride);
    const auto model = test::random_model(std::make_shared<ThreadPool>(4), Isa::portable, BlockType::q8_0, true);
    const PackedWeight shared = model->pack(type, 101, 256, rows.data(), stride);
    CHECK(alone.nbytes() == shared.nbytes());
    std::vector<float> a(256), b(256);
    for (int64_t r = 0; r < 101; ++r) {
      alone.dequantize_row(r, a.data());
      shared.dequantize_row(r, b.data());
      CHECK(std::memcmp(a.data(), b.data(), 1024) == 0);
    }
  }
}

}  // namespace
}  // namespace herd
