#include "file_block.h"

#include <cstring>

namespace herd {
namespace {

uint16_t read_u16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// n bytes hold 2 n codes: the low nibbles are the first n, the high ones the next n.
void read_nibbles(const uint8_t* bytes, int n, uint8_t* codes) {
  for (int i = 0; i < n; ++i) codes[i] = bytes[i] & 15;
  for (int i = 0; i < n; ++i) codes[n + i] = bytes[i] >> 4;
}

// n bytes hold 4 n codes of two bits: bits 0-1 are the first n, and so on.
void read_pairs(const uint8_t* bytes, int n, uint8_t* codes) {
  for (int p = 0; p < 4; ++p)
    for (int i = 0; i < n; ++i) codes[p * n + i] = (bytes[i] >> (2 * p)) & 3;
}

// Q5_0 and Q5_1: bit i of a 32-bit word is bit 4 of code i.
void add_fifth_bits(const uint8_t* word, uint8_t* codes) {
  uint32_t bits;
  std::memcpy(&bits, word, sizeof bits);
  for (int i = 0; i < 32; ++i) codes[i] |= static_cast<uint8_t>(((bits >> i) & 1) << 4);
}

// K-quants: bit p of byte i (of 32) belongs to code 32 p + i.
void add_bit_plane(const uint8_t* bytes, int to_bit, uint8_t* codes) {
  for (int p = 0; p < 8; ++p)
    for (int i = 0; i < 32; ++i) codes[32 * p + i] |= static_cast<uint8_t>(((bytes[i] >> p) & 1) << to_bit);
}

// Q4_K and Q5_K: 8 scales and 8 mins of 6 bits in 12 bytes.
void read_scales_and_mins(const uint8_t* p, FileBlock& block) {
  for (int i = 0; i < 4; ++i) {
    block.scale[i] = p[i] & 63;
    block.min[i] = p[4 + i] & 63;
    block.scale[4 + i] = static_cast<uint8_t>((p[8 + i] & 15) | ((p[i] >> 2) & 48));
    block.min[4 + i] = static_cast<uint8_t>((p[8 + i] >> 4) | ((p[4 + i] >> 2) & 48));
  }
}

// Q3_K: 16 scales of 6 bits in 12 bytes, kept here less their bias of 32, as int8.
void read_signed_scales(const uint8_t* p, FileBlock& block) {
  for (int i = 0; i < 16; ++i) {
    const int low = (p[i % 8] >> (4 * (i / 8))) & 15;
    const int high = (p[8 + i % 4] >> (2 * (i / 4))) & 3;
    block.scale[i] = static_cast<uint8_t>((low | (high << 4)) - 32);
  }
}

void read_q2_k(const uint8_t* p, FileBlock& block) {  // scales[16] codes[64] d dmin
  std::memcpy(block.scale, p, 16);
  for (int half = 0; half < 2; ++half) read_pairs(p + 16 + 32 * half, 32, block.codes + 128 * half);
  block.d = read_u16(p + 80);
  block.m = read_u16(p + 82);
}

void read_q3_k(const uint8_t* p, FileBlock& block) {  // high bits[32] codes[64] scales[12] d
  for (int half = 0; half < 2; ++half) read_pairs(p + 32 + 32 * half, 32, block.codes + 128 * half);
  add_bit_plane(p, 2, block.codes);
  read_signed_scales(p + 96, block);
  block.d = read_u16(p + 108);
}

void read_q4_k_codes(const uint8_t* p, FileBlock& block) {
  for (int quarter = 0; quarter < 4; ++quarter) read_nibbles(p + 32 * quarter, 32, block.codes + 64 * quarter);
}

void read_q4_k(const uint8_t* p, FileBlock& block) {  // d dmin scales[12] codes[128]
  block.d = read_u16(p);
  block.m = read_u16(p + 2);
  read_scales_and_mins(p + 4, block);
  read_q4_k_codes(p + 16, block);
}

void read_q5_k(const uint8_t* p, FileBlock& block) {  // d dmin scales[12] high bits[32] codes[128]
  block.d = read_u16(p);
  block.m = read_u16(p + 2);
  read_scales_and_mins(p + 4, block);
  read_q4_k_codes(p + 48, block);
  add_bit_plane(p + 16, 4, block.codes);
}

void read_q6_k(const uint8_t* p, FileBlock& block) {  // low nibbles[128] high pairs[64] scales[16] d
  for (int half = 0; half < 2; ++half) {
    uint8_t* codes = block.codes + 128 * half;
    uint8_t high[128];
    read_nibbles(p + 64 * half, 64, codes);
    read_pairs(p + 128 + 32 * half, 32, high);
    for (int i = 0; i < 128; ++i) codes[i] |= static_cast<uint8_t>(high[i] << 4);
  }
  std::memcpy(block.scale, p + 192, 16);
  block.d = read_u16(p + 208);
}

}  // namespace

void read_file_block(BlockType type, const uint8_t* p, FileBlock& block) {
  switch (type) {
    case BlockType::q2_k: return read_q2_k(p, block);
    case BlockType::q3_k: return read_q3_k(p, block);
    case BlockType::q4_k: return read_q4_k(p, block);
    case BlockType::q5_k: return read_q5_k(p, block);
    case BlockType::q6_k: return read_q6_k(p, block);
    case BlockType::mxfp4:  // e codes[16]
      block.d = p[0];
      return read_nibbles(p + 1, 16, block.codes);
    case BlockType::q4_1:  // d m codes[16]
      block.m = read_u16(p + 2);
      read_nibbles(p + 4, 16, block.codes);
      break;
    case BlockType::q5_0:  // d fifth bits[4] codes[16]
      read_nibbles(p + 6, 16, block.codes);
      add_fifth_bits(p + 2, block.codes);
      break;
    case BlockType::q5_1:  // d m fifth bits[4] codes[16]
      block.m = read_u16(p + 2);
      read_nibbles(p + 8, 16, block.codes);
      add_fifth_bits(p + 4, block.codes);
      break;
    case BlockType::q8_0:  // d codes[32]
      std::memcpy(block.codes, p + 2, 32);
      break;
    default:  // Q4_0 and IQ4_NL: d codes[16]
      read_nibbles(p + 2, 16, block.codes);
      break;
  }
  block.d = read_u16(p);
}

}  // namespace herd
