// The executor's linear maps: their tiles divided among threads, and the low-rank terms of adapters.
#include <algorithm>
#include <map>

#include "executor.h"

namespace herd {

// The tiles of all maps of one input stand in one line, weighted by their bytes, and are cut into one part a thread.
void Executor::linear(const Operation& op) {
  if (rows_of(at(op.reads[0])) == 0) return;
  pool_.run([&](int thread) {
    int64_t total = 0;
    for (const int32_t id : op.weights)
      total += static_cast<int64_t>(model_.weights_.matrices[static_cast<size_t>(id)].nbytes());
    const int64_t low = total / pool_.size() * thread;
    const int64_t high = thread + 1 == pool_.size() ? total : total / pool_.size() * (thread + 1);
    int64_t before = 0;  // bytes of the maps up to this one
    for (size_t map = 0; map < op.weights.size(); ++map) {
      const PackedWeight& w = model_.weights_.matrices[static_cast<size_t>(op.weights[map])];
      const auto tile_bytes = static_cast<int64_t>(w.view().tile_bytes);
      const auto cut = [&](int64_t at) { return std::clamp<int64_t>((at - before + tile_bytes - 1) / tile_bytes, 0, w.tiles()); };
      linear_part(op, map, cut(low), cut(high));
      before += static_cast<int64_t>(w.nbytes());
    }
  });
  if (!adapted_) return;
  for (size_t map = 0; map < op.weights.size(); ++map) add_adapters(op, map);
}

void Executor::linear_part(const Operation& op, size_t map, int64_t tile_begin, int64_t tile_end) {
  if (tile_begin >= tile_end) return;
  const PackedWeight& w = model_.weights_.matrices[static_cast<size_t>(op.weights[map])];
  const Buffer &x = at(op.reads[0]), &y = at(op.writes[map]);
  LinearJob job{};
  job.weight = w.view();
  job.tile_begin = tile_begin;
  job.tile_end = tile_end;
  job.rows = rows_of(x);
  job.x = x.f32;
  job.x_stride = x.width;
  job.xq = x.q8;
  job.y = y.f32;
  job.y_stride = y.width;
  if (op.biases[map] != kNone) job.bias = model_.weights_.vectors[static_cast<size_t>(op.biases[map])].data();
  if (op.residuals[map] != kNone) {
    job.accumulate = true;
    const int64_t begin = tile_begin * kTileRows, end = std::min(tile_end * kTileRows, w.rows());
    const Buffer& residual = at(op.residuals[map]);
    if (residual.f32 != y.f32)
      for (int64_t row = 0; row < job.rows; ++row)
        std::copy(residual.row(row) + begin, residual.row(row) + end, y.row(row) + begin);
  }
  linear_.linear(job);
}

int32_t Executor::adapter_of(const Buffer& buffer, int64_t row) const {
  const int64_t t = buffer.per_logit_row ? batch_.logit_rows[static_cast<size_t>(row)] : row;
  return batch_.adapters[static_cast<size_t>(seq_of_row_[static_cast<size_t>(t)])];
}

void Executor::add_adapters(const Operation& op, size_t map) {
  const Buffer& x = at(op.reads[0]);
  std::map<int32_t, std::vector<int64_t>> rows_by_adapter;
  for (int64_t row = 0; row < rows_of(x); ++row)
    if (const int32_t id = adapter_of(x, row); id >= 0) rows_by_adapter[id].push_back(row);
  for (const auto& [id, rows] : rows_by_adapter) {
    const LowRankAdapter& adapter = model_.adapters_[static_cast<size_t>(id)];
    const auto pair = adapter.pairs.find(op.weights[map]);
    if (pair != adapter.pairs.end()) add_adapter(op, map, adapter, pair->second, rows);
  }
}

namespace {

// A few gathered rows with what a linear map of any type reads.
struct Gathered {
  std::vector<float> x;
  std::vector<ActivationBlock> xq;
};

void quantize_rows(const LinearKernels& kernels, Gathered& rows, int64_t width, int64_t count) {
  const int64_t blocks = activation_blocks(width);
  rows.xq.resize(static_cast<size_t>(count * blocks));
  for (int64_t row = 0; row < count; ++row)
    kernels.quantize_row(rows.x.data() + row * width, width, rows.xq.data() + row * blocks);
}

LinearJob whole_map(const PackedWeight& w, const Gathered& in, int64_t count, float* y) {
  LinearJob job{};
  job.weight = w.view();
  job.rows = count;
  job.x = in.x.data();
  job.x_stride = w.cols();
  job.xq = in.xq.data();
  job.y = y;
  job.y_stride = w.rows();
  return job;
}

}  // namespace

// y[row] += scale * B (A x[row]) for the rows of one adapter; a row's term does not depend on which rows are with it.
void Executor::add_adapter(const Operation& op, size_t map, const LowRankAdapter& adapter, const LowRankPair& pair,
                           const std::vector<int64_t>& rows) {
  const Buffer &x = at(op.reads[0]), &y = at(op.writes[map]);
  const auto count = static_cast<int64_t>(rows.size());
  const auto spread = [&](const LinearJob& job, const PackedWeight& w) {
    pool_.run([&](int thread) {
      const Range tiles = partition(w.tiles(), 1, thread, pool_.size());
      LinearJob part = job;
      part.tile_begin = tiles.begin, part.tile_end = tiles.end;
      if (tiles.begin < tiles.end) linear_.linear(part);
    });
  };

  Gathered in;
  for (const int64_t row : rows) in.x.insert(in.x.end(), x.row(row), x.row(row) + x.width);
  if (!is_float(pair.a.type())) quantize_rows(linear_, in, x.width, count);
  Gathered inner;
  inner.x.resize(static_cast<size_t>(count * pair.a.rows()));
  spread(whole_map(pair.a, in, count, inner.x.data()), pair.a);
  if (!is_float(pair.b.type())) quantize_rows(linear_, inner, pair.a.rows(), count);
  std::vector<float> delta(static_cast<size_t>(count * y.width));
  spread(whole_map(pair.b, inner, count, delta.data()), pair.b);
  for (int64_t i = 0; i < count; ++i)
    row_.add_scaled(delta.data() + i * y.width, adapter.scale, y.width, y.row(rows[static_cast<size_t>(i)]));
}

}  // namespace herd
