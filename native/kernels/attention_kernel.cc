#include "attention.h"

#include "row_kernels.h"
#include "simd.h"

namespace herd::HERD_ISA_NS {

extern const RowKernels row_kernels;

namespace {

// Queries that share each load of a key or value, and vectors of keys or values held at once: 4 x 4 accumulators fill
// half of AVX-512's 32 registers, 4 x 1 of two registers each fill half of AVX2's 16.
constexpr int kQueryGroup = 4;
constexpr int kVectorGroup = kParts == 1 ? 4 : 1;

// Converting a tile to float32 pays when more groups of queries than this read it.
constexpr int64_t kGroupsWorthConverting = 2;

HERD_INLINE f32x16 load_values(const float* from) { return load(from); }
HERD_INLINE f32x16 load_values(const uint16_t* from) { return load_f16(from); }

template <class Element>
struct Tile {
  const Element* keys[kTileBlocks];    // [head_dim][16] each
  const Element* values[kTileBlocks];  // [16][padded_dim] each
};

// Running softmax of each query.
struct Queries {
  const float* q;  // [n][head_dim], rotated and scaled
  float* out;      // [n][padded_dim], not yet divided by sum
  float* max;
  float* sum;
};

template <int N, class Element>
HERD_INLINE void tile_scores(const float* q, int64_t head_dim, const Tile<Element>& tile, float (*scores)[kTileLen]) {
  for (int block = 0; block < kTileBlocks; block += kVectorGroup) {
    f32x16 sums[N][kVectorGroup];
    for (auto& row : sums)
      for (auto& sum : row) sum = splat(0.0f);
    for (int64_t d = 0; d < head_dim; ++d) {
      f32x16 keys[kVectorGroup];
      for (int v = 0; v < kVectorGroup; ++v) keys[v] = load_values(tile.keys[block + v] + d * kBlockLen);
      for (int i = 0; i < N; ++i) {
        const f32x16 query = splat(q[i * head_dim + d]);
        for (int v = 0; v < kVectorGroup; ++v) sums[i][v] = fma(query, keys[v], sums[i][v]);
      }
    }
    for (int i = 0; i < N; ++i)
      for (int v = 0; v < kVectorGroup; ++v) store(scores[i] + (block + v) * kBlockLen, sums[i][v]);
  }
}

// Scores of the first n positions become weights e^(score - max), the others 0. Returns what earlier sums are scaled by.
HERD_INLINE float tile_weights(float* scores, int64_t n, float& max, float& sum) {
  f32x16 parts[kTileBlocks];
  f32x16 highest = splat(max);
  for (int block = 0; block < kTileBlocks; ++block) {
    const int64_t left = n - block * kBlockLen;
    const i32x16 seen = first_lanes(static_cast<int>(left < 0 ? 0 : left > kLanes ? kLanes : left));
    parts[block] = select(seen, load(scores + block * kBlockLen), splat(-__builtin_inff()));
    highest = herd::HERD_ISA_NS::max(parts[block], highest);
  }
  const float new_max = reduce_max(highest);
  const f32x16 shift = splat(new_max);
  f32x16 total = splat(0.0f);
  for (int block = 0; block < kTileBlocks; ++block) {
    const f32x16 weights = exp(parts[block] - shift);
    store(scores + block * kBlockLen, weights);
    total = total + weights;
  }
  float scale[kLanes];
  store(scale, exp(splat(max) - shift));
  max = new_max;
  sum = sum * scale[0] + reduce_sum(total);
  return scale[0];
}

// out[i] = out[i] * scales[i] + weights[i][p] * value[p] over positions [begin, end) of the tile, ascending.
template <int N, int V, class Element>
HERD_INLINE void add_columns(const Tile<Element>& tile, int64_t begin, int64_t end, int64_t width, int64_t column,
                             const float (*weights)[kTileLen], const float* scales, float* out) {
  f32x16 sums[N][V];
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < V; ++v) sums[i][v] = load(out + i * width + column + v * kLanes) * splat(scales[i]);
  for (int64_t p = begin; p < end; ++p) {
    const Element* row = tile.values[p / kBlockLen] + p % kBlockLen * width + column;
    f32x16 values[V];
    for (int v = 0; v < V; ++v) values[v] = load_values(row + v * kLanes);
    for (int i = 0; i < N; ++i) {
      const f32x16 weight = splat(weights[i][p]);
      for (int v = 0; v < V; ++v) sums[i][v] = fma(weight, values[v], sums[i][v]);
    }
  }
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < V; ++v) store(out + i * width + column + v * kLanes, sums[i][v]);
}

template <int N, class Element>
HERD_INLINE void add_values(const Tile<Element>& tile, int64_t begin, int64_t end, int64_t width,
                            const float (*weights)[kTileLen], const float* scales, float* out) {
  int64_t column = 0;
  for (; column + kVectorGroup * kLanes <= width; column += kVectorGroup * kLanes)
    add_columns<N, kVectorGroup>(tile, begin, end, width, column, weights, scales, out);
  for (; column < width; column += kLanes) add_columns<N, 1>(tile, begin, end, width, column, weights, scales, out);
}

// N queries meet one tile; seen[i] of its positions are in query i's past.
template <int N, class Element>
void group_step(const Queries& queries, int64_t first, int64_t head_dim, const Tile<Element>& tile, const int64_t* seen) {
  const int64_t width = padded_dim(head_dim);
  alignas(64) float weights[N][kTileLen];
  float scales[N];
  tile_scores<N>(queries.q + first * head_dim, head_dim, tile, weights);
  int64_t shared = kTileLen;  // positions that all N queries see
  for (int i = 0; i < N; ++i) {
    scales[i] = tile_weights(weights[i], seen[i], queries.max[first + i], queries.sum[first + i]);
    if (seen[i] < shared) shared = seen[i];
  }
  float* out = queries.out + first * width;
  add_values<N>(tile, 0, shared, width, weights, scales, out);
  const float keep = 1.0f;
  for (int i = 0; i < N; ++i)
    if (seen[i] > shared) add_values<1>(tile, shared, seen[i], width, weights + i, &keep, out + i * width);
}

// All queries from `first` on meet one tile.
template <class Element>
void tile_step(const Queries& queries, int64_t first, int64_t count, const AttentionJob& job, int64_t tile_begin,
               const Tile<Element>& tile) {
  int64_t seen[kQueryGroup];
  for (int64_t i = first; i < count; i += kQueryGroup) {
    const int64_t n = count - i < kQueryGroup ? count - i : kQueryGroup;
    for (int64_t j = 0; j < n; ++j) {
      const int64_t past = job.first_position + (i + j) / job.heads + 1 - tile_begin;
      seen[j] = past < kTileLen ? past : kTileLen;
    }
    switch (n) {
      case 4: group_step<4>(queries, i, job.head_dim, tile, seen); break;
      case 3: group_step<3>(queries, i, job.head_dim, tile, seen); break;
      case 2: group_step<2>(queries, i, job.head_dim, tile, seen); break;
      default: group_step<1>(queries, i, job.head_dim, tile, seen); break;
    }
  }
}

template <class Element>
Tile<Element> find_tile(const AttentionJob& job, int64_t tile_begin, int64_t end_position) {
  Tile<Element> tile;
  const int64_t first_block = tile_begin / kBlockLen;
  const int64_t last_block = (end_position - 1) / kBlockLen;
  for (int64_t i = 0; i < kTileBlocks; ++i) {
    // Blocks past the end are never seen; the last one stands in for their addresses.
    const int64_t block = first_block + i < last_block ? first_block + i : last_block;
    const std::byte* base = job.cache.blocks + static_cast<size_t>(job.block_table[block]) * job.cache.block_bytes;
    tile.keys[i] = reinterpret_cast<const Element*>(base + job.cache.keys_offset);
    tile.values[i] = reinterpret_cast<const Element*>(base + job.cache.values_offset);
  }
  return tile;
}

// The tile's halves as float32 in scratch, for many queries.
Tile<float> convert_tile(const Tile<uint16_t>& half, int64_t head_dim, float* scratch) {
  Tile<float> tile;
  const int64_t width = padded_dim(head_dim);
  for (int i = 0; i < kTileBlocks; ++i) {
    tile.keys[i] = scratch;
    for (int64_t d = 0; d < head_dim; ++d, scratch += kLanes) store(scratch, load_f16(half.keys[i] + d * kLanes));
    tile.values[i] = scratch;
    for (int64_t at = 0; at < kBlockLen * width; at += kLanes, scratch += kLanes)
      store(scratch, load_f16(half.values[i] + at));
  }
  return tile;
}

void prepare_queries(const AttentionJob& job, float* q) {
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(job.head_dim));
  for (int64_t row = 0; row < job.rows; ++row)
    for (int64_t head = 0; head < job.heads; ++head, q += job.head_dim)
      row_kernels.rotate(job.q + row * job.q_stride + head * job.head_dim, job.turns + row * job.turns_stride,
                         job.rotary_dim, job.head_dim, scale, q);
}

void write_results(const AttentionJob& job, const Queries& queries) {
  const int64_t width = padded_dim(job.head_dim);
  for (int64_t i = 0; i < job.rows * job.heads; ++i) {
    float* out = job.out + i / job.heads * job.out_stride + i % job.heads * job.head_dim;
    const float scale = 1.0f / queries.sum[i];
    for (int64_t d = 0; d < job.head_dim; ++d) out[d] = queries.out[i * width + d] * scale;
  }
}

void attend(const AttentionJob& job) {
  const int64_t count = job.rows * job.heads, width = padded_dim(job.head_dim);
  const int64_t room = padded_dim(count);
  float* q = job.scratch;
  const Queries queries{q, q + room * job.head_dim, q + room * (job.head_dim + width),
                        q + room * (job.head_dim + width + 1)};
  float* converted = q + room * (job.head_dim + width + 2);
  prepare_queries(job, q);
  for (int64_t i = 0; i < count * width; ++i) queries.out[i] = 0.0f;
  for (int64_t i = 0; i < count; ++i) queries.max[i] = -__builtin_inff(), queries.sum[i] = 0.0f;

  const int64_t end_position = job.first_position + job.rows;
  for (int64_t begin = 0; begin < end_position; begin += kTileLen) {
    const int64_t skipped = begin > job.first_position ? (begin - job.first_position) * job.heads : 0;
    if (!job.cache.half) {
      tile_step(queries, skipped, count, job, begin, find_tile<float>(job, begin, end_position));
      continue;
    }
    const auto tile = find_tile<uint16_t>(job, begin, end_position);
    if (count - skipped > kGroupsWorthConverting * kQueryGroup) {
      tile_step(queries, skipped, count, job, begin, convert_tile(tile, job.head_dim, converted));
    } else {
      tile_step(queries, skipped, count, job, begin, tile);
    }
  }
  write_results(job, queries);
}

}  // namespace

extern const AttentionKernels attention_kernels;
const AttentionKernels attention_kernels{attend};

}  // namespace herd::HERD_ISA_NS
