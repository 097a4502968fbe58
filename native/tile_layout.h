// How one tile of a quantised type is laid out and read: the facts behind the picture in packed_weight.h.
// Everything is `static`, so that kernel sources may use it (see isa.h).
#pragma once

#include <cstdint>

#include "block_type.h"

namespace herd {

constexpr int kStep = 32;        // k per step: one block of activations
constexpr int kGroups = 8;       // groups of 4 k in a step
constexpr int kGroupBytes = 64;  // 16 rows x 4 codes
constexpr int kSuperSteps = 8;   // steps in a K-quant's super-block of 256

// How a step's scale and offset are stored, for 16 rows side by side.
enum class ScaleKind {
  halves,     // float16 d, then m
  exponent,   // one byte e: 2^(e - 128), so that MXFP4's doubled code book comes out right
  super,      // float16 d and dmin, then bytes: scale d * s and offset -dmin * m per sub-block
  super_pair  // the same with s in the low nibble and m in the high one of one byte
};

// value = scale * (code - zero) + offset, or scale * book[code].
struct TileLayout {
  int low_bits;   // of a code in the first plane: 8, 4 or 2
  int high_bits;  // in the second: 0, 1 or 2
  int zero;       // the code of 0
  const int8_t* book;
  bool is_signed;   // the code's byte is two's complement
  ScaleKind scales;
  bool has_offset;
  int sub_blocks;  // per step with a scale of their own: 1 or 2

  // The largest magnitude of the byte that a code becomes for the dot product.
  constexpr int largest() const {
    if (book == nullptr) return is_signed ? 128 : (1 << (low_bits + high_bits)) - 1;
    int most = 0;
    for (int i = 0; i < 16; ++i) most = book[i] > most ? book[i] : -book[i] > most ? -book[i] : most;
    return most;
  }

  constexpr int step_bytes() const { return kGroupBytes * (low_bits + high_bits); }
  constexpr bool is_super() const { return scales == ScaleKind::super || scales == ScaleKind::super_pair; }
  constexpr int record_steps() const { return is_super() ? kSuperSteps : 1; }
  // Bytes of one record of scales, without and with its sub-blocks' bytes.
  constexpr int header_bytes() const { return scales == ScaleKind::exponent ? 16 : has_offset ? 64 : 32; }
  constexpr int record_bytes() const {
    const int vectors = scales == ScaleKind::super && has_offset ? 2 : is_super() ? 1 : 0;
    return header_bytes() + vectors * kSuperSteps * sub_blocks * 16;
  }
};

// The code books of ggml's IQ4_NL, and of OCP Microscaling Formats 1.0, table 5 (E2M1), doubled to be integers.
static constexpr int8_t kIq4NlBook[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
static constexpr int8_t kMxfp4Book[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// For the types that are not is_float.
static constexpr TileLayout tile_layout(BlockType type) {
  switch (type) {  // low, high, zero, book, signed, scales, offset, sub-blocks
    case BlockType::q4_0: return {4, 0, 8, nullptr, false, ScaleKind::halves, false, 1};
    case BlockType::q4_1: return {4, 0, 0, nullptr, false, ScaleKind::halves, true, 1};
    case BlockType::q5_0: return {4, 1, 16, nullptr, false, ScaleKind::halves, false, 1};
    case BlockType::q5_1: return {4, 1, 0, nullptr, false, ScaleKind::halves, true, 1};
    case BlockType::q2_k: return {2, 0, 0, nullptr, false, ScaleKind::super_pair, true, 2};
    case BlockType::q3_k: return {2, 1, 4, nullptr, false, ScaleKind::super, false, 2};
    case BlockType::q4_k: return {4, 0, 0, nullptr, false, ScaleKind::super, true, 1};
    case BlockType::q5_k: return {4, 1, 0, nullptr, false, ScaleKind::super, true, 1};
    case BlockType::q6_k: return {4, 2, 32, nullptr, false, ScaleKind::super, false, 2};
    case BlockType::iq4_nl: return {4, 0, 0, kIq4NlBook, false, ScaleKind::halves, false, 1};
    case BlockType::mxfp4: return {4, 0, 0, kMxfp4Book, false, ScaleKind::exponent, false, 1};
    default: return {8, 0, 0, nullptr, true, ScaleKind::halves, false, 1};  // q8_0
  }
}

}  // namespace herd
