"""Philox4x32-10, the counter-based generator behind every random draw.

Source: Salmon, Moraes, Dror and Shaw 2011, "Parallel Random Numbers: As Easy as 1, 2, 3", section 3.3. A number is a
function of (counter, key) alone, so a draw does not depend on how many draws came before it, on which thread
makes it, or on who else is in the batch. It is not a cryptographic generator.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_ROUNDS = 10
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and sqrt(3) - 1, in 32-bit fixed point
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox4x32(counters: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Four random words for each counter: [..., 4] -> [..., 4]. `key` is two 32-bit words."""
    c0, c1, c2, c3 = (counters[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(_ROUNDS):
        left, right = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = (right >> _HALF) ^ c1 ^ np.uint64(k0)
        c2 = (left >> _HALF) ^ c3 ^ np.uint64(k1)
        c1, c3 = right & _LOW, left & _LOW
        k0, k1 = (k0 + _KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + _KEY_STEPS[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def gumbel(key: tuple[int, int], n_tokens: int) -> NDArray[np.float64]:
    """Gumbel(0, 1) noise of token ids 0..n_tokens-1 under a draw's key of two 64-bit numbers: [n_tokens].

    Token t reads word 0 of the counter (t, low half of key[1], high half of key[1], 0) under the halves of key[0].
    The word's cell is taken at its middle, so that neither logarithm meets 0.
    """
    counters = np.zeros((n_tokens, 4), np.uint32)
    counters[:, 0] = np.arange(n_tokens, dtype=np.uint32)
    counters[:, 1], counters[:, 2] = key[1] & 0xFFFFFFFF, key[1] >> 32
    words = philox4x32(counters, (key[0] & 0xFFFFFFFF, key[0] >> 32))[:, 0]
    uniform = (words.astype(np.float64) + 0.5) / 2.0**32
    noise: NDArray[np.float64] = -np.log(-np.log(uniform))
    return noise
