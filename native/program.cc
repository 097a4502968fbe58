#include "program.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace herd {
namespace {

constexpr std::array<std::pair<std::string_view, OpKind>, kOpKinds - 1> kKinds = {{
    {"embed", OpKind::embed},
    {"rms_norm", OpKind::rms_norm},
    {"layer_norm", OpKind::layer_norm},
    {"head_norm", OpKind::head_norm},
    {"linear", OpKind::linear},
    {"store_kv", OpKind::store_kv},
    {"attention", OpKind::attention},
    {"silu", OpKind::silu},
    {"gelu", OpKind::gelu},
    {"gelu_tanh", OpKind::gelu_tanh},
    {"silu_mul", OpKind::silu_mul},
    {"gelu_mul", OpKind::gelu_mul},
    {"gelu_tanh_mul", OpKind::gelu_tanh_mul},
    {"experts", OpKind::experts},
    {"scale", OpKind::scale},
    {"clip", OpKind::clip},
    {"softcap", OpKind::softcap},
    {"add", OpKind::add},
    {"keep", OpKind::keep},
    {"pick_rows", OpKind::pick_rows},
}};

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

// Far above any model's width, and small enough that no size computed from it overflows.
constexpr int64_t kMostWidth = int64_t{1} << 24;
constexpr size_t kMostBytes = size_t{1} << 46;

void require_buffer(const BufferSpec& buffer) {
  require(buffer.width > 0 && buffer.width <= kMostWidth, "a buffer's width must be from 1 to 2^24");
  require(buffer.f32 || buffer.q8, "a buffer without room");
}

// Checks one operation against the buffers and weights it names.
class Checker {
 public:
  Checker(const Program& program, const ModelShape& shape, const Weights& weights)
      : program_(program), shape_(shape), weights_(weights) {}

  void check(const Operation& op) const {
    switch (op.kind) {
      case OpKind::embed: return check_embed(op);
      case OpKind::rms_norm: return check_norm(op, at_width(op));
      case OpKind::layer_norm: return check_layer_norm(op);
      case OpKind::head_norm: return check_head_norm(op);
      case OpKind::linear: return check_linear(op);
      case OpKind::store_kv: return check_store(op);
      case OpKind::attention: return check_attention(op);
      case OpKind::silu:
      case OpKind::gelu:
      case OpKind::gelu_tanh: return check_rows(op, 1);
      case OpKind::silu_mul:
      case OpKind::gelu_mul:
      case OpKind::gelu_tanh_mul:
      case OpKind::add: return check_rows(op, 2);
      case OpKind::experts: return check_experts(op);
      case OpKind::scale:
      case OpKind::clip:
      case OpKind::softcap: return check_element_wise(op);
      case OpKind::quantize: return require(false, "quantize is not an operation of a recorded program");
      case OpKind::keep: return check_keep(op);
      case OpKind::pick_rows:
        require(reads(op, 1) && writes(op, 1) && f32(op.reads[0]), "pick_rows: one f32 buffer in, one out");
        require(!at(op.reads[0]).per_logit_row && at(op.writes[0]).per_logit_row, "pick_rows: from T rows to R rows");
        return require(at(op.reads[0]).width == at(op.writes[0]).width, "pick_rows: widths differ");
    }
  }

 private:
  const BufferSpec& at(int32_t id) const {
    require(id >= 0 && static_cast<size_t>(id) < program_.buffers.size(), "an operation names a buffer that is not there");
    return program_.buffers[static_cast<size_t>(id)];
  }
  bool f32(int32_t id) const { return at(id).f32; }
  static bool reads(const Operation& op, size_t n) { return op.reads.size() == n; }
  static bool writes(const Operation& op, size_t n) { return op.writes.size() == n; }
  const PackedWeight& matrix(int32_t id) const {
    require(id >= 0 && static_cast<size_t>(id) < weights_.matrices.size(), "an operation names a matrix that is not there");
    return weights_.matrices[static_cast<size_t>(id)];
  }
  int64_t vector_size(int32_t id) const {
    require(id >= 0 && static_cast<size_t>(id) < weights_.vectors.size(), "an operation names a vector that is not there");
    return static_cast<int64_t>(weights_.vectors[static_cast<size_t>(id)].size());
  }
  void check_layer(const Operation& op) const {
    require(op.layer >= 0 && op.layer < shape_.layers, "an operation names a layer that is not there");
  }

  void check_embed(const Operation& op) const {
    require(writes(op, 1) && op.weights.size() == 1 && f32(op.writes[0]), "embed: one weight, one f32 buffer out");
    require(!at(op.writes[0]).per_logit_row, "embed: makes T rows");
    const PackedWeight& table = matrix(op.weights[0]);
    require(table.cols() == at(op.writes[0]).width && table.rows() == shape_.vocab_size, "embed: the table's shape");
  }

  void check_rows(const Operation& op, size_t num_reads) const {
    require(reads(op, num_reads) && writes(op, 1), "a row operation has the wrong number of buffers");
    for (const int32_t id : op.reads) {
      require(f32(id) && at(id).width == at(op.writes[0]).width, "a row operation reads f32 rows of its result's width");
      require(at(id).per_logit_row == at(op.writes[0]).per_logit_row, "a row operation keeps the number of rows");
    }
  }

  // Taps are numbered from 0 and rows of a tap are rows of the step.
  void check_keep(const Operation& op) const {
    require(reads(op, 1) && f32(op.reads[0]) && !at(op.reads[0]).per_logit_row, "keep: T rows in f32");
    require(op.tap >= 0 && static_cast<size_t>(op.tap) < program_.operations.size(), "keep: the tap's number");
  }

  int64_t at_width(const Operation& op) const {
    require(writes(op, 1), "a norm writes one buffer");
    return at(op.writes[0]).width;
  }

  void check_norm(const Operation& op, int64_t width) const {
    check_rows(op, 1);
    require(op.weights.size() == 1 && vector_size(op.weights[0]) == width, "a norm: the weight's size");
  }

  void check_layer_norm(const Operation& op) const {
    check_norm(op, at_width(op));
    require(op.biases.size() == 1, "layer_norm: an entry for its bias");
    if (op.biases[0] != kNone) require(vector_size(op.biases[0]) == at(op.writes[0]).width, "layer_norm: the bias's size");
  }

  void check_head_norm(const Operation& op) const {
    check_norm(op, shape_.head_dim);
    require(at(op.writes[0]).width % shape_.head_dim == 0, "head_norm: rows of whole heads");
  }

  void check_element_wise(const Operation& op) const {
    check_rows(op, 1);
    require(std::isfinite(op.value) && (op.kind == OpKind::scale || op.value > 0), "an element-wise operation: its value");
  }

  // Gate, up and down of each expert.
  void check_experts(const Operation& op) const {
    require(reads(op, 2) && writes(op, 1) && f32(op.reads[0]) && f32(op.reads[1]), "experts: rows and router logits in f32");
    const BufferSpec &x = at(op.reads[0]), &router = at(op.reads[1]), &y = at(op.writes[0]);
    require(!x.per_logit_row && !router.per_logit_row && !y.per_logit_row && y.f32 && !y.q8, "experts: from T rows to T rows in f32");
    require(op.writes[0] != op.reads[0] && op.writes[0] != op.reads[1] && x.width == y.width, "experts: its result");
    require(op.weights.size() == 3 * static_cast<size_t>(router.width), "experts: three maps for each router logit");
    require(op.value >= 1.0f && op.value <= static_cast<float>(router.width), "experts: how many a row has");
    for (size_t i = 0; i < op.weights.size(); i += 3) {
      const PackedWeight &gate = matrix(op.weights[i]), &up = matrix(op.weights[i + 1]), &down = matrix(op.weights[i + 2]);
      require(gate.cols() == x.width && up.cols() == x.width && gate.rows() == up.rows(), "experts: shapes of gate and up");
      require(down.cols() == gate.rows() && down.rows() == x.width, "experts: the shape of down");
    }
  }

  void check_rope(const Operation& op) const {
    require(op.rope == kNone || (op.rope >= 0 && op.rope < shape_.rotary_tables), "an operation names angles that are not there");
  }

  void check_linear(const Operation& op) const {
    const size_t maps = op.weights.size();
    require(reads(op, 1) && maps > 0 && writes(op, maps), "linear: one input, a result for each weight");
    require(op.biases.size() == maps && op.residuals.size() == maps, "linear: a bias and a residual entry for each weight");
    const BufferSpec& input = at(op.reads[0]);
    for (size_t i = 0; i < maps; ++i) {
      const PackedWeight& w = matrix(op.weights[i]);
      const BufferSpec& out = at(op.writes[i]);
      require(w.cols() == input.width && w.rows() == out.width, "linear: the weight's shape");
      require(is_float(w.type()) ? input.f32 : input.q8, "linear: its input lacks the form that the weight reads");
      require(out.f32 && out.per_logit_row == input.per_logit_row && op.writes[i] != op.reads[0], "linear: its result");
      if (op.biases[i] != kNone) require(vector_size(op.biases[i]) == w.rows(), "linear: the bias's size");
      if (op.residuals[i] == kNone) continue;
      const BufferSpec& residual = at(op.residuals[i]);
      require(residual.f32 && residual.width == out.width && residual.per_logit_row == out.per_logit_row,
              "linear: the residual's shape");
    }
  }

  void check_store(const Operation& op) const {
    check_layer(op);
    check_rope(op);
    require(reads(op, 2), "store_kv: keys and values");
    for (const int32_t id : op.reads)
      require(f32(id) && at(id).width == shape_.kv_heads * shape_.head_dim && !at(id).per_logit_row, "store_kv: the width");
  }

  void check_attention(const Operation& op) const {
    check_layer(op);
    check_rope(op);
    require(op.window >= 0, "attention: a window has at least one position");
    check_rows(op, 1);
    require(at(op.reads[0]).width == shape_.heads * shape_.head_dim && !at(op.reads[0]).per_logit_row, "attention: the width");
    require(op.reads[0] != op.writes[0], "attention: queries are read while results are written");
  }

  const Program& program_;
  const ModelShape& shape_;
  const Weights& weights_;
};

// The tiles of all maps stand in one line, weighted by their bytes, and are cut into one part a thread.
std::vector<int32_t> divide_tiles(const Operation& op, const Weights& weights, int threads) {
  double total = 0;
  for (const int32_t id : op.weights) total += static_cast<double>(weights.matrices[static_cast<size_t>(id)].nbytes());
  std::vector<int32_t> parts{0};
  int32_t tile = 0;
  double before = 0;  // bytes of the tiles up to this one
  for (const int32_t id : op.weights) {
    const PackedWeight& w = weights.matrices[static_cast<size_t>(id)];
    for (int64_t t = 0; t < w.tiles(); ++t, ++tile, before += static_cast<double>(w.view().tile_bytes))
      while (before >= total / threads * static_cast<double>(parts.size())) parts.push_back(tile);
  }
  parts.resize(static_cast<size_t>(threads) + 1, tile);
  return parts;
}

}  // namespace

OpKind op_kind_from_name(const std::string& name) {
  for (const auto& [known, kind] : kKinds)
    if (known == name) return kind;
  throw std::invalid_argument("no operation is called " + name);
}

void Program::complete(const ModelShape& shape, const Weights& weights) {
  const Checker checker(*this, shape, weights);
  for (const BufferSpec& buffer : buffers) require_buffer(buffer);
  for (const Operation& op : operations) checker.check(op);
  std::vector<Operation> completed;
  for (Operation& op : operations) {
    const int32_t result = op.kind == OpKind::attention ? op.writes[0] : kNone;
    completed.push_back(std::move(op));
    if (result == kNone) continue;
    BufferSpec& buffer = buffers[static_cast<size_t>(result)];
    buffer.f32 = true;
    if (buffer.q8)
      completed.push_back({.kind = OpKind::quantize, .reads = {result}, .writes = {result}, .weights = {}, .biases = {},
                           .residuals = {}, .rope = kNone, .layer = kNone, .tap = kNone, .parts = {}});
  }
  operations = std::move(completed);
  require(output >= 0 && static_cast<size_t>(output) < buffers.size(), "the program's result is not a buffer");
  const BufferSpec& logits = buffers[static_cast<size_t>(output)];
  require(logits.f32 && logits.per_logit_row && logits.width == shape.vocab_size, "the program's result must be logits");
}

void Program::divide(const Weights& weights, int threads) {
  int32_t next = kNone;
  for (size_t i = operations.size(); i-- > 0;) {
    Operation& op = operations[i];
    op.next_linear = next;
    if (op.kind != OpKind::linear) continue;
    next = static_cast<int32_t>(i);
    op.parts = divide_tiles(op, weights, threads);
  }
}

int32_t Program::num_taps() const {
  int32_t taps = 0;
  for (const Operation& op : operations)
    if (op.kind == OpKind::keep) taps = std::max(taps, op.tap + 1);
  return taps;
}

bool Program::adapted() const {
  return std::all_of(operations.begin(), operations.end(), [&](const Operation& op) {
    return op.kind != OpKind::linear || buffers[static_cast<size_t>(op.reads[0])].f32;
  });
}

std::vector<Buffer> Program::place(std::byte* arena, int64_t max_rows, int64_t max_logit_rows) const {
  std::vector<Buffer> placed;
  for (const BufferSpec& spec : buffers) {
    const auto rows = static_cast<size_t>(spec.per_logit_row ? max_logit_rows : max_rows);
    Buffer buffer{spec.width, spec.per_logit_row, nullptr, nullptr};
    if (spec.f32) {
      buffer.f32 = reinterpret_cast<float*>(arena);
      arena += aligned_size(rows * static_cast<size_t>(spec.width) * sizeof(float));
    }
    if (spec.q8) {
      buffer.q8 = reinterpret_cast<ActivationBlock*>(arena);
      arena += aligned_size(rows * static_cast<size_t>(activation_blocks(spec.width)) * sizeof(ActivationBlock));
    }
    placed.push_back(buffer);
  }
  return placed;
}

size_t Program::arena_bytes(int64_t max_rows, int64_t max_logit_rows) const {
  size_t bytes = 0;
  for (const BufferSpec& spec : buffers) {
    const auto rows = static_cast<size_t>(spec.per_logit_row ? max_logit_rows : max_rows);
    if (spec.f32) bytes += aligned_size(rows * static_cast<size_t>(spec.width) * sizeof(float));
    if (spec.q8) bytes += aligned_size(rows * static_cast<size_t>(activation_blocks(spec.width)) * sizeof(ActivationBlock));
    require(bytes <= kMostBytes, "the program's buffers would not fit 2^46 bytes");
  }
  return bytes;
}

}  // namespace herd
