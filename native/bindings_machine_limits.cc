// The machine's own limits for Python: how a bench knows what there is to reach.
#include "bindings_machine_limits.h"

#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

#include "machine_limits.h"
#include "released_gil.h"

namespace nb = nanobind;

namespace herd {
namespace {

// A buffer the size of the largest models is enough for any cache; a wrong size must not take the machine's memory.
constexpr int64_t kMaxBuffer = int64_t{1} << 40;
constexpr int64_t kMaxRepeats = int64_t{1} << 40;  // rounds or passes: minutes, not for ever

int64_t within(int64_t value, int64_t most, const char* what) {
  if (value < 1 || value > most) throw std::invalid_argument(std::string(what) + " is out of range");
  return value;
}

}  // namespace

void bind_machine_limits(nb::module_& m) {
  nb::class_<ReadBuffer>(m, "ReadBuffer", "Memory to be read, touched by the pool's threads.")
      .def("__init__",
           [](ReadBuffer* self, int64_t nbytes, ThreadPool& pool) {
             const auto size = static_cast<size_t>(within(nbytes, kMaxBuffer, "nbytes"));
             const ReleasedGil released;
             new (self) ReadBuffer(size, pool);
           },
           nb::arg("nbytes"), nb::arg("pool"))
      .def_prop_ro("nbytes", &ReadBuffer::size)
      .def("read_rate",
           [](const ReadBuffer& buffer, ThreadPool& pool, int passes, int streams, const std::string& isa) {
             within(passes, kMaxRepeats, "passes");
             if (streams != 1 && streams != 4) throw std::invalid_argument("streams must be 1 or 4");
             const Isa set = parse_isa(isa);
             const ReleasedGil released;
             return buffer.read_rate(pool, set, passes, streams);
           },
           nb::arg("pool"), nb::kw_only(), nb::arg("passes"), nb::arg("streams"), nb::arg("isa"),
           "Bytes a second that the pool's threads read, each its own part, one place or four at a time.");
  m.def("multiply_rate",
        [](ThreadPool& pool, int64_t rounds, const std::string& isa) {
          within(rounds, kMaxRepeats, "rounds");
          const Isa set = parse_isa(isa);
          const ReleasedGil released;
          return multiply_rate(pool, set, rounds);
        },
        nb::arg("pool"), nb::kw_only(), nb::arg("rounds"), nb::arg("isa"),
        "Products of 4-bit codes and int8 a second that the pool's threads make and add up, on registers alone.");
  m.def("products_per_round", [](const std::string& isa) { return limit_kernels(parse_isa(isa)).products_per_round; },
        nb::arg("isa"), "Products that a thread makes in a round of multiply_rate.");
}

}  // namespace herd
