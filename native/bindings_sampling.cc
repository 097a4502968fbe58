// Sampling and scoring for Python.
#include "bindings_sampling.h"

#include <algorithm>
#include <stdexcept>

#include "arrays.h"
#include "sample_plan.h"

namespace nb = nanobind;

namespace herd {
namespace {

using Ints = Array<int32_t, 1>;
using Floats = Array<float, 1>;

nb::tuple sample_plan(Model& model, const Ints& rows, const Floats& temperature, const Ints& top_k, const Floats& top_p,
                      const Floats& min_p, const Floats& repetition_penalty, const Floats& presence_penalty,
                      const Floats& frequency_penalty, const Array<uint64_t, 2>& keys, const Ints& count_starts,
                      const Ints& count_ids, const Ints& counts, const Ints& bias_starts, const Ints& bias_ids,
                      const Floats& bias_values, const Ints& mask_rows, const Array<uint32_t, 2>& masks,
                      const Ints& dense_rows, const Array<float, 2>& dense, const Ints& num_top) {
  const auto vocab = static_cast<size_t>(model.shape().vocab_size);
  if (keys.shape(1) != 2) throw std::invalid_argument("sample plan: keys need shape [N, 2]");
  if (masks.shape(0) > 0 && masks.shape(1) != (vocab + 31) / 32)
    throw std::invalid_argument("sample plan: masks need shape [M, ceil(V / 32)]");
  if (dense.shape(0) > 0 && dense.shape(1) != vocab) throw std::invalid_argument("sample plan: dense needs shape [M, V]");
  const SamplePlan plan{view(rows), view(temperature), view(top_k), view(top_p), view(min_p), view(repetition_penalty),
                        view(presence_penalty), view(frequency_penalty), view(keys), view(count_starts),
                        view(count_ids), view(counts), view(bias_starts), view(bias_ids), view(bias_values),
                        view(mask_rows), view(masks), view(dense_rows), view(dense),
                        view(num_top)};
  const size_t n = plan.rows.size();
  size_t columns = 0;
  for (const int32_t wanted : plan.num_top) columns = std::max(columns, static_cast<size_t>(std::max(wanted, 0)));
  columns = std::min(columns, vocab);
  auto ids = new_array<int32_t>({n});
  auto logprobs = new_array<float>({n});
  auto top_ids = new_array<int32_t>({n, columns});
  auto top_logprobs = new_array<float>({n, columns});
  const Sampled out{ids.data(), logprobs.data(), static_cast<int64_t>(columns), top_ids.data(), top_logprobs.data()};
  compute(model, [&] {
    check_plan(plan, model.num_logit_rows(), model.shape().vocab_size);
    sample(model, plan, out);
  });
  return nb::make_tuple(ids, logprobs, top_ids, top_logprobs);
}

NewArray<float> score(Model& model, const Ints& rows, const Ints& targets) {
  if (rows.size() != targets.size()) throw std::invalid_argument("rows and targets must be equally long");
  const auto row = view(rows), target = view(targets);
  NewArray<float> out = new_array<float>({rows.size()});
  compute(model, [&] {
    for (size_t i = 0; i < row.size(); ++i)
      if (row[i] < 0 || row[i] >= model.num_logit_rows() || target[i] < 0 || target[i] >= model.shape().vocab_size)
        throw std::invalid_argument("a row or a target is out of range");
    model.pool().run([&](int thread) {
      const Range mine = partition(static_cast<int64_t>(rows.size()), 1, thread, model.pool().size());
      for (int64_t i = mine.begin; i < mine.end; ++i) {
        const float* logits = model.logits(rows(i));
        const double total = log_sum_exp(sampling_kernels(model.isa()), logits, model.shape().vocab_size);
        out.data()[i] = static_cast<float>(logits[targets(i)] - total);
      }
    });
  });
  return out;
}

}  // namespace

void bind_sampling(nb::class_<Model>& model) {
  model
      .def("sample", &sample_plan, nb::arg("rows").noconvert(), nb::arg("temperature").noconvert(),
           nb::arg("top_k").noconvert(), nb::arg("top_p").noconvert(), nb::arg("min_p").noconvert(),
           nb::arg("repetition_penalty").noconvert(), nb::arg("presence_penalty").noconvert(),
           nb::arg("frequency_penalty").noconvert(), nb::arg("keys").noconvert(), nb::arg("count_starts").noconvert(),
           nb::arg("count_ids").noconvert(), nb::arg("counts").noconvert(), nb::arg("bias_starts").noconvert(),
           nb::arg("bias_ids").noconvert(), nb::arg("bias_values").noconvert(), nb::arg("mask_rows").noconvert(),
           nb::arg("masks").noconvert(), nb::arg("dense_rows").noconvert(), nb::arg("dense").noconvert(),
           nb::arg("num_top").noconvert())
      .def("score", &score, nb::arg("rows").noconvert(), nb::arg("targets").noconvert());
}

}  // namespace herd
