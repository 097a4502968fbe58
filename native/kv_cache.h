// The paged cache of keys and values: blocks of 16 positions, each holding all layers, so that copying or saving a
// block is one memcpy.
//
// In a block, for each layer and KV head: keys [head_dim][16 positions], then values [16 positions][padded_dim].
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "attention.h"

namespace herd {

struct KVShape {
  int64_t layers;
  int64_t kv_heads;
  int64_t head_dim;
  bool half;  // IEEE halves, else float32

  size_t element_bytes() const { return half ? 2 : 4; }
  size_t head_bytes() const {
    return static_cast<size_t>(kBlockLen * (head_dim + padded_dim(head_dim))) * element_bytes();
  }
  size_t block_bytes() const { return static_cast<size_t>(layers * kv_heads) * head_bytes(); }
};

// Throws std::invalid_argument unless every size is from 1 to 2^24 and the heads are at most 2^24 values together: no size
// of a block then overflows.
void check_kv_shape(const KVShape& shape);

class KVCache {
 public:
  KVCache(const KVShape& shape, int64_t num_blocks);

  const KVShape& shape() const { return shape_; }
  int64_t num_blocks() const { return num_blocks_; }
  HeadCache head(int64_t layer, int64_t kv_head) const;
  std::byte* block(int64_t id) const { return data() + static_cast<size_t>(id) * shape_.block_bytes(); }

 private:
  std::byte* data() const { return reinterpret_cast<std::byte*>(memory_.get()); }

  KVShape shape_;
  int64_t num_blocks_;
  std::shared_ptr<uint8_t> memory_;
};

}  // namespace herd
