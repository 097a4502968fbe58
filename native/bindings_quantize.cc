// Quantisers for Python: float rows to a file's blocks.
#include "bindings_quantize.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "arrays.h"
#include "float_environment.h"
#include "isa.h"
#include "quantizers/quantize_rows.h"
#include "released_gil.h"

namespace nb = nanobind;

namespace herd {
namespace {

nb::tuple quantize(ThreadPool& pool, uint32_t type_id, const Array<float, 2>& x,
                   const std::optional<Array<float, 1>>& importance, const std::optional<std::string>& isa) {
  const BlockType type = block_type_from_id(type_id);
  const BlockShape shape = block_shape(type);
  const auto rows = static_cast<int64_t>(x.shape(0)), cols = static_cast<int64_t>(x.shape(1));
  if (!is_searched(type)) throw std::invalid_argument(std::string(shape.name) + " has no codes to search for");
  if (cols == 0 || cols % shape.values != 0)
    throw std::invalid_argument(std::string(shape.name) + " rows hold a multiple of " + std::to_string(shape.values) +
                                " values, not " + std::to_string(cols));
  if (importance && importance->shape(0) != x.shape(1)) throw std::invalid_argument("importance needs a value for each column");
  const float* values = view(x).data();
  const float* counts = importance ? view(*importance).data() : nullptr;
  const Isa set = isa ? parse_isa(*isa) : default_isa();
  auto out = new_array<uint8_t>({x.shape(0), static_cast<size_t>(cols / shape.values * shape.bytes)});
  TotalError error;
  {
    const ReleasedGil released;
    const std::lock_guard turn(pool.turn());
    const DefaultFloatEnvironment floats;
    error = quantize_rows(pool, set, type, values, counts, rows, cols, out.data());
  }
  return nb::make_tuple(out, error.squared, error.power);
}

}  // namespace

void bind_quantize(nb::module_& m) {
  m.def("quantize_rows", &quantize, nb::arg("pool"), nb::arg("type_id"), nb::arg("x").noconvert(),
        nb::arg("importance").noconvert() = nb::none(), nb::kw_only(), nb::arg("isa") = nb::none(),
        "Rows [N, K] as blocks [N, row bytes], and the sums of importance * error^2 and importance * x^2.");
}

}  // namespace herd
