#include "kv_cache.h"

#include <stdexcept>

#include "weight_memory.h"

namespace herd {
namespace {

constexpr int64_t kMostSize = int64_t{1} << 24;

size_t checked_bytes(const KVShape& shape, int64_t num_blocks) {
  constexpr size_t kMost = size_t{1} << 46;
  check_kv_shape(shape);
  if (num_blocks < 1) throw std::invalid_argument("the KV cache needs at least one block");
  if (shape.block_bytes() == 0 || static_cast<size_t>(num_blocks) > kMost / shape.block_bytes())
    throw std::length_error("the KV cache would not fit 2^46 bytes");
  return shape.block_bytes() * static_cast<size_t>(num_blocks);
}

}  // namespace

void check_kv_shape(const KVShape& shape) {
  for (const int64_t size : {shape.layers, shape.kv_heads, shape.head_dim})
    if (size < 1 || size > kMostSize) throw std::invalid_argument("layers, KV heads and head_dim must be from 1 to 2^24");
  if (shape.kv_heads * shape.head_dim > kMostSize)
    throw std::invalid_argument("kv_heads * head_dim must be at most 2^24");
}

KVCache::KVCache(const KVShape& shape, int64_t num_blocks)
    : shape_(shape), num_blocks_(num_blocks), memory_(WeightMemory().take(checked_bytes(shape, num_blocks))) {}

HeadCache KVCache::head(int64_t layer, int64_t kv_head) const {
  const size_t keys = static_cast<size_t>(layer * shape_.kv_heads + kv_head) * shape_.head_bytes();
  const size_t values = keys + static_cast<size_t>(kBlockLen * shape_.head_dim) * shape_.element_bytes();
  return {data(), shape_.block_bytes(), keys, values, shape_.half};
}

}  // namespace herd
