// Draws from a step's logits: many at once on several threads, with every rule, as one at a time.
#include "check.h"
#include "random_model.h"
#include "sample_plan.h"

namespace herd {
namespace {

constexpr size_t kDraws = 24;

// The arrays of a plan in which every rule is used by some entry.
struct Draws {
  std::vector<int32_t> rows, top_k, num_top, mask_rows, dense_rows, count_starts{0}, bias_starts{0}, ids, counts;
  std::vector<float> temperature, top_p, min_p, repetition, presence, frequency, biases;
  std::vector<uint64_t> keys;
  std::vector<uint32_t> masks = std::vector<uint32_t>(4, 0xfffffff7u);
  std::vector<float> dense = std::vector<float>(test::kVocab, 0.25f);

  explicit Draws(size_t begin, size_t end) {
    constexpr float kTemperatures[] = {0, 0.7f, 1, 1e-20f}, kTopP[] = {1, 0.9f, 0.3f}, kMinP[] = {0, 0.1f};
    constexpr int32_t kTopK[] = {0, 1, 5, 101, 1000};
    for (size_t i = begin; i < end; ++i) {
      rows.push_back(static_cast<int32_t>(i % 7));
      temperature.push_back(kTemperatures[i % 4]);
      top_k.push_back(kTopK[i % 5]);
      top_p.push_back(kTopP[i % 3]);
      min_p.push_back(kMinP[i % 2]);
      repetition.push_back(1.1f);
      presence.push_back(0.1f);
      frequency.push_back(0.2f);
      keys.insert(keys.end(), {i, i * i + 1});
      mask_rows.push_back(i % 6 == 0 ? 0 : -1);
      dense_rows.push_back(i % 7 == 0 ? 0 : -1);
      num_top.push_back(static_cast<int32_t>(i % 5) - 1);
      if (i % 3 == 0) ids.push_back(static_cast<int32_t>(i)), counts.push_back(2), biases.push_back(-3.0f);
      count_starts.push_back(static_cast<int32_t>(ids.size()));
      bias_starts.push_back(static_cast<int32_t>(ids.size()));
    }
  }

  SamplePlan plan() const {
    return {rows, temperature, top_k, top_p, min_p, repetition, presence, frequency, keys, count_starts, ids, counts,
            bias_starts, ids, biases, mask_rows, masks, dense_rows, dense, num_top};
  }
};

struct Drawn {
  std::vector<int32_t> ids, top_ids;
  std::vector<float> logprobs, top_logprobs;
  bool operator==(const Drawn&) const = default;
};

Drawn draw(Model& model, const Draws& draws, size_t columns = 3) {
  const SamplePlan plan = draws.plan();
  const size_t n = plan.rows.size();
  Drawn out{std::vector<int32_t>(n), std::vector<int32_t>(n * columns), std::vector<float>(n), std::vector<float>(n * columns)};
  check_plan(plan, model.num_logit_rows(), test::kVocab);
  sample(model, plan, {out.ids.data(), out.logprobs.data(), static_cast<int64_t>(columns), out.top_ids.data(), out.top_logprobs.data()});
  return out;
}

HERD_TEST(draws_do_not_depend_on_threads_or_company) {
  for (const Isa isa : available_isas()) {
    const auto one = test::random_model(std::make_shared<ThreadPool>(1), isa, BlockType::q8_0, true);
    const auto four = test::random_model(std::make_shared<ThreadPool>(4), isa, BlockType::q8_0, true);
    const test::Step step = test::Step().add(test::some_ids(7, 1), 0, 0);
    run(*one, step);
    run(*four, step);
    const Drawn all = draw(*one, Draws(0, kDraws));
    for (const int32_t id : all.ids) CHECK(id >= 0 && id < test::kVocab);
    for (int round = 0; round < 20; ++round) CHECK(draw(*four, Draws(0, kDraws)) == all);
    for (size_t i = 0; i < kDraws; ++i) CHECK(draw(*four, Draws(i, i + 1)).ids.front() == all.ids[i]);
  }
}

HERD_TEST(plans_that_would_reach_outside_are_refused) {
  const auto spoilt = [](auto spoil) {
    Draws draws(0, kDraws);
    spoil(draws);
    return test::throws<std::invalid_argument>([&] { check_plan(draws.plan(), 7, test::kVocab); });
  };
  CHECK(!spoilt([](Draws&) {}));
  CHECK(spoilt([](Draws& draws) { draws.rows[3] = 7; }));
  CHECK(spoilt([](Draws& draws) { draws.rows.pop_back(); }));
  CHECK(spoilt([](Draws& draws) { draws.ids[1] = test::kVocab; }));
  CHECK(spoilt([](Draws& draws) { draws.count_starts[2] = 1000; }));
  CHECK(spoilt([](Draws& draws) { draws.bias_starts.back() = -1; }));
  CHECK(spoilt([](Draws& draws) { draws.mask_rows[0] = 1; }));
  CHECK(spoilt([](Draws& draws) { draws.dense_rows[0] = 1; }));
  CHECK(spoilt([](Draws& draws) { draws.temperature[0] = -1; }));
  CHECK(spoilt([](Draws& draws) { draws.top_p[0] = std::numeric_limits<float>::quiet_NaN(); }));
}

}  // namespace
}  // namespace herd
