#include "attention.h"

#include "row_kernels.h"
#include "simd.h"

namespace herd::HERD_ISA_NS {

extern const RowKernels row_kernels;

namespace {

// Vectors of keys or values held at once: with 6 queries, 6 x 4 accumulators fill 24 of AVX-512's 32 registers, 6 x 1 of
// two registers each 12 of AVX2's 16.
constexpr int kVectorGroup = kParts == 1 ? 4 : 1;

// Converting a tile to float32 pays when more groups of queries than this read it (Zen 5, groups of four queries, 6,600
// positions deep: 6 groups 2.1 ms a row with, 1.9 without, 24 the same; a Xeon with AMX: no difference from 3 to 8 groups of
// six). On AVX2 two registers are converted for each fma's operand.
constexpr int64_t kGroupsWorthConverting = kParts == 1 ? 8 : 4;

constexpr size_t kCacheLine = 64;

HERD_INLINE f32x16 load_values(const float* from) { return load(from); }
HERD_INLINE f32x16 load_values(const uint16_t* from) { return load_f16(from); }

template <class Element>
struct Tile {
  const Element* keys[kTileBlocks];    // [head_dim][16] each
  const Element* values[kTileBlocks];  // [16][padded_dim] each
};

// In memory a tile is so many pieces: each block's keys, then each block's values. Computing a group of queries goes
// through as many spans, and each asks for some of the next tile, a little with each vector: whatever is asked for faster
// than memory answers holds up the loads that the computation waits for (94 MB of halves, one thread of a Xeon with AMX, three
// rows in groups of four queries: 11.9 ms with all asked for by the first group, 14.1 with a share in a burst before each
// group, 10.0 so).
constexpr int kPieces = 2 * kTileBlocks;

// What a group of queries asks for of the next tile.
struct Share {
  int halves;  // of a piece in each span: 2 if the group is the only one, else 1; 0: nothing
  const std::byte* spans[kPieces];
};

template <class Element>
const std::byte* half_piece(const Tile<Element>& tile, int64_t head_dim, int64_t half) {
  const int64_t piece = half / 2, upper = half % 2 * kBlockLen / 2;
  const Element* from = piece < kTileBlocks ? tile.keys[piece] + upper * head_dim
                                            : tile.values[piece - kTileBlocks] + upper * padded_dim(head_dim);
  return reinterpret_cast<const std::byte*>(from);
}

// The share of group `number` in `groups`. Where it has fewer halves than spans, the others ask for the last one again.
template <class Element>
Share share_of(const Tile<Element>& next, int64_t head_dim, int64_t number, int64_t groups) {
  constexpr int64_t kHalves = 2 * kPieces;
  const int64_t begin = kHalves * number / groups, end = kHalves * (number + 1) / groups;
  Share share{groups == 1 ? 2 : begin < end, {}};
  for (int64_t span = 0; share.halves > 0 && span < kPieces; ++span) {
    const int64_t half = begin + span * share.halves;
    share.spans[span] = half_piece(next, head_dim, half < end ? half : end - 1);
  }
  return share;
}

template <int kBytes>
HERD_INLINE void fetch(const std::byte* from) {
  constexpr int kSecondLevel = 2;
  _Pragma("GCC unroll 4") for (size_t at = 0; at < kBytes; at += kCacheLine) __builtin_prefetch(from + at, 0, kSecondLevel);
}

// kAhead: bytes of the next tile that are asked for with each vector.
template <int N, int kAhead, class Element>
HERD_INLINE void tile_scores(const float* q, int64_t head_dim, const Tile<Element>& tile, const Share& share,
                             float (*scores)[kTileLen]) {
  for (int block = 0; block < kTileBlocks; block += kVectorGroup) {
    f32x16 sums[N][kVectorGroup];
    for (auto& row : sums)
      for (auto& sum : row) sum = splat(0.0f);
    // Each part is a span.
    _Pragma("GCC unroll 4") for (int part = 0; part < kVectorGroup; ++part) {
      const std::byte* ahead = kAhead > 0 ? share.spans[block + part] : nullptr;
      const int64_t end = head_dim * (part + 1) / kVectorGroup;
      for (int64_t d = head_dim * part / kVectorGroup; d < end; ++d) {
        if constexpr (kAhead > 0) fetch<kVectorGroup * kAhead>(ahead), ahead += kVectorGroup * kAhead;
        f32x16 keys[kVectorGroup];
        for (int v = 0; v < kVectorGroup; ++v) keys[v] = load_values(tile.keys[block + v] + d * kBlockLen);
        for (int i = 0; i < N; ++i) {
          const f32x16 query = splat(q[i * head_dim + d]);
          for (int v = 0; v < kVectorGroup; ++v) sums[i][v] = fma(query, keys[v], sums[i][v]);
        }
      }
    }
    for (int i = 0; i < N; ++i)
      for (int v = 0; v < kVectorGroup; ++v) store(scores[i] + (block + v) * kBlockLen, sums[i][v]);
  }
}

// Scores of the first n >= 1 positions become weights 2^(score - max); those of the others are as good as 0.
HERD_INLINE void tile_weights(float* scores, int64_t n, float* sum, float* max) {
  f32x16 parts[kTileBlocks];
  for (int block = 0; block < kTileBlocks; ++block) parts[block] = load(scores + block * kBlockLen);
  if (n < kTileLen) {
    for (int block = 0; block < kTileBlocks; ++block) {
      const int64_t left = n - block * kBlockLen;
      const i32x16 seen = first_lanes(static_cast<int>(left < 0 ? 0 : left > kLanes ? kLanes : left));
      parts[block] = select(seen, parts[block], splat(-__builtin_inff()));
    }
  }
  f32x16 highest = parts[0];
  for (int block = 1; block < kTileBlocks; ++block) highest = herd::HERD_ISA_NS::max(parts[block], highest);
  const f32x16 shift = splat(reduce_max(highest));
  f32x16 total = splat(0.0f);
  for (int block = 0; block < kTileBlocks; ++block) {
    const f32x16 weights = exp2_of_negative(parts[block] - shift);
    store(scores + block * kBlockLen, weights);
    total = total + weights;
  }
  store(sum, total);
  store(max, shift);
}

constexpr float kLog2E = 1.44269504088896341f;

// The highest score of a query that has seen nothing: finite, so that two of them have a difference.
constexpr float kLowest = -3.0e38f;

// A query under the job's rules; positions count from the tile's first.
struct RuledQuery {
  int64_t own;    // its own position; may lie past the tile
  int64_t begin;  // the first that it sees; may lie past the tile, or before it
  float slope;    // of its head
};

// Scores of one query as the rules have them; what lies before the window is not seen.
HERD_INLINE void apply_rules(const ScoreRules& rules, const RuledQuery& query, float* scores) {
  const f32x16 cap = splat(rules.softcap * kLog2E), slope = splat(query.slope * kLog2E);
  for (int64_t at = 0; at < kTileLen; at += kLanes) {
    f32x16 score = load(scores + at);
    if (rules.softcap > 0) score = cap * tanh(score / cap);
    if (rules.slopes != nullptr) {
      float distances[kLanes];
      for (int64_t lane = 0; lane < kLanes; ++lane) distances[lane] = static_cast<float>(query.own - at - lane);
      score = score - slope * load(distances);
    }
    if (at < query.begin) {
      const int64_t before = query.begin - at;
      score = select(first_lanes(static_cast<int>(before < kLanes ? before : kLanes)), splat(-__builtin_inff()), score);
    }
    store(scores + at, score);
  }
}

// What tile_weights leaves for a query that sees nothing of the tile.
HERD_INLINE void no_weights(float* scores, float* sum, float* max) {
  for (int64_t at = 0; at < kTileLen; at += kLanes) store(scores + at, splat(0.0f));
  store(sum, splat(0.0f));
  store(max, splat(kLowest));
}

// tile_weights under the job's rules.
HERD_INLINE void ruled_weights(const ScoreRules& rules, const RuledQuery& query, float* scores, int64_t n, float* sum, float* max) {
  if (query.begin >= kTileLen) return no_weights(scores, sum, max);
  apply_rules(rules, query, scores);
  tile_weights(scores, n, sum, max);
  for (int64_t p = 0; p < query.begin; ++p) scores[p] = 0.0f;
}

// out[i] (0 at first if kFresh) += weights[i][p] * value[p] over positions [begin, end) of the tile, ascending.
template <int N, int V, bool kFresh, int kAhead, class Element>
HERD_INLINE void add_columns(const Tile<Element>& tile, const Share& share, int64_t begin, int64_t end, int64_t width,
                             int64_t column, const float (*weights)[kTileLen], int64_t stride, float* out) {
  f32x16 sums[N][V];
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < V; ++v) sums[i][v] = kFresh ? splat(0.0f) : load(out + i * stride + column + v * kLanes);
  for (int64_t p = begin; p < end;) {
    const Element* row = tile.values[p / kBlockLen] + p % kBlockLen * width + column;
    const int64_t vectors_before = column / kLanes * kBlockLen + p % kBlockLen * V;
    const std::byte* ahead = kAhead > 0 ? share.spans[kTileBlocks + p / kBlockLen] + vectors_before * kAhead : nullptr;
    const int64_t block_end = (p / kBlockLen + 1) * kBlockLen, stop = block_end < end ? block_end : end;
    for (; p < stop; ++p, row += width) {
      if constexpr (kAhead > 0) fetch<V * kAhead>(ahead), ahead += V * kAhead;
      f32x16 values[V];
      for (int v = 0; v < V; ++v) values[v] = load_values(row + v * kLanes);
      for (int i = 0; i < N; ++i) {
        const f32x16 weight = splat(weights[i][p]);
        for (int v = 0; v < V; ++v) sums[i][v] = fma(weight, values[v], sums[i][v]);
      }
    }
  }
  for (int i = 0; i < N; ++i)
    for (int v = 0; v < V; ++v) store(out + i * stride + column + v * kLanes, sums[i][v]);
}

template <int N, bool kFresh, int kAhead, class Element>
HERD_INLINE void add_values(const Tile<Element>& tile, const Share& share, int64_t begin, int64_t end, int64_t width,
                            const float (*weights)[kTileLen], int64_t stride, float* out) {
  int64_t column = 0;
  for (; column + kVectorGroup * kLanes <= width; column += kVectorGroup * kLanes)
    add_columns<N, kVectorGroup, kFresh, kAhead>(tile, share, begin, end, width, column, weights, stride, out);
  for (; column < width; column += kLanes)
    add_columns<N, 1, kFresh, kAhead>(tile, share, begin, end, width, column, weights, stride, out);
}

// The records of N queries from one tile; seen[i] >= 1 of its positions are in query i's past. Not inlined: within its
// caller GCC keeps pointers of the inner loops in memory.
template <int N, int kAhead, class Element>
__attribute__((noinline)) void group_step(const float* q, int64_t head_dim, const Tile<Element>& tile,
                                          const Share& share, const int64_t* seen, const ScoreRules* rules,
                                          const RuledQuery* ruled, float* records) {
  const int64_t width = padded_dim(head_dim), stride = record_floats(head_dim);
  alignas(64) float weights[N][kTileLen];
  tile_scores<N, kAhead>(q, head_dim, tile, share, weights);
  int64_t shared = kTileLen;  // positions that all N queries see
  for (int i = 0; i < N; ++i) {
    float* sum = records + i * stride + width;
    if (rules != nullptr)
      ruled_weights(*rules, ruled[i], weights[i], seen[i], sum, sum + kRecordLanes);
    else
      tile_weights(weights[i], seen[i], sum, sum + kRecordLanes);
    if (seen[i] < shared) shared = seen[i];
  }
  add_values<N, true, kAhead>(tile, share, 0, shared, width, weights, stride, records);
  for (int i = 0; i < N; ++i)
    if (seen[i] > shared)
      add_values<1, false, 0>(tile, share, shared, seen[i], width, weights + i, stride, records + i * stride);
}

template <int N, class CacheElement, class Element>
void group_step(const float* q, int64_t head_dim, const Tile<Element>& tile, const Share& share, const int64_t* seen,
                const ScoreRules* rules, const RuledQuery* ruled, float* records) {
  constexpr int kWhole = kLanes * sizeof(CacheElement);
  switch (share.halves) {
    case 2: return group_step<N, kWhole>(q, head_dim, tile, share, seen, rules, ruled, records);
    case 1: return group_step<N, kWhole / 2>(q, head_dim, tile, share, seen, rules, ruled, records);
    default: return group_step<N, 0>(q, head_dim, tile, share, seen, rules, ruled, records);
  }
}

void merge(float* records, const float* following, int64_t queries, int64_t head_dim) {
  const int64_t stride = record_floats(head_dim), max_at = stride - kRecordLanes;
  const f32x16 one = splat(1.0f);
  for (int64_t i = 0; i < queries; ++i, records += stride, following += stride) {
    const f32x16 left = load(records + max_at), right = load(following + max_at);
    const i32x16 left_higher = left > right;
    const f32x16 highest = select(left_higher, left, right), lowest = select(left_higher, right, left);
    const f32x16 scale = exp2_of_negative(lowest - highest);
    const f32x16 left_scale = select(left_higher, one, scale), right_scale = select(left_higher, scale, one);
    for (int64_t at = 0; at < max_at; at += kLanes)
      store(records + at, fma(load(following + at), right_scale, load(records + at) * left_scale));
    store(records + max_at, highest);
  }
}

// The job's queries, rotated and scaled, and room for what is between a tile and its records.
struct Work {
  const float* q;    // [rows * heads][head_dim]
  float* group;      // records of one group of queries
  float* converted;  // a tile in float32
};

// Records of queries that a whole tile lies before or after: nothing seen, so that merging them changes no bit.
void clear_records(float* records, int64_t queries, int64_t head_dim) {
  const int64_t stride = record_floats(head_dim), max_at = stride - kRecordLanes;
  for (int64_t i = 0; i < queries; ++i, records += stride) {
    for (int64_t at = 0; at < max_at; at += kLanes) store(records + at, splat(0.0f));
    store(records + max_at, splat(kLowest));
  }
}

RuledQuery ruled_query(const AttentionJob& job, int64_t i, int64_t tile_begin) {
  const int64_t own = job.first_position + i / job.heads - tile_begin;
  const float slope = job.rules->slopes == nullptr ? 0.0f : job.rules->slopes[i % job.heads];
  return {own, job.rules->window == 0 ? -tile_begin : own - job.rules->window + 1, slope};
}

// All queries from `first` on meet one tile, while the next one, if any, is fetched from the cache.
template <class CacheElement, class Element>
void tile_step(const AttentionJob& job, const Work& work, int64_t first, int64_t tile_begin, const Tile<Element>& tile,
               const Tile<CacheElement>* next) {
  const int64_t count = job.rows * job.heads, head_dim = job.head_dim, stride = record_floats(head_dim);
  const bool merged = job.tile_begin == 0 && tile_begin > 0;
  float* const records =
      job.records + (job.tile_begin == 0 ? 0 : (tile_begin / kTileLen - job.tile_begin) * count * stride);
  if (job.tile_begin > 0) clear_records(records, first, head_dim);
  int64_t seen[kQueryGroup];
  RuledQuery ruled[kQueryGroup];
  const int64_t groups = (count - first + kQueryGroup - 1) / kQueryGroup;
  for (int64_t i = first; i < count; i += kQueryGroup) {
    const Share share = next ? share_of(*next, head_dim, (i - first) / kQueryGroup, groups) : Share{};
    const int64_t n = count - i < kQueryGroup ? count - i : kQueryGroup;
    for (int64_t j = 0; j < n; ++j) {
      const int64_t past = job.first_position + (i + j) / job.heads + 1 - tile_begin;
      seen[j] = past < kTileLen ? past : kTileLen;
      if (job.rules != nullptr) ruled[j] = ruled_query(job, i + j, tile_begin);
    }
    const float* q = work.q + i * head_dim;
    float* const out = merged ? work.group : records + i * stride;
    switch (n) {
      case 6: group_step<6, CacheElement>(q, head_dim, tile, share, seen, job.rules, ruled, out); break;
      case 5: group_step<5, CacheElement>(q, head_dim, tile, share, seen, job.rules, ruled, out); break;
      case 4: group_step<4, CacheElement>(q, head_dim, tile, share, seen, job.rules, ruled, out); break;
      case 3: group_step<3, CacheElement>(q, head_dim, tile, share, seen, job.rules, ruled, out); break;
      case 2: group_step<2, CacheElement>(q, head_dim, tile, share, seen, job.rules, ruled, out); break;
      default: group_step<1, CacheElement>(q, head_dim, tile, share, seen, job.rules, ruled, out); break;
    }
    if (merged) merge(records + i * stride, out, n, head_dim);
  }
}

// Where block i of the tile at `tile_begin` lies. Blocks past the end are never seen; the last one stands in for them.
const std::byte* block_of(const AttentionJob& job, int64_t tile_begin, int64_t i) {
  const int64_t last = (job.first_position + job.rows - 1) / kBlockLen, block = tile_begin / kBlockLen + i;
  return job.cache.blocks + static_cast<size_t>(job.block_table[block < last ? block : last]) * job.cache.block_bytes;
}

template <class Element>
Tile<Element> find_tile(const AttentionJob& job, int64_t tile_begin) {
  Tile<Element> tile;
  for (int64_t i = 0; i < kTileBlocks; ++i) {
    const std::byte* base = block_of(job, tile_begin, i);
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
    for (int64_t at = 0; at < kBlockLen * head_dim; at += kLanes, scratch += kLanes) {
      store(scratch, load_f16(half.keys[i] + at));
    }
    tile.values[i] = scratch;
    for (int64_t at = 0; at < kBlockLen * width; at += kLanes, scratch += kLanes) {
      store(scratch, load_f16(half.values[i] + at));
    }
  }
  return tile;
}

void prepare_queries(const AttentionJob& job, float* q) {
  const float scale = job.scale == 0 ? kLog2E / __builtin_sqrtf(static_cast<float>(job.head_dim)) : kLog2E * job.scale;
  for (int64_t row = 0; row < job.rows; ++row)
    for (int64_t head = 0; head < job.heads; ++head, q += job.head_dim)
      row_kernels.rotate(job.q + row * job.q_stride + head * job.head_dim, job.turns + row * job.turns_stride,
                         job.rotary_dim, job.head_dim, scale, q);
}

void finish(const AttentionJob& job) {
  const int64_t stride = record_floats(job.head_dim);
  const float* record = job.records;
  for (int64_t i = 0; i < job.rows * job.heads; ++i, record += stride) {
    float* out = job.out + i / job.heads * job.out_stride + i % job.heads * job.head_dim;
    const float scale = 1.0f / reduce_sum(load(record + padded_dim(job.head_dim)));
    for (int64_t d = 0; d < job.head_dim; ++d) out[d] = record[d] * scale;
  }
}

// The first of the job's tiles that a window reaches. Those before it have records of nothing.
int64_t pass_by(const AttentionJob& job) {
  const int64_t window = job.rules == nullptr ? 0 : job.rules->window;
  if (window == 0 || job.first_position < window) return job.tile_begin;
  const int64_t reached = (job.first_position - window + 1) / kTileLen, queries = job.rows * job.heads;
  if (reached <= job.tile_begin) return job.tile_begin;
  const int64_t first = reached < job.tile_end ? reached : job.tile_end;
  clear_records(job.records, job.tile_begin == 0 ? queries : (first - job.tile_begin) * queries, job.head_dim);
  return first;
}

void attend(const AttentionJob& job) {
  const int64_t count = job.rows * job.heads;
  float* const q = job.scratch;
  float* const group = q + padded_dim(count) * job.head_dim;
  const Work work{q, group, group + kQueryGroup * record_floats(job.head_dim)};
  prepare_queries(job, q);
  const int64_t first = pass_by(job);
  for (int64_t number = first; number < job.tile_end; ++number) {
    const int64_t begin = number * kTileLen;
    const int64_t skipped = begin > job.first_position ? (begin - job.first_position) * job.heads : 0;
    const bool last = number + 1 == job.tile_end;
    if (!job.cache.half) {
      const auto tile = find_tile<float>(job, begin), next = find_tile<float>(job, begin + kTileLen);
      tile_step(job, work, skipped, begin, tile, last ? nullptr : &next);
      continue;
    }
    const auto tile = find_tile<uint16_t>(job, begin), next = find_tile<uint16_t>(job, begin + kTileLen);
    if (count - skipped > kGroupsWorthConverting * kQueryGroup) {
      tile_step(job, work, skipped, begin, convert_tile(tile, job.head_dim, work.converted), last ? nullptr : &next);
    } else {
      tile_step(job, work, skipped, begin, tile, last ? nullptr : &next);
    }
  }
}

}  // namespace

extern const AttentionKernels attention_kernels;
const AttentionKernels attention_kernels{attend, merge, finish};

}  // namespace herd::HERD_ISA_NS
