#include "executor.h"

#include <algorithm>
#include <cstring>

namespace herd {

Executor::Executor(Model& model, const Program& program, const std::vector<Buffer>& buffers, const Batch& batch)
    : model_(model),
      buffers_(buffers),
      batch_(batch),
      shape_(model.shape_),
      pool_(*model.pool_),
      linear_(linear_kernels(model.isa_)),
      row_(row_kernels(model.isa_)),
      attention_(attention_kernels(model.isa_)),
      program_(program),
      tile_shares_(pool_.size()),
      linear_scratch_(static_cast<size_t>(pool_.size())) {
  for (int64_t seq = 0; seq < batch.seqs(); ++seq) {
    const size_t i = static_cast<size_t>(seq);
    seq_of_row_.resize(static_cast<size_t>(batch.seq_starts[i + 1]), static_cast<int32_t>(seq));
    adapted_ = adapted_ || batch.adapters[i] >= 0;
  }
}

void Executor::run() {
  turn_angles();
  divide_attention();
  for (const Operation& op : program_.operations) {
    if (!shared(op)) {
      put_off_.push_back(&op);
      continue;
    }
    const bool begins_with_put_off = op.kind == OpKind::linear || op.kind == OpKind::attention;
    if (!begins_with_put_off) do_put_off();
    execute(op);
  }
  do_put_off();
}

void Executor::execute(const Operation& op) {
  switch (op.kind) {
    case OpKind::embed: return embed(op);
    case OpKind::rms_norm: return rms_norm(op);
    case OpKind::layer_norm: return layer_norm(op);
    case OpKind::head_norm: return head_norm(op);
    case OpKind::linear: return linear(op);
    case OpKind::store_kv: return store_kv(op);
    case OpKind::attention: return attention(op);
    case OpKind::quantize: return quantize(op);
    case OpKind::silu_mul: return silu_mul(op);
    case OpKind::silu:
    case OpKind::gelu:
    case OpKind::gelu_tanh:
    case OpKind::gelu_mul:
    case OpKind::gelu_tanh_mul: return activate(op);
    case OpKind::experts: return experts(op);
    case OpKind::scale:
    case OpKind::clip:
    case OpKind::softcap: return element_wise(op);
    case OpKind::add: return add(op);
    case OpKind::keep: return keep(op);
    case OpKind::pick_rows: return pick_rows(op);
  }
}

// Whether it is done at its place in the program and not put off: it is divided among threads, or takes memory, which
// may fail where no exception can pass.
bool Executor::shared(const Operation& op) const {
  switch (op.kind) {
    case OpKind::keep:
    case OpKind::experts: return true;
    case OpKind::linear: return rows_of(at(op.reads[0])) > 0;
    case OpKind::store_kv: return store_shared();
    case OpKind::attention: return attention_shared();
    default: return shared(at(op.writes.empty() ? op.reads[0] : op.writes[0]));
  }
}

bool Executor::shared(const Buffer& buffer) const {
  const int64_t rows = rows_of(buffer);
  return rows > 1 && rows * buffer.width >= kRowsWorthSharing;
}

void Executor::do_put_off() {
  for (const Operation* op : put_off_) execute(*op);
  put_off_.clear();
}

namespace {

// What a waiting thread fetches at most: with what else the second-level cache holds it must stay there until it is read.
constexpr size_t kMostFetched = 256 * 1024;
constexpr int kSecondLevel = 2;  // for __builtin_prefetch
// Between two looks at the flag: some 20 ns.
constexpr size_t kFetchedAtOnce = 512;

}  // namespace

// Until `ready`, asks for the tiles with which this thread's part of `op`, or of the next linear operation, begins.
void Executor::fetch_until(const std::atomic<int>& ready, const Operation& op, int thread) const {
  const auto done = [&] { return ready.load(std::memory_order_acquire) != 0; };
  if (done()) return;
  const Operation* source = op.kind == OpKind::linear ? &op : next_linear(op);
  const auto t = static_cast<size_t>(thread);
  size_t fetched = 0;
  if (source != nullptr)
    for (int64_t tile = source->parts[t]; tile < source->parts[t + 1] && fetched < kMostFetched; ++tile) {
      const TileBytes from = tile_bytes(*source, tile);
      for (size_t at = 0; at < from.bytes; at += 64) {
        if (at % kFetchedAtOnce == 0 && done()) return;
        __builtin_prefetch(from.data + at, 0, kSecondLevel);
      }
      fetched += from.bytes;
    }
  await_change(ready, 0);
}

void Executor::embed(const Operation& op) {
  const PackedWeight& table = model_.weights_.matrices[static_cast<size_t>(op.weights[0])];
  make_rows(at(op.writes[0]), [&](int64_t row, float* out) {
    table.dequantize_row(batch_.token_ids[static_cast<size_t>(row)], out);
  });
}

void Executor::rms_norm(const Operation& op) {
  const Buffer& x = at(op.reads[0]);
  const float* weight = model_.weights_.vectors[static_cast<size_t>(op.weights[0])].data();
  make_rows(at(op.writes[0]), [&](int64_t row, float* out) {
    row_.rms_norm(x.row(row), weight, x.width, shape_.norm_eps, out);
  });
}

void Executor::layer_norm(const Operation& op) {
  const Buffer& x = at(op.reads[0]);
  const float* weight = model_.weights_.vectors[static_cast<size_t>(op.weights[0])].data();
  const float* bias = op.biases[0] == kNone ? nullptr : model_.weights_.vectors[static_cast<size_t>(op.biases[0])].data();
  make_rows(at(op.writes[0]), [&](int64_t row, float* out) {
    row_.layer_norm(x.row(row), weight, bias, x.width, shape_.norm_eps, out);
  });
}

void Executor::head_norm(const Operation& op) {
  const Buffer& x = at(op.reads[0]);
  const float* weight = model_.weights_.vectors[static_cast<size_t>(op.weights[0])].data();
  make_rows(at(op.writes[0]), [&](int64_t row, float* out) {
    for (int64_t d = 0; d < x.width; d += shape_.head_dim)
      row_.rms_norm(x.row(row) + d, weight, shape_.head_dim, shape_.norm_eps, out + d);
  });
}

void Executor::quantize(const Operation& op) {
  const Buffer& x = at(op.writes[0]);
  for_rows(x, [&](int64_t row, float*) { linear_.quantize_row(x.row(row), x.width, x.q8_row(row)); });
}

void Executor::silu_mul(const Operation& op) {
  const Buffer &gate = at(op.reads[0]), &up = at(op.reads[1]);
  make_rows(at(op.writes[0]), [&](int64_t row, float* out) {
    row_.silu_mul(gate.row(row), up.row(row), gate.width, out);
  });
}

void Executor::activate(const Operation& op) {
  const Buffer& x = at(op.reads[0]);
  const Buffer* up = op.reads.size() == 2 ? &at(op.reads[1]) : nullptr;
  const bool exact = op.kind == OpKind::gelu || op.kind == OpKind::gelu_mul;
  const auto kernel = op.kind == OpKind::silu ? row_.silu : exact ? row_.gelu : row_.gelu_tanh;
  make_rows(at(op.writes[0]), [&](int64_t row, float* out) {
    kernel(x.row(row), up == nullptr ? nullptr : up->row(row), x.width, out);
  });
}

void Executor::element_wise(const Operation& op) {
  const Buffer& x = at(op.reads[0]);
  make_rows(at(op.writes[0]), [&](int64_t row, float* out) {
    const float* in = x.row(row);
    switch (op.kind) {
      case OpKind::scale:
        for (int64_t i = 0; i < x.width; ++i) out[i] = in[i] * op.value;
        break;
      case OpKind::clip:  // NaN stays NaN
        for (int64_t i = 0; i < x.width; ++i) out[i] = in[i] > op.value ? op.value : in[i] < -op.value ? -op.value : in[i];
        break;
      default: row_.softcap(in, op.value, x.width, out);
    }
  });
}

void Executor::add(const Operation& op) {
  const Buffer &x = at(op.reads[0]), &y = at(op.reads[1]);
  make_rows(at(op.writes[0]), [&](int64_t row, float* out) {
    for (int64_t i = 0; i < x.width; ++i) out[i] = x.row(row)[i] + y.row(row)[i];
  });
}

void Executor::keep(const Operation& op) {
  const Buffer& x = at(op.reads[0]);
  const auto& rows = batch_.tap_rows[static_cast<size_t>(op.tap)];
  auto& kept = model_.kept_[static_cast<size_t>(op.tap)];
  kept.clear();
  for (const int32_t row : rows) kept.insert(kept.end(), x.row(row), x.row(row) + x.width);
}

void Executor::pick_rows(const Operation& op) {
  const Buffer& x = at(op.reads[0]);
  make_rows(at(op.writes[0]), [&](int64_t row, float* out) {
    const float* picked = x.row(batch_.logit_rows[static_cast<size_t>(row)]);
    std::copy(picked, picked + x.width, out);
  });
}

size_t scratch_floats(const ModelShape& shape, const Program& program) {
  const int64_t queries = std::max(kMostQueries, shape.heads / shape.kv_heads);
  int64_t floats = attention_scratch(queries, shape.head_dim) + padded_dim(queries) * record_floats(shape.head_dim);
  floats = std::max(floats, 2 * padded_dim(shape.head_dim));
  for (const BufferSpec& buffer : program.buffers) floats = std::max(floats, buffer.width);
  return static_cast<size_t>(padded_dim(floats));
}

}  // namespace herd
