#include "model.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <utility>

#include "executor.h"

namespace herd {
namespace {

void check_shape(const ModelShape& s, const Limits& limits, const std::vector<RotaryTable>& tables) {
  constexpr int64_t kMost = int64_t{1} << 24;
  for (const int64_t size : {s.layers, s.heads, s.kv_heads, s.head_dim, s.vocab_size, limits.max_context, limits.max_seqs,
                             limits.max_batch_tokens, limits.max_logit_rows})
    if (size < 1 || size > kMost) throw std::invalid_argument("sizes of the model and its limits must be from 1 to 2^24");
  if (s.heads % s.kv_heads != 0) throw std::invalid_argument("kv_heads must divide heads");
  if (s.heads * s.head_dim > kMost) throw std::invalid_argument("heads * head_dim must be at most 2^24");
  if (s.rotary_dim < 0 || s.rotary_dim > s.head_dim || s.rotary_dim % 2 != 0)
    throw std::invalid_argument("rotary_dim must be even and at most head_dim");
  for (const RotaryTable& table : tables)
    if (table.inverse_frequencies.size() != static_cast<size_t>(s.rotary_dim / 2))
      throw std::invalid_argument("there must be rotary_dim / 2 inverse frequencies");
  if (!(std::isfinite(s.attention_scale) && s.attention_softcap >= 0 && std::isfinite(s.attention_softcap)))
    throw std::invalid_argument("the scale and the cap of attention scores must be finite");
}

ModelShape checked(ModelShape shape, const Limits& limits, const std::vector<RotaryTable>& tables) {
  check_shape(shape, limits, tables);
  shape.rotary_tables = static_cast<int64_t>(tables.size());
  return shape;
}

}  // namespace

Model::Model(std::shared_ptr<ThreadPool> pool, Isa isa, const ModelShape& shape, const Limits& limits, bool kv_half,
             int64_t num_blocks, std::vector<RotaryTable> rotary_tables, std::vector<float> alibi_slopes)
    : pool_(std::move(pool)),
      isa_(isa),
      shape_(checked(shape, limits, rotary_tables)),
      limits_(limits),
      cache_({shape.layers, shape.kv_heads, shape.head_dim, kv_half}, num_blocks),
      rotary_tables_(std::move(rotary_tables)),
      alibi_slopes_(std::move(alibi_slopes)),
      cut_records_(cut_records_floats(shape, limits.max_context, pool_->size()) * sizeof(float)),
      row_samplers_(static_cast<size_t>(pool_->size()), RowSampler(sampling_kernels(isa), shape.vocab_size)) {
  if (!alibi_slopes_.empty() && alibi_slopes_.size() != static_cast<size_t>(shape.heads))
    throw std::invalid_argument("there must be one slope a head, or none");
}

size_t Model::cut_records_bytes(const ModelShape& shape, const Limits& limits, int threads) {
  check_shape(shape, limits, {});
  if (threads < 1 || threads > kMostThreads) throw std::invalid_argument("threads must be from 1 to 1024");
  return cut_records_floats(shape, limits.max_context, threads) * sizeof(float);
}

PackedWeight Model::pack(BlockType type, int64_t rows, int64_t cols, const uint8_t* file_rows, size_t stride) {
  PackedWeight weight(type, rows, cols, weight_memory_);
  pool_->run([&](int thread) {
    const Range tiles = partition(weight.tiles(), 1, thread, pool_->size());
    weight.pack_tiles(file_rows, stride, tiles.begin, tiles.end);
  });
  return weight;
}

int32_t Model::add_matrix(PackedWeight weight) {
  weights_.matrices.push_back(std::move(weight));
  return static_cast<int32_t>(weights_.matrices.size()) - 1;
}

int32_t Model::add_vector(std::vector<float> values) {
  weights_.vectors.push_back(std::move(values));
  return static_cast<int32_t>(weights_.vectors.size()) - 1;
}

int32_t Model::add_program(Program program) {
  program.complete(shape_, weights_);
  program.divide(weights_, pool_->size());
  const size_t bytes = program.arena_bytes(limits_.max_batch_tokens, limits_.max_logit_rows);
  if (bytes > arena_bytes_) {
    arena_ = Arena(bytes);
    arena_bytes_ = bytes;
    num_logit_rows_ = 0;  // the last step's logits are gone
    ++step_;
    for (Loaded& loaded : programs_)
      loaded.buffers = loaded.program.place(arena_.data(), limits_.max_batch_tokens, limits_.max_logit_rows);
  }
  const size_t of_linear = linear_kernels(isa_).scratch_bytes(widest_input()) / sizeof(float);
  const size_t floats = std::max(scratch_floats(shape_, program), aligned_size(of_linear));
  if (floats > scratch_floats_) {
    scratch_ = Arena(floats * sizeof(float) * static_cast<size_t>(pool_->size()));
    scratch_floats_ = floats;
  }
  auto buffers = program.place(arena_.data(), limits_.max_batch_tokens, limits_.max_logit_rows);
  programs_.push_back({std::move(program), std::move(buffers)});
  return static_cast<int32_t>(programs_.size()) - 1;
}

int64_t Model::widest_input() const {
  int64_t widest = 0;
  for (const PackedWeight& matrix : weights_.matrices)
    if (!is_float(matrix.type())) widest = std::max(widest, matrix.cols());
  return widest;
}

int32_t Model::add_adapter(LowRankAdapter adapter) {
  for (const auto& [id, pair] : adapter.pairs) {
    if (id < 0 || static_cast<size_t>(id) >= weights_.matrices.size())
      throw std::invalid_argument("an adapter's pair names a matrix that is not there");
    const PackedWeight& base = weights_.matrices[static_cast<size_t>(id)];
    if (pair.a.cols() != base.cols() || pair.b.rows() != base.rows() || pair.a.rows() != pair.b.cols())
      throw std::invalid_argument("an adapter's pair does not have the shape of its matrix");
  }
  adapters_.push_back(std::move(adapter));
  return static_cast<int32_t>(adapters_.size()) - 1;
}

void Model::forward(int32_t program, const Batch& batch) {
  if (program < 0 || static_cast<size_t>(program) >= programs_.size())
    throw std::invalid_argument("there is no such program");
  Loaded& loaded = programs_[static_cast<size_t>(program)];
  check_batch(batch, limits_, shape_.vocab_size, cache_.num_blocks(), static_cast<int64_t>(adapters_.size()));
  if (static_cast<size_t>(loaded.program.num_taps()) != batch.tap_rows.size())
    throw std::invalid_argument("the program keeps another number of taps than the batch asks for");
  if (std::any_of(batch.adapters.begin(), batch.adapters.end(), [](int32_t id) { return id >= 0; }) &&
      !loaded.program.adapted())
    throw std::invalid_argument("the program does not keep what adapters read");
  ++step_;
  kept_.assign(batch.tap_rows.size(), {});
  Executor(*this, loaded.program, loaded.buffers, batch).run();
  num_logit_rows_ = static_cast<int64_t>(batch.logit_rows.size());
  logits_ = loaded.buffers[static_cast<size_t>(loaded.program.output)].f32;
}

const std::vector<float>& Model::kept(int32_t tap) const {
  if (tap < 0 || static_cast<size_t>(tap) >= kept_.size()) throw std::invalid_argument("the step has no such tap");
  return kept_[static_cast<size_t>(tap)];
}

}  // namespace herd
