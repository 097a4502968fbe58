// The executor's mixtures of experts: rows are gathered by the experts they chose, and each expert's maps run over its rows.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "executor.h"

namespace herd {

// Of each expert the rows that chose it, ascending, and their weights: the softmax over a row's chosen.
std::vector<std::vector<std::pair<int64_t, float>>> Executor::choose_experts(const Operation& op) const {
  const Buffer& router = at(op.reads[1]);
  std::vector<std::vector<std::pair<int64_t, float>>> rows_of_expert(static_cast<size_t>(router.width));
  std::vector<int64_t> ranked(rows_of_expert.size());
  const auto chosen = static_cast<int64_t>(op.value);
  for (int64_t row = 0; row < batch_.rows(); ++row) {
    const float* logits = router.row(row);
    std::iota(ranked.begin(), ranked.end(), 0);
    // A NaN ranks below every number, so that the order stays one.
    const auto key = [&](int64_t id) { return std::isnan(logits[id]) ? -std::numeric_limits<float>::infinity() : logits[id]; };
    std::partial_sort(ranked.begin(), ranked.begin() + chosen, ranked.end(),
                      [&](int64_t a, int64_t b) { return key(a) > key(b) || (key(a) == key(b) && a < b); });
    float total = 0;
    for (int64_t i = chosen; i-- > 0;) total += std::exp(logits[ranked[static_cast<size_t>(i)]] - logits[ranked[0]]);
    for (int64_t i = 0; i < chosen; ++i) {
      const int64_t expert = ranked[static_cast<size_t>(i)];
      rows_of_expert[static_cast<size_t>(expert)].push_back({row, std::exp(logits[expert] - logits[ranked[0]]) / total});
    }
  }
  return rows_of_expert;
}

// y[row] = sum over the row's experts, by ascending id, of weight * down(silu(gate x) * up x). An expert's result for a row
// does not depend on which rows are with it.
void Executor::experts(const Operation& op) {
  const Buffer &x = at(op.reads[0]), &y = at(op.writes[0]);
  std::fill(y.row(0), y.row(batch_.rows()), 0.0f);
  const auto rows_of_expert = choose_experts(op);
  std::vector<float> up, down;
  for (size_t expert = 0; expert < rows_of_expert.size(); ++expert) {
    const auto& rows = rows_of_expert[expert];
    if (rows.empty()) continue;
    const auto map = [&](size_t i) -> const PackedWeight& {
      return model_.weights_.matrices[static_cast<size_t>(op.weights[3 * expert + i])];
    };
    GatheredRows in, inner;
    for (const auto& [row, share] : rows) in.x.insert(in.x.end(), x.row(row), x.row(row) + x.width);
    inner.x.resize(rows.size() * static_cast<size_t>(map(0).rows()));
    up.resize(inner.x.size());
    down.resize(rows.size() * static_cast<size_t>(y.width));
    multiply(map(0), in, inner.x.data());
    multiply(map(1), in, up.data());
    row_.silu_mul(inner.x.data(), up.data(), static_cast<int64_t>(up.size()), inner.x.data());
    multiply(map(2), inner, down.data());
    for (size_t i = 0; i < rows.size(); ++i)
      row_.add_scaled(down.data() + static_cast<int64_t>(i) * y.width, rows[i].second, y.width, y.row(rows[i].first));
  }
}

}  // namespace herd
