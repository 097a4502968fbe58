// For sources of the instruction set that has Intel's AMX with int8 (Sapphire Rapids and later): a unit that
// multiplies matrices of bytes, 16 columns by 16 rows at once, beside AVX-512.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "simd.h"

namespace herd::HERD_ISA_NS {

// Registers are named by literals: the compiler's intrinsics paste their numbers into assembler.
#define HERD_TILE_PRODUCT(columns, codes, result, to)         \
  do {                                                        \
    _tile_loadd(columns, codes, x_stride);                    \
    _tile_zero(result);                                       \
    if constexpr (kSigned) _tile_dpbssd(result, columns, 0);  \
    else _tile_dpbsud(result, columns, 0);                    \
    _tile_stored(result, to, 64);                             \
  } while (false)
#define HERD_TILE_PRODUCTS(columns, first, second)                                                    \
  do {                                                                                                \
    HERD_TILE_PRODUCT(columns, x, first, dots[0]);                                                    \
    if constexpr (kProducts == 2) HERD_TILE_PRODUCT(columns, x + 4 * kGroups, second, dots[1]);       \
  } while (false)

// The unit's registers are set up for a thread while one of these lives. They are given back at its end: the system then
// has nothing of them to save when it changes threads.
template <int kGroups>  // groups of 4 k in a product
class MatrixUnit {
 public:
  MatrixUnit() {
    Shapes shapes{};
    shapes.palette = 1;
    shapes.set(0, kGroups, 64);  // weights
    shapes.set(1, 16, 4 * kGroups), shapes.set(2, 16, 64), shapes.set(3, 16, 64);  // 16 columns, and dot products of two
    shapes.set(4, 8, 4 * kGroups), shapes.set(5, 8, 64), shapes.set(6, 8, 64);     // 8 columns
    asm volatile("" : "+m"(shapes));  // the intrinsic says that it reads 8 of the 64 bytes
    _tile_loadconfig(&shapes);
  }
  ~MatrixUnit() { _tile_release(); }
  MatrixUnit(const MatrixUnit&) = delete;
  MatrixUnit& operator=(const MatrixUnit&) = delete;

  // dots[p][c] = 16 rows' codes times those of column c, for kColumns (8 or 16) columns and kProducts (1 or 2) sets of
  // columns' codes: the 4 kGroups signed codes of set p are at x + c * x_stride + p * 4 kGroups. A group's 16 x 4 codes of
  // weights are at w[group], signed where kSigned.
  template <int kColumns, int kProducts, bool kSigned>
  HERD_INLINE static void multiply(const int8_t* x, int64_t x_stride, const u8x64* w, i32x16 (*dots)[16]) {
    static_assert((kColumns == 8 || kColumns == 16) && (kProducts == 1 || kProducts == 2));
    asm volatile("" ::: "memory");  // the intrinsics do not say that they read memory
    _tile_loadd(0, w, 64);
    if constexpr (kColumns == 16) HERD_TILE_PRODUCTS(1, 2, 3);
    else HERD_TILE_PRODUCTS(4, 5, 6);
  }

  // 2 * rounds products of what is at x with what is at w, added up in two results: what the unit does at best, with nothing
  // to wait for.
  HERD_INLINE static void multiply_again(int64_t rounds, const int8_t* x, const u8x64* w, i32x16* dots, i32x16* others) {
    asm volatile("" ::: "memory");
    _tile_loadd(1, x, 4 * kGroups);
    _tile_loadd(0, w, 64);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t i = 0; i < rounds; ++i) {
      _tile_dpbsud(2, 1, 0);
      _tile_dpbsud(3, 1, 0);
    }
    _tile_stored(2, dots, 64);
    _tile_stored(3, others, 64);
  }

 private:
  // LDTILECFG's memory operand (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, 18.3).
  struct alignas(64) Shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
    void set(int tile, int n_rows, int n_bytes) {
      rows[tile] = static_cast<uint8_t>(n_rows);
      row_bytes[tile] = static_cast<uint16_t>(n_bytes);
    }
  };
  static_assert(sizeof(Shapes) == 64);
};

#undef HERD_TILE_PRODUCTS
#undef HERD_TILE_PRODUCT

}  // namespace herd::HERD_ISA_NS
