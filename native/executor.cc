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
      program_(program) {
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
    switch (op.kind) {
      case OpKind::embed: embed(op); break;
      case OpKind::rms_norm: rms_norm(op); break;
      case OpKind::linear: linear(op); break;
      case OpKind::store_kv: store_kv(op); break;
      case OpKind::attention: attention(op); break;
      case OpKind::silu_mul: silu_mul(op); break;
      case OpKind::add: add(op); break;
      case OpKind::keep: keep(op); break;
      case OpKind::pick_rows: pick_rows(op); break;
    }
  }
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

void Executor::silu_mul(const Operation& op) {
  const Buffer &gate = at(op.reads[0]), &up = at(op.reads[1]);
  make_rows(at(op.writes[0]), [&](int64_t row, float* out) {
    row_.silu_mul(gate.row(row), up.row(row), gate.width, out);
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
  int64_t floats = attention_scratch(queries, shape.head_dim);
  floats = std::max(floats, 2 * padded_dim(shape.head_dim));
  for (const BufferSpec& buffer : program.buffers) floats = std::max(floats, buffer.width);
  return static_cast<size_t>(padded_dim(floats));
}

}  // namespace herd
