// Models for Python. Every function that computes gives the GIL back and takes its turn on the pool.
#include "bindings_model.h"

#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "arrays.h"
#include "bindings_sampling.h"
#include "model.h"

namespace nb = nanobind;

namespace herd {
namespace {

// One tensor of a file: block type's id, raw rows [N, row_bytes], K.
using FileTensor = std::tuple<uint32_t, Array<uint8_t, 2>, int64_t>;

PackedWeight pack(Model& model, const FileTensor& tensor) {
  const auto& [type_id, rows, cols] = tensor;
  const BlockType type = block_type_from_id(type_id);
  const BlockShape shape = block_shape(type);
  if (cols < 1 || cols % shape.values != 0 || static_cast<int64_t>(rows.shape(1)) != cols / shape.values * shape.bytes)
    throw std::invalid_argument(std::string(shape.name) + " rows of " + std::to_string(cols) + " values do not take " +
                                std::to_string(rows.shape(1)) + " bytes");
  return model.pack(type, static_cast<int64_t>(rows.shape(0)), cols, rows.data(), rows.shape(1));
}

// The tensor, and whether its rows are pages of a file that is mapped for reading.
using MappedTensor = std::tuple<FileTensor, bool>;

// Lets go of the memory that holds these bytes of a file; touching them again reads them again. Whole pages only, as a
// neighbour may be in use.
void give_back_pages([[maybe_unused]] const uint8_t* data, [[maybe_unused]] size_t bytes) {
#if defined(__linux__)
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto from = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = (from + page - 1) / page * page, end = (from + bytes) / page * page;
  if (begin < end) (void)madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
#endif
}

// All in one call, so that threads of Python compute meanwhile instead of handing the GIL over for each matrix.
std::vector<int32_t> add_matrices(Model& model, const std::vector<MappedTensor>& tensors) {
  return compute(model, [&] {
    std::vector<int32_t> ids;
    for (const auto& [tensor, mapped] : tensors) {
      ids.push_back(model.add_matrix(pack(model, tensor)));
      const auto& rows = std::get<1>(tensor);
      if (mapped) give_back_pages(rows.data(), rows.nbytes());
    }
    return ids;
  });
}

// (kind, reads, writes, weights, biases, residuals, rope, layer, tap, window, value)
using OperationTuple = std::tuple<std::string, std::vector<int32_t>, std::vector<int32_t>, std::vector<int32_t>,
                                  std::vector<int32_t>, std::vector<int32_t>, int32_t, int32_t, int32_t, int32_t, float>;
// (width, per_logit_row, f32, q8)
using BufferTuple = std::tuple<int64_t, bool, bool, bool>;

int32_t add_program(Model& model, const std::vector<BufferTuple>& buffers, const std::vector<OperationTuple>& operations,
                    int32_t output) {
  Program program;
  for (const auto& [width, per_logit_row, f32, q8] : buffers) program.buffers.push_back({width, per_logit_row, f32, q8});
  for (const auto& [kind, reads, writes, weights, biases, residuals, rope, layer, tap, window, value] : operations)
    program.operations.push_back(
        {op_kind_from_name(kind), reads, writes, weights, biases, residuals, rope, layer, tap, window, value, {}, kNone});
  program.output = output;
  return compute(model, [&] { return model.add_program(std::move(program)); });
}

int32_t add_adapter(Model& model, float scale, const std::vector<std::tuple<int32_t, FileTensor, FileTensor>>& pairs) {
  return compute(model, [&] {
    LowRankAdapter adapter{scale, {}};
    for (const auto& [matrix, a, b] : pairs) adapter.pairs.insert({matrix, LowRankPair{pack(model, a), pack(model, b)}});
    return model.add_adapter(std::move(adapter));
  });
}

void forward(Model& model, int32_t program, const Array<int32_t, 1>& token_ids, const Array<int32_t, 1>& positions,
             const Array<int32_t, 1>& seq_starts, const Array<int32_t, 1>& kv_lens, const Array<int32_t, 2>& block_tables,
             const Array<int32_t, 1>& adapters, const Array<int32_t, 1>& logit_rows,
             const std::vector<Array<int32_t, 1>>& tap_rows) {
  Batch batch{view(token_ids), view(positions), view(seq_starts), view(kv_lens), view(block_tables),
              static_cast<int64_t>(block_tables.shape(1)), view(adapters), view(logit_rows), {}};
  for (const auto& rows : tap_rows) batch.tap_rows.push_back(view(rows));
  compute(model, [&] { model.forward(program, batch); });
}

// Another Python thread may have run a step since the result's shape was chosen.
void require_step_of(const Model& model, size_t logit_rows) {
  if (static_cast<size_t>(model.num_logit_rows()) != logit_rows) throw std::invalid_argument("another step has run meanwhile");
}

NewArray<float> logits(Model& model) {
  const auto rows = static_cast<size_t>(model.num_logit_rows()), vocab = static_cast<size_t>(model.shape().vocab_size);
  NewArray<float> out = new_array<float>({rows, vocab});
  compute(model, [&] {
    require_step_of(model, rows);
    if (rows > 0) std::memcpy(out.data(), model.logits(0), rows * vocab * sizeof(float));
  });
  return out;
}

NewArray<float> kept(Model& model, int32_t tap) {
  const std::vector<float> rows = compute(model, [&] { return model.kept(tap); });
  NewArray<float> out = new_array<float>({rows.size()});
  std::copy(rows.begin(), rows.end(), out.data());
  return out;
}

void check_blocks(const Model& model, std::span<const int32_t> ids) {
  for (const int32_t id : ids)
    if (id < 0 || id >= model.cache().num_blocks())
      throw std::invalid_argument("block " + std::to_string(id) + " is not in the pool");
}

void copy_blocks(Model& model, const Array<int32_t, 2>& pairs) {
  if (pairs.shape(1) != 2) throw std::invalid_argument("pairs of blocks need shape [n, 2]");
  check_blocks(model, view(pairs));
  compute(model, [&] {
    for (size_t i = 0; i < pairs.shape(0); ++i)
      if (pairs(i, 0) != pairs(i, 1))
        std::memcpy(model.cache().block(pairs(i, 1)), model.cache().block(pairs(i, 0)), model.cache().shape().block_bytes());
  });
}

NewArray<uint8_t> read_blocks(Model& model, const Array<int32_t, 1>& blocks) {
  check_blocks(model, view(blocks));
  const size_t bytes = model.cache().shape().block_bytes();
  NewArray<uint8_t> out = new_array<uint8_t>({blocks.size(), bytes});
  compute(model, [&] {
    for (size_t i = 0; i < blocks.size(); ++i) std::memcpy(out.data() + i * bytes, model.cache().block(blocks(i)), bytes);
  });
  return out;
}

void write_blocks(Model& model, const Array<int32_t, 1>& blocks, const Array<uint8_t, 2>& data) {
  check_blocks(model, view(blocks));
  const size_t bytes = model.cache().shape().block_bytes();
  if (data.shape(0) != blocks.size() || data.shape(1) != bytes)
    throw std::invalid_argument("data of blocks need shape [len(blocks), " + std::to_string(bytes) + "]");
  compute(model, [&] {
    for (size_t i = 0; i < blocks.size(); ++i) std::memcpy(model.cache().block(blocks(i)), data.data() + i * bytes, bytes);
  });
}

// (layers, heads, kv_heads, head_dim, rotary_dim, vocab_size, norm_eps, attention_scale, attention_softcap)
using ShapeTuple = std::tuple<int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, float, float, float>;
// (inverse_frequencies [rotary_dim / 2], scale)
using TableTuple = std::tuple<Array<double, 1>, double>;
// (max_context, max_seqs, max_batch_tokens, max_logit_rows)
using LimitsTuple = std::tuple<int64_t, int64_t, int64_t, int64_t>;

void make_model(Model* self, std::shared_ptr<ThreadPool> pool, const std::string& isa, const ShapeTuple& shape,
                const LimitsTuple& limits, bool kv_half, int64_t num_blocks, const std::vector<TableTuple>& rotary_tables,
                const Array<float, 1>& alibi_slopes) {
  const auto& [layers, heads, kv_heads, head_dim, rotary_dim, vocab_size, norm_eps, scale, softcap] = shape;
  const auto& [max_context, max_seqs, max_batch_tokens, max_logit_rows] = limits;
  std::vector<RotaryTable> tables;
  for (const auto& [frequencies, table_scale] : rotary_tables) {
    const auto all = view(frequencies);
    tables.push_back({{all.begin(), all.end()}, table_scale});
  }
  const auto slopes = view(alibi_slopes);
  new (self) Model(std::move(pool), parse_isa(isa),
                   {layers, heads, kv_heads, head_dim, rotary_dim, vocab_size, norm_eps, scale, softcap},
                   {max_context, max_seqs, max_batch_tokens, max_logit_rows}, kv_half, num_blocks, std::move(tables),
                   {slopes.begin(), slopes.end()});
}

}  // namespace

void bind_model(nb::module_& m) {
  nb::class_<ThreadPool>(m, "ThreadPool", "Threads that models share; the caller is one of them.")
      .def(nb::init<int>(), nb::arg("threads"))
      .def_prop_ro("size", &ThreadPool::size);

  m.def("kv_block_bytes", [](int64_t layers, int64_t kv_heads, int64_t head_dim, bool half) {
    const KVShape shape{layers, kv_heads, head_dim, half};
    check_kv_shape(shape);
    return shape.block_bytes();
  });

  m.def("cut_records_bytes", [](int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t max_context, int threads) {
    return Model::cut_records_bytes({1, heads, kv_heads, head_dim, 0, 1, 0.0f}, {max_context, 1, 1, 1}, threads);
  });

  nb::class_<Model> model(m, "Model");
  model.def("__init__", &make_model)
      .def("add_matrices", &add_matrices)
      .def("add_vector",
           [](Model& model, const Array<float, 1>& values) {
             const auto all = view(values);
             return compute(model, [&] { return model.add_vector({all.begin(), all.end()}); });
           },
           nb::arg("values").noconvert())
      .def("add_program", &add_program)
      .def("add_adapter", &add_adapter)
      .def("forward", &forward, nb::arg("program"), nb::arg("token_ids").noconvert(), nb::arg("positions").noconvert(),
           nb::arg("seq_starts").noconvert(), nb::arg("kv_lens").noconvert(), nb::arg("block_tables").noconvert(),
           nb::arg("adapters").noconvert(), nb::arg("logit_rows").noconvert(), nb::arg("tap_rows").noconvert())
      .def_prop_ro("step", &Model::step)
      .def_prop_ro("num_logit_rows", &Model::num_logit_rows)
      .def("logits", &logits)
      .def("kept", &kept, nb::arg("tap"))
      .def("copy_blocks", &copy_blocks, nb::arg("pairs").noconvert())
      .def("read_blocks", &read_blocks, nb::arg("blocks").noconvert())
      .def("write_blocks", &write_blocks, nb::arg("blocks").noconvert(), nb::arg("data").noconvert());
  bind_sampling(model);
}

}  // namespace herd
