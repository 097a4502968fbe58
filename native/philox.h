// Philox4x32-10 (Salmon et al. 2011): a random word as a function of (counter, key) alone. `static`, see isa.h.
#pragma once

#include <cstdint>

namespace herd {

// Word 0 for counters (first + lane, place low, place high, 0) under the halves of `seed`, for N lanes side by side.
template <int N>
static inline __attribute__((always_inline)) void philox_words(uint32_t first, uint64_t seed, uint64_t place,
                                                               uint32_t* words) {
  uint32_t c0[N], c1[N], c2[N], c3[N];
  for (int i = 0; i < N; ++i) {
    c0[i] = first + static_cast<uint32_t>(i);
    c1[i] = static_cast<uint32_t>(place);
    c2[i] = static_cast<uint32_t>(place >> 32);
    c3[i] = 0;
  }
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    for (int i = 0; i < N; ++i) {
      const uint64_t left = uint64_t{c0[i]} * 0xD2511F53u, right = uint64_t{c2[i]} * 0xCD9E8D57u;
      c0[i] = static_cast<uint32_t>(right >> 32) ^ c1[i] ^ k0;
      c1[i] = static_cast<uint32_t>(right);
      c2[i] = static_cast<uint32_t>(left >> 32) ^ c3[i] ^ k1;
      c3[i] = static_cast<uint32_t>(left);
    }
  }
  for (int i = 0; i < N; ++i) words[i] = c0[i];
}

}  // namespace herd
