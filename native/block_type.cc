#include "block_type.h"

#include <stdexcept>
#include <string>

namespace herd {

BlockShape block_shape(BlockType type) {
  switch (type) {
    case BlockType::f32: return {"F32", 1, 4};
    case BlockType::f16: return {"F16", 1, 2};
    case BlockType::bf16: return {"BF16", 1, 2};
    case BlockType::q4_0: return {"Q4_0", 32, 18};
    case BlockType::q4_1: return {"Q4_1", 32, 20};
    case BlockType::q5_0: return {"Q5_0", 32, 22};
    case BlockType::q5_1: return {"Q5_1", 32, 24};
    case BlockType::q8_0: return {"Q8_0", 32, 34};
    case BlockType::q2_k: return {"Q2_K", 256, 84};
    case BlockType::q3_k: return {"Q3_K", 256, 110};
    case BlockType::q4_k: return {"Q4_K", 256, 144};
    case BlockType::q5_k: return {"Q5_K", 256, 176};
    case BlockType::q6_k: return {"Q6_K", 256, 210};
    case BlockType::iq4_nl: return {"IQ4_NL", 32, 18};
    case BlockType::mxfp4: return {"MXFP4", 32, 17};
  }
  throw std::invalid_argument("tensor type " + std::to_string(static_cast<uint32_t>(type)) + " is not supported");
}

BlockType block_type_from_id(uint32_t ggml_id) {
  const auto type = static_cast<BlockType>(ggml_id);
  block_shape(type);
  return type;
}

}  // namespace herd
