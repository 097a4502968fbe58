// The storage types of weights, with ggml's ids and sizes; openherd/quant/types.py holds the same table for Python.
#pragma once

#include <cstdint>

namespace herd {

enum class BlockType : uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq4_nl = 20,
  bf16 = 30,
  mxfp4 = 39,
};

struct BlockShape {
  const char* name;
  int64_t values;  // per block
  int64_t bytes;
};

// Throws std::invalid_argument for an id that is not in the table.
BlockType block_type_from_id(uint32_t ggml_id);
BlockShape block_shape(BlockType type);

// Weights of these types are multiplied by float32 activations; the others by activations in int8 blocks.
constexpr bool is_float(BlockType type) {
  return type == BlockType::f32 || type == BlockType::f16 || type == BlockType::bf16;
}

}  // namespace herd
