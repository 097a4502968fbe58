// The blocks of files, read value by value: what a code, a scale and an offset are in each type.
// The layouts are ggml's; openherd/quant/dequantize.py is their executable specification.
#pragma once

#include <cstdint>

#include "block_type.h"

namespace herd {

// One block taken apart. Scales and offsets stay as stored: float16 bits (an exponent byte for MXFP4) in `d`, `m`, and the
// sub-blocks' integers in `scale`, `min` (for Q2_K both in `scale`, min in the high nibble).
struct FileBlock {
  uint8_t codes[256];
  uint16_t d;
  uint16_t m;
  uint8_t scale[16];
  uint8_t min[8];
};

// `type` is not a float type.
void read_file_block(BlockType type, const uint8_t* bytes, FileBlock& block);

}  // namespace herd
