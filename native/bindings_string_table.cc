// A file's string arrays for Python: a vocabulary of a hundred thousand strings in milliseconds.
#include "bindings_string_table.h"

#include <stdexcept>

#include "arrays.h"
#include "string_table.h"

namespace nb = nanobind;

namespace herd {
namespace {

nb::tuple walk(const Array<uint8_t, 1>& data, uint64_t start, uint64_t count) {
  if (count > data.shape(0) / sizeof(uint64_t)) throw std::invalid_argument("more strings than the data can hold lengths of");
  auto starts = new_array<uint64_t>({static_cast<size_t>(count)});
  uint64_t end = 0;
  const size_t whole = walk_strings(view(data), start, {starts.data(), static_cast<size_t>(count)}, end);
  return nb::make_tuple(starts, whole, end);
}

nb::object decode(const Array<uint8_t, 1>& data, const Array<uint64_t, 1>& starts) {
  const auto bytes = view(data);
  const auto places = view(starts);
  nb::object list = nb::steal(PyList_New(static_cast<Py_ssize_t>(places.size())));
  if (!list.is_valid()) throw nb::python_error();
  for (size_t i = 0; i < places.size(); ++i) {
    const auto string = string_at(bytes, places[i]);
    if (!string) throw std::out_of_range("a string is not in the data");
    PyObject* decoded = PyUnicode_DecodeUTF8(string->data(), static_cast<Py_ssize_t>(string->size()), nullptr);
    if (decoded == nullptr) throw nb::python_error();
    PyList_SET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i), decoded);
  }
  return list;
}

}  // namespace

void bind_string_table(nb::module_& m) {
  m.def("walk_strings", &walk, nb::arg("data").noconvert(), nb::arg("start"), nb::arg("count"),
        "Where `count` strings begin (the first ones that lie in the data; the rest of the array is 0), how many those are, "
        "and where the next would begin.");
  m.def("decode_strings", &decode, nb::arg("data").noconvert(), nb::arg("starts").noconvert(),
        "The strings that begin there. Raises UnicodeDecodeError for the first that is not UTF-8.");
}

}  // namespace herd
