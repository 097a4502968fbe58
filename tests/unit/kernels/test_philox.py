"""Philox4x32-10 against the known answers of its authors' Random123 (kat_vectors), and the noise made from it."""

from __future__ import annotations

import numpy as np
import pytest

from openherd.kernels.philox import gumbel, philox4x32


def words(hexadecimal: str) -> list[int]:
    return [int(word, 16) for word in hexadecimal.split()]


@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_known_answers(counter: str, key: str, answer: str) -> None:
    low, high = words(key)
    got = philox4x32(np.array([words(counter)] * 3, np.uint32), (low, high))
    assert got.tolist() == [words(answer)] * 3


def test_noise_reads_the_documented_counter() -> None:
    seed, position = 0x299F31D0_A4093822, 0x13198A2E_85A308D3
    noise = gumbel((seed, position), 5)
    block = philox4x32(np.array([[4, 0x85A308D3, 0x13198A2E, 0]], np.uint32), (0xA4093822, 0x299F31D0))
    uniform = (int(block[0, 0]) + 0.5) / 2**32
    assert noise[4] == -np.log(-np.log(uniform))


def test_noise_does_not_depend_on_the_vocabulary() -> None:
    assert np.array_equal(gumbel((7, 9), 100), gumbel((7, 9), 1000)[:100])


def test_noise_is_gumbel() -> None:
    """Kolmogorov-Smirnov: a right generator exceeds 1.95 / sqrt(n) one time in a thousand; the key is fixed."""
    n = 100_000
    noise = np.sort(gumbel((2**63 + 1, 12345), n))
    cumulative = np.exp(-np.exp(-noise))
    steps = np.arange(n) / n
    distance = max(np.max(cumulative - steps), np.max(steps + 1 / n - cumulative))
    assert distance < 1.95 / np.sqrt(n)
