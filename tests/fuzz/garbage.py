"""Garbage for functions that take arrays and numbers: the right argument, spoilt in one way."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

NUMBERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 64, 100, 101, 102, 2**16, 2**24,
           2**24 + 1, 2**31 - 2, 2**31 - 1, 2**31, 2**32, 2**40, 2**46, 2**62, 2**63 - 1, 2**63, 2**64)  # fmt: skip
FLOATS = (np.nan, np.inf, -np.inf, -0.0, 1e-45, -1e-30, 1e30, 3e38, -3e38, 0.5, 1.0, 2.0)
OTHERS: tuple[Any, ...] = (None, "x", b"abc", 1.5, (), [[]], {}, object(), np.float32(1), np.array("x"), np.array(None))


def spoilt(argument: Any, random: Random) -> Any:
    """Another value in place of `argument`: often of its kind, sometimes of none."""
    if random.random() < 0.05:
        return random.choice(OTHERS)
    if isinstance(argument, np.ndarray):
        return _spoilt_contents(argument, random) if random.random() < 0.7 else _spoilt_form(argument, random)
    if isinstance(argument, bool):
        return not argument
    if isinstance(argument, int):
        return random.choice(NUMBERS)
    if isinstance(argument, float):
        return random.choice(FLOATS)
    if isinstance(argument, (tuple, list)) and argument:
        return _spoilt_sequence(argument, random)
    return random.choice(OTHERS)


def _spoilt_sequence(items: Any, random: Random) -> Any:
    changed = list(items)
    at = random.randrange(len(changed))
    match random.randrange(8):
        case 0:
            del changed[at]
        case 1:
            changed.insert(at, random.choice(items))
        case 2:
            changed[at] = random.choice(items)
        case _:
            changed[at] = spoilt(changed[at], random)
    return type(items)(changed)


def _spoilt_contents(array: np.ndarray, random: Random) -> np.ndarray:
    """Of the same form, with a few other numbers in it, or longer or shorter."""
    changed = array.copy()
    match random.randrange(6):
        case 0:
            return np.repeat(changed, random.choice((0, 2, 3)), axis=random.randrange(array.ndim))
        case 1:
            return changed[: len(changed) // 2].copy()
        case 2:
            np.random.default_rng(random.getrandbits(32)).shuffle(changed)
        case _:
            for _ in range(random.randint(1, 3) if changed.size else 0):
                changed.flat[random.randrange(changed.size)] = _number(changed.dtype, random)
    return changed


def _number(dtype: np.dtype[Any], random: Random) -> Any:
    if dtype.kind == "f":
        return random.choice(FLOATS)
    limits = np.iinfo(dtype)
    return random.choice([n for n in NUMBERS if limits.min <= n <= limits.max])


def _spoilt_form(array: np.ndarray, random: Random) -> Any:
    """Another dtype, rank, order, stride, alignment or byte order; or as large as nothing can be."""
    array = np.atleast_1d(array)  # one without a dimension was spoilt before
    match random.randrange(10):
        case 0:
            return array.astype(random.choice(("i1", "i4", "i8", "u4", "u8", "f4", "f8", "c8", "?", "f2")))
        case 1:
            return array[None]
        case 2:
            return array.reshape(-1)[0:1].reshape(()) if array.size else array.reshape(-1)
        case 3:
            return np.repeat(array, 2, axis=-1)[..., ::2]
        case 4:
            return array[::-1]
        case 5:
            return np.asfortranarray(np.stack([array, array]))
        case 6:
            return array.astype(array.dtype.newbyteorder())
        case 7:
            raw = b"\x00" + array.tobytes()
            return np.frombuffer(raw, np.uint8)[1:].view(array.dtype).reshape(array.shape)
        case 8:
            return np.zeros((2**40, *[0] * max(1, array.ndim - 1))[: max(2, array.ndim)], array.dtype)
        case _:
            return np.broadcast_to(array.reshape(-1)[:1], (2**40,) * array.ndim) if array.ndim == 1 else array.T
