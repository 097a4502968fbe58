// The executor's linear maps, whose tiles threads take in turns, and the low-rank terms of adapters.
#include <algorithm>
#include <map>

#include "executor.h"

namespace herd {

// Threads divide a line of places: the tiles of all maps for the first panel of rows, then for the second, and so on. So
// a thread stays with few rows, whose activations it keeps in its own cache, and takes all weights past them. With one
// panel the places are the tiles.
void Executor::linear(const Operation& op) {
  const int64_t rows = rows_of(at(op.reads[0]));
  if (rows == 0) return;
  const int64_t panels = (rows + kPanelRows - 1) / kPanelRows, places = panels * op.parts.back();
  for (int thread = 0; thread < pool_.size(); ++thread) {
    const auto t = static_cast<size_t>(thread);
    const Range part = panels == 1 ? Range{op.parts[t], op.parts[t + 1]} : partition(places, 2, thread, pool_.size());
    tile_shares_.set(thread, part.begin, part.end);
    linear_scratch_[t] = {.memory = model_.scratch(thread)};
  }
  spread(op, [&](int thread) {
    for (Range run = tile_shares_.take(thread); run.begin < run.end; run = tile_shares_.take(thread))
      linear_places(op, run, panels, thread);
  });
  if (!adapted_) return;
  for (size_t map = 0; map < op.weights.size(); ++map) add_adapters(op, map);
}

void Executor::linear_places(const Operation& op, Range places, int64_t panels, int thread) {
  // As even as kernels like it: those for many rows take up to 16 at once, and a few left over at a higher price each.
  constexpr int64_t kGrain = 16;
  const int64_t rows = rows_of(at(op.reads[0])), tiles = op.parts.back();
  const int64_t panel_rows = ((rows + panels - 1) / panels + kGrain - 1) / kGrain * kGrain;
  for (int64_t begin = places.begin; begin < places.end;) {
    const int64_t panel = begin / tiles, end = std::min(places.end, (panel + 1) * tiles);
    const Range part{begin - panel * tiles, end - panel * tiles};
    const Range of_x{std::min(panel * panel_rows, rows), std::min((panel + 1) * panel_rows, rows)};
    const uint8_t* next = end < places.end ? tile_bytes(op, 0).data : read_after(op, part, thread);
    if (of_x.begin < of_x.end) linear_tiles(op, part, of_x, next, thread);
    begin = end;
  }
}

void Executor::linear_tiles(const Operation& op, Range tiles, Range rows, const uint8_t* next, int thread) {
  int64_t before = 0;  // tiles of the maps up to this one
  for (size_t map = 0; map < op.weights.size(); ++map) {
    const int64_t count = model_.weights_.matrices[static_cast<size_t>(op.weights[map])].tiles();
    const Range part{std::clamp<int64_t>(tiles.begin - before, 0, count), std::clamp<int64_t>(tiles.end - before, 0, count)};
    if (part.begin < part.end) linear_part(op, map, part, rows, next, thread);
    before += count;
  }
}

Executor::TileBytes Executor::tile_bytes(const Operation& op, int64_t tile) const {
  for (const int32_t id : op.weights) {
    const PackedWeight& w = model_.weights_.matrices[static_cast<size_t>(id)];
    if (tile < w.tiles()) return {w.view().data + static_cast<size_t>(tile) * w.view().tile_bytes, w.view().tile_bytes};
    tile -= w.tiles();
  }
  return {nullptr, 0};
}

const uint8_t* Executor::read_after(const Operation& op, Range tiles, int thread) const {
  const auto t = static_cast<size_t>(thread);
  if (tiles.begin >= op.parts[t] && tiles.end < op.parts[t + 1]) return tile_bytes(op, tiles.end).data;
  const Operation* next = next_linear(op);
  return next == nullptr ? nullptr : tile_bytes(*next, next->parts[t]).data;
}

void Executor::linear_part(const Operation& op, size_t map, Range tiles, Range rows, const uint8_t* next, int thread) {
  const PackedWeight& w = model_.weights_.matrices[static_cast<size_t>(op.weights[map])];
  const Buffer &x = at(op.reads[0]), &y = at(op.writes[map]);
  LinearJob job{};
  job.weight = w.view();
  job.tile_begin = tiles.begin;
  job.tile_end = tiles.end;
  job.next = next;
  job.rows = rows.end - rows.begin;
  job.x = x.f32 == nullptr ? nullptr : x.row(rows.begin);
  job.x_stride = x.width;
  job.xq = x.q8 == nullptr ? nullptr : x.q8_row(rows.begin);
  job.y = y.row(rows.begin);
  job.y_stride = y.width;
  job.scratch = has_scratch(w) ? &linear_scratch_[static_cast<size_t>(thread)] : nullptr;
  if (op.biases[map] != kNone) job.bias = model_.weights_.vectors[static_cast<size_t>(op.biases[map])].data();
  if (op.residuals[map] != kNone) {
    job.accumulate = true;
    const int64_t begin = tiles.begin * kTileRows, end = std::min(tiles.end * kTileRows, w.rows());
    const Buffer& residual = at(op.residuals[map]);
    if (residual.f32 != y.f32)
      for (int64_t row = rows.begin; row < rows.end; ++row)
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

void Executor::multiply(const PackedWeight& w, GatheredRows& in, float* y) {
  const auto count = static_cast<int64_t>(in.x.size()) / w.cols();
  if (!is_float(w.type()) && in.xq.empty()) {
    const int64_t blocks = activation_blocks(w.cols());
    in.xq.resize(static_cast<size_t>(count * blocks));
    for (int64_t row = 0; row < count; ++row)
      linear_.quantize_row(in.x.data() + row * w.cols(), w.cols(), in.xq.data() + row * blocks);
  }
  LinearJob job{};
  job.weight = w.view();
  job.rows = count;
  job.x = in.x.data();
  job.x_stride = w.cols();
  job.xq = in.xq.data();
  job.y = y;
  job.y_stride = w.rows();
  pool_.run([&](int thread) {
    const Range tiles = partition(w.tiles(), 1, thread, pool_.size());
    LinearJob part = job;
    LinearScratch& scratch = linear_scratch_[static_cast<size_t>(thread)];
    scratch = {.memory = model_.scratch(thread)};
    part.scratch = has_scratch(w) ? &scratch : nullptr;
    part.tile_begin = tiles.begin, part.tile_end = tiles.end;
    if (tiles.begin < tiles.end) linear_.linear(part);
  });
}

// y[row] += scale * B (A x[row]) for the rows of one adapter; a row's term does not depend on which rows are with it.
void Executor::add_adapter(const Operation& op, size_t map, const LowRankAdapter& adapter, const LowRankPair& pair,
                           const std::vector<int64_t>& rows) {
  const Buffer &x = at(op.reads[0]), &y = at(op.writes[map]);
  GatheredRows in, inner;
  for (const int64_t row : rows) in.x.insert(in.x.end(), x.row(row), x.row(row) + x.width);
  inner.x.resize(rows.size() * static_cast<size_t>(pair.a.rows()));
  multiply(pair.a, in, inner.x.data());
  std::vector<float> delta(rows.size() * static_cast<size_t>(y.width));
  multiply(pair.b, inner, delta.data());
  for (size_t i = 0; i < rows.size(); ++i)
    row_.add_scaled(delta.data() + static_cast<int64_t>(i) * y.width, adapter.scale, y.width, y.row(rows[i]));
}

}  // namespace herd
