// Numbers of strangers in every place where the core takes one: refused with an exception, or computed within bounds.
// A sanitizer sees the rest.
#include <limits>
#include <new>

#include "check.h"
#include "random_model.h"

namespace herd {
namespace {

using test::Step;

constexpr int32_t kNumbers[] = {-1, 0, 1, 15, 16, 31, 32, 100, 101, 127, 128, 129, 1 << 16, 1 << 24,
                                std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()};

int32_t number(std::mt19937& random) { return kNumbers[random() % std::size(kNumbers)]; }

std::vector<int32_t>& array_of(Step& step, uint32_t which) {
  std::vector<int32_t>* const arrays[] = {&step.token_ids, &step.positions, &step.seq_starts, &step.kv_lens,
                                          &step.block_tables, &step.adapters, &step.logit_rows, &step.tap_rows};
  return *arrays[which % std::size(arrays)];
}

void spoil(Step& step, std::mt19937& random) {
  std::vector<int32_t>& values = array_of(step, random());
  const size_t at = random() % values.size();
  switch (random() % 4) {
    case 0: values.pop_back(); break;
    case 1: values.insert(values.begin() + static_cast<int64_t>(at), number(random)); break;
    case 2: step.max_blocks = std::abs(number(random) % 9); break;
    default: values[at] = number(random);
  }
}

HERD_TEST(spoilt_steps_are_refused_or_run) {
  const auto model = test::random_model(std::make_shared<ThreadPool>(2), available_isas().front(), BlockType::q8_0, true);
  const Step sound = Step().add(test::some_ids(40, 1), 0, 0).add({3}, 0, 8);
  const auto expected = run(*model, sound);
  std::mt19937 random(5);
  int refused = 0, accepted = 0;
  for (int round = 0; round < 3000; ++round) {
    Step step = sound;
    const uint32_t times = 1 + random() % 3;
    for (uint32_t i = 0; i < times; ++i) spoil(step, random);
    try {
      model->forward(static_cast<int32_t>(random() % 64 == 0 ? number(random) : 0), step.batch());
      ++accepted;
    } catch (const std::invalid_argument&) {
      ++refused;
    }
  }
  CHECK(refused > 1000 && accepted > 100);
  CHECK(run(*model, sound) == expected);
}

// A program over the weights of random_model, with its numbers changed; what is accepted must run.
HERD_TEST(spoilt_programs_are_refused_or_run) {
  std::mt19937 random(6);
  int refused = 0, accepted = 0;
  for (int round = 0; round < 400; ++round) {
    const auto model = test::random_model(std::make_shared<ThreadPool>(1), available_isas().front(), BlockType::q8_0, true);
    Program program = test::random_program();
    const uint32_t times = 1 + random() % 2;
    for (uint32_t i = 0; i < times; ++i) test::spoil(program, number(random), random);
    try {
      const int32_t id = model->add_program(std::move(program));
      Step step = Step().add(test::some_ids(9, 1), 0, 0);
      model->forward(id, step.batch());
      ++accepted;
    } catch (const std::invalid_argument&) {
      ++refused;
    } catch (const std::bad_alloc&) {
      ++refused;
    }
  }
  CHECK(refused > 100 && accepted > 10);
}

HERD_TEST(sizes_of_weights_are_checked_before_memory_is_taken) {
  constexpr int64_t kSizes[] = {-1, 0, 1, 31, 32, 255, 256, int64_t{1} << 31, int64_t{1} << 47, int64_t{1} << 62,
                                std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()};
  for (uint32_t id = 0; id < 64; ++id)
    for (const int64_t rows : kSizes)
      for (const int64_t cols : kSizes) {
        try {
          const size_t bytes = PackedWeight::packed_bytes(block_type_from_id(id), rows, cols);
          CHECK(rows > 0 && cols > 0 && bytes >= static_cast<size_t>(rows));
        } catch (const std::invalid_argument&) {
        } catch (const std::length_error&) {
        }
      }
}

// Any byte may stand in a block: packing and reading back follow no number in it.
HERD_TEST(blocks_of_random_bytes) {
  std::mt19937 random(7);
  for (uint32_t id = 0; id < 64; ++id) {
    BlockType type;
    try {
      type = block_type_from_id(id);
    } catch (const std::invalid_argument&) {
      continue;
    }
    const BlockShape shape = block_shape(type);
    std::vector<uint8_t> rows(static_cast<size_t>(19 * 512 / shape.values * shape.bytes));
    for (uint8_t& byte : rows) byte = static_cast<uint8_t>(random());
    const PackedWeight weight = PackedWeight::pack(type, 19, 512, rows.data(), static_cast<size_t>(512 / shape.values * shape.bytes));
    std::vector<float> row(512), x(512, 1.0f), y(19);
    for (int64_t r = 0; r < 19; ++r) weight.dequantize_row(r, row.data());
    for (const Isa isa : available_isas()) {
      std::vector<ActivationBlock> blocks(static_cast<size_t>(activation_blocks(512)));
      linear_kernels(isa).quantize_row(x.data(), 512, blocks.data());
      LinearJob job{};
      job.weight = weight.view(), job.tile_end = weight.tiles(), job.rows = 1;
      job.x = x.data(), job.x_stride = 512, job.xq = blocks.data(), job.y = y.data(), job.y_stride = 19;
      linear_kernels(isa).linear(job);
    }
  }
}

}  // namespace
}  // namespace herd
