// Forward passes: the same bits with any number of threads, in any company, again and again; instruction sets agree.
#include <cmath>
#include <cstring>
#include <thread>

#include "check.h"
#include "random_model.h"

namespace herd {
namespace {

using test::random_model;
using test::run;
using test::some_ids;
using test::Step;

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

std::vector<float> first_logits(std::vector<float> seen, int64_t rows) {
  seen.resize(static_cast<size_t>(rows * test::kVocab));
  return seen;
}

// A prompt of 70 positions crosses a tile's end; then one token; then both sequences at once.
std::vector<float> conversation(Model& model) {
  std::vector<float> seen = run(model, Step().add(some_ids(70, 1), 0, 0));
  for (const Step& step : {Step().add({5}, 70, 0), Step().add({6}, 71, 0).add(some_ids(33, 2), 0, 8)}) {
    const std::vector<float> more = run(model, step);
    seen.insert(seen.end(), more.begin(), more.end());
  }
  return seen;
}

HERD_TEST(bits_do_not_depend_on_threads) {
  for (const Isa isa : available_isas())
    for (const bool half : {false, true}) {
      const auto alone = conversation(*random_model(std::make_shared<ThreadPool>(1), isa, BlockType::q8_0, half));
      for (const float value : alone) CHECK(std::isfinite(value));
      for (const int threads : {2, 3, 7})
        CHECK(same_bits(alone, conversation(*random_model(std::make_shared<ThreadPool>(threads), isa, BlockType::q8_0, half))));
    }
}

HERD_TEST(a_step_again_has_the_same_bits) {
  const auto model = random_model(std::make_shared<ThreadPool>(3), available_isas().front(), BlockType::q4_1, true);
  const auto once = conversation(*model);
  for (int round = 0; round < 20; ++round) CHECK(same_bits(once, conversation(*model)));
}

// Four rows are too few to divide norms and the cache's writes, which are put off to an attention that threads share: its cuts
// fall inside a KV head, and some threads begin when the rows they read have just been written.
HERD_TEST(shared_attention_begins_with_what_was_put_off) {
  const auto ids = some_ids(8, 7);
  const auto steps = [&](Model& model) {
    std::vector<float> seen = run(model, Step().add(some_ids(110, 8), 0, 0));
    for (const int32_t first : {0, 4}) {
      const std::vector<float> more = run(model, Step().add({ids.begin() + first, ids.begin() + first + 4}, 110 + first, 0));
      seen.insert(seen.end(), more.begin(), more.end());
    }
    return seen;
  };
  const Isa isa = available_isas().front();
  const auto alone = steps(*random_model(std::make_shared<ThreadPool>(1), isa, BlockType::q4_0, true));
  for (const int threads : {2, 3, 7}) {
    const auto model = random_model(std::make_shared<ThreadPool>(threads), isa, BlockType::q4_0, true);
    for (int round = 0; round < 10; ++round) CHECK(same_bits(alone, steps(*model)));
  }
}

HERD_TEST(a_sequence_does_not_see_its_company) {
  const auto model = random_model(std::make_shared<ThreadPool>(2), available_isas().front(), BlockType::q5_0, true);
  const auto ids = some_ids(20, 3);
  const auto alone = run(*model, Step().add(ids, 0, 0));
  const auto with = run(*model, Step().add(ids, 0, 0).add(some_ids(50, 4), 0, 8).add({1}, 0, 16));
  CHECK(same_bits(first_logits(alone, 20), first_logits(with, 20)));
}

HERD_TEST(instruction_sets_agree) {
  const Step step = Step().add(some_ids(70, 5), 0, 0);
  for (const BlockType type : {BlockType::f32, BlockType::q8_0}) {
    const auto expected = run(*random_model(std::make_shared<ThreadPool>(1), Isa::portable, type, false), step);
    float largest = 0;
    for (const float value : expected) largest = std::max(largest, std::abs(value));
    for (const Isa isa : available_isas()) {
      if (isa == Isa::amx && !is_float(type)) continue;  // activations are other integers there
      const auto seen = run(*random_model(std::make_shared<ThreadPool>(1), isa, type, false), step);
      // A rounding that tips an activation's 8-bit code moves a logit by far more than a rounding does.
      const float tolerance = (is_float(type) ? 1e-4f : 2e-2f) * largest;
      for (size_t i = 0; i < seen.size(); ++i) CHECK(std::abs(seen[i] - expected[i]) <= tolerance);
    }
  }
}

HERD_TEST(rows_with_adapters) {
  const auto make = [](int threads) {
    auto model = random_model(std::make_shared<ThreadPool>(threads), available_isas().front(), BlockType::q8_0, true);
    test::add_random_adapter(*model, BlockType::q8_0, 1);
    test::add_random_adapter(*model, BlockType::f32, 2);
    return model;
  };
  const auto one = make(1), four = make(4);
  const auto ids = some_ids(25, 6);
  const auto plain = run(*one, Step().add(ids, 0, 0));
  const Step step = Step().add(ids, 0, 0, 0).add(ids, 0, 8, 1).add(ids, 0, 16);
  const auto adapted = run(*one, step);
  CHECK(!same_bits(first_logits(plain, 25), first_logits(adapted, 25)));
  for (int round = 0; round < 50; ++round) CHECK(same_bits(adapted, run(*four, step)));
}

HERD_TEST(models_take_turns_on_one_pool) {
  const auto pool = std::make_shared<ThreadPool>(2);
  const Isa isa = available_isas().front();
  const auto expected = conversation(*random_model(std::make_shared<ThreadPool>(1), isa, BlockType::q4_0, true, 1));
  std::vector<std::thread> callers;
  std::vector<int> right(3);
  for (size_t i = 0; i < right.size(); ++i)
    callers.emplace_back([&, i] {
      std::unique_ptr<Model> model;
      {
        const std::lock_guard turn(pool->turn());
        model = random_model(pool, isa, BlockType::q4_0, true, 1);
      }
      for (int round = 0; round < 5; ++round) {
        const std::lock_guard turn(pool->turn());
        right[i] += same_bits(expected, conversation(*model));
      }
    });
  for (auto& caller : callers) caller.join();
  CHECK(right == std::vector<int>(3, 5));
}

}  // namespace
}  // namespace herd
