// Packed weights and linear maps for Python: how tests hold every kernel to the NumPy specification.
#include "bindings_linear.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "arena.h"
#include "isa.h"
#include "linear.h"
#include "packed_weight.h"

namespace nb = nanobind;

namespace herd {
namespace {

using ByteRows = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using FloatRows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using FloatVector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using NewRows = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

NewRows new_rows(int64_t rows, int64_t cols) {
  auto data = std::make_unique<float[]>(static_cast<size_t>(rows * cols));
  nb::capsule owner(data.get(), [](void* p) noexcept { delete[] static_cast<float*>(p); });
  return NewRows(data.release(), {static_cast<size_t>(rows), static_cast<size_t>(cols)}, owner);
}

Isa isa_from(const std::optional<std::string>& name) { return name ? parse_isa(*name) : default_isa(); }

PackedWeight pack(uint32_t type_id, const ByteRows& rows, int64_t cols) {
  const BlockType type = block_type_from_id(type_id);
  const BlockShape shape = block_shape(type);
  const auto num_rows = static_cast<int64_t>(rows.shape(0));
  PackedWeight::packed_bytes(type, num_rows, cols);  // throws for impossible sizes, before memory is taken for them
  if (static_cast<int64_t>(rows.shape(1)) != cols / shape.values * shape.bytes)
    throw std::invalid_argument(std::string(shape.name) + " rows of " + std::to_string(cols) + " values take " +
                                std::to_string(cols / shape.values * shape.bytes) + " bytes, not " +
                                std::to_string(rows.shape(1)));
  return PackedWeight::pack(type, num_rows, cols, rows.data(), rows.shape(1));
}

NewRows dequantize_rows(const PackedWeight& weight, int64_t begin, int64_t end) {
  if (begin < 0 || end < begin || end > weight.rows()) throw std::invalid_argument("rows are outside the weight");
  NewRows out = new_rows(end - begin, weight.cols());
  for (int64_t r = begin; r < end; ++r) weight.dequantize_row(r, out.data() + (r - begin) * weight.cols());
  return out;
}

std::vector<ActivationBlock> quantize_rows(const LinearKernels& kernels, const FloatRows& x) {
  const auto cols = static_cast<int64_t>(x.shape(1));
  if (cols == 0) throw std::invalid_argument("x has no columns");
  const int64_t blocks = activation_blocks(cols);
  std::vector<ActivationBlock> quantized(x.shape(0) * static_cast<size_t>(blocks));
  for (size_t t = 0; t < x.shape(0); ++t)
    kernels.quantize_row(x.data() + static_cast<int64_t>(t) * cols, cols, quantized.data() + static_cast<int64_t>(t) * blocks);
  return quantized;
}

// x W^T, computed in pieces of `tiles_at_once` tiles; then + bias, then + residual.
NewRows linear(const PackedWeight& weight, const FloatRows& x, const std::optional<std::string>& isa,
               const std::optional<FloatVector>& bias, const std::optional<FloatRows>& residual,
               std::optional<int64_t> tiles_at_once) {
  const auto rows = static_cast<int64_t>(x.shape(0));
  if (static_cast<int64_t>(x.shape(1)) != weight.cols()) throw std::invalid_argument("x and the weight differ in K");
  if (bias && static_cast<int64_t>(bias->shape(0)) != weight.rows()) throw std::invalid_argument("bias needs N values");
  if (residual && (residual->shape(0) != x.shape(0) || static_cast<int64_t>(residual->shape(1)) != weight.rows()))
    throw std::invalid_argument("residual needs the shape of the result");
  const int64_t at_once = tiles_at_once.value_or(weight.tiles());
  if (at_once < 1) throw std::invalid_argument("tiles_at_once must be positive");

  const LinearKernels& kernels = linear_kernels(isa_from(isa));
  std::vector<ActivationBlock> quantized;
  if (!is_float(weight.type())) quantized = quantize_rows(kernels, x);
  NewRows y = new_rows(rows, weight.rows());
  if (residual) std::copy(residual->data(), residual->data() + residual->size(), y.data());
  LinearJob job{};
  job.weight = weight.view();
  job.rows = rows;
  job.x = x.data();
  job.x_stride = weight.cols();
  job.xq = quantized.data();
  job.y = y.data();
  job.y_stride = weight.rows();
  job.bias = bias ? bias->data() : nullptr;
  job.accumulate = residual.has_value();
  const Arena scratch(kernels.scratch_bytes(weight.cols()));
  LinearScratch rearranged{.memory = scratch.data()};
  job.scratch = &rearranged;
  for (int64_t tile = 0; tile < weight.tiles(); tile += at_once) {
    job.tile_begin = tile;
    job.tile_end = std::min(tile + at_once, weight.tiles());
    kernels.linear(job);
  }
  return y;
}

// What quantize_row makes of x, as (2^fine_bits * coarse + fine [T, blocks, 32] in float32, scale [T, blocks]).
nb::tuple quantize(const FloatRows& x, const std::optional<std::string>& isa) {
  const LinearKernels& kernels = linear_kernels(isa_from(isa));
  const std::vector<ActivationBlock> blocks = quantize_rows(kernels, x);
  const int64_t per_row = activation_blocks(static_cast<int64_t>(x.shape(1)));
  const auto rows = static_cast<int64_t>(x.shape(0));
  NewRows q = new_rows(rows, per_row * kActivationBlock), scale = new_rows(rows, per_row);
  for (size_t b = 0; b < blocks.size(); ++b) {
    float* codes = q.data() + static_cast<int64_t>(b) * kActivationBlock;
    for (int64_t i = 0; i < kActivationBlock; ++i)
      codes[i] = static_cast<float>((1 << kernels.fine_bits) * blocks[b].coarse[i] + blocks[b].fine[i]);
    scale.data()[b] = blocks[b].scale;
  }
  return nb::make_tuple(q, scale);
}

}  // namespace

void bind_linear(nb::module_& m) {
  nb::class_<PackedWeight>(m, "PackedWeight", "W[N, K] in its block type, rearranged in tiles of 16 rows.")
      .def("__init__",
           [](PackedWeight* self, uint32_t type_id, const ByteRows& rows, int64_t cols) {
             new (self) PackedWeight(pack(type_id, rows, cols));
           },
           nb::arg("type_id"), nb::arg("rows"), nb::arg("n_cols"))
      .def_prop_ro("nbytes", &PackedWeight::nbytes)
      .def_prop_ro("shape", [](const PackedWeight& w) { return nb::make_tuple(w.rows(), w.cols()); })
      .def("dequantize_rows", &dequantize_rows, nb::arg("begin"), nb::arg("end"), "Rows [begin, end) in float32.")
      .def("linear", &linear, nb::arg("x"), nb::kw_only(), nb::arg("isa") = nb::none(), nb::arg("bias") = nb::none(),
           nb::arg("residual") = nb::none(), nb::arg("tiles_at_once") = nb::none(),
           "x [T, K] times W^T, plus bias [N], plus residual [T, N]: [T, N] float32.");
  m.def("packed_bytes",
        [](uint32_t type_id, int64_t rows, int64_t cols) {
          return PackedWeight::packed_bytes(block_type_from_id(type_id), rows, cols);
        },
        nb::arg("type_id"), nb::arg("n_rows"), nb::arg("n_cols"), "Bytes that a matrix takes when packed.");
  m.def("quantize_activations", &quantize, nb::arg("x"), nb::kw_only(), nb::arg("isa") = nb::none(),
        "x [T, K] in blocks of 32 integers: (codes as float32 [T, K'], scales [T, K' / 32]), K' rounded up to whole blocks.");
  m.def("linear_scratch_bytes", [](int64_t cols) { return linear_kernels(default_isa()).scratch_bytes(cols); }, nb::arg("n_cols"),
        "What each thread takes for linear maps whose weights have up to n_cols columns.");
  m.def("available_isas",
        [] {
          std::vector<std::string> names;
          for (Isa isa : available_isas()) names.emplace_back(isa_name(isa));
          return names;
        },
        "Instruction sets of this build that this machine runs, fastest first.");
  m.def("default_isa", [] { return std::string(isa_name(default_isa())); },
        "OPENHERD_ISA, else the fastest available set. Raises ValueError if OPENHERD_ISA names none.");
}

}  // namespace herd
