"""Lengths drawn from a declared distribution."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import Self

from openherd.errors import OptionError

_FORMS = "a number, uniform:LOW:HIGH, or lognormal:MEDIAN:SIGMA"


@dataclass(frozen=True, slots=True)
class Lengths:
    """`kind` with its two parameters; what is drawn is from 1 to `most`."""

    kind: str
    first: float
    second: float
    most: int

    @classmethod
    def parse(cls, name: str, text: str, most: int) -> Self:
        """Raises `OptionError` that names the option."""
        kind, *parts = text.split(":")
        if not parts:
            kind, parts = "uniform", [text, text]
        try:
            first, second = (float(part) for part in parts)
        except ValueError:
            raise OptionError(f"{name} is {_FORMS}, not {text!r}") from None
        if not (math.isfinite(first) and math.isfinite(second) and 1 <= first <= most):
            raise OptionError(f"{name} must be from 1 to {most}, not {text!r}")
        if kind == "uniform":
            if first != int(first) or second != int(second) or not first <= second <= most:
                raise OptionError(
                    f"{name}=uniform:LOW:HIGH wants whole numbers of which HIGH is not less, at most {most}"
                )
        elif kind == "lognormal":
            if not 0 <= second <= 5:
                raise OptionError(f"{name}=lognormal:MEDIAN:SIGMA wants a SIGMA from 0 to 5, not {second:g}")
        else:
            raise OptionError(f"{name} is {_FORMS}, not {text!r}")
        return cls(kind, first, second, most)

    def draw(self, rng: random.Random) -> int:
        if self.kind == "uniform":
            return rng.randint(int(self.first), int(self.second))
        return min(self.most, max(1, round(rng.lognormvariate(math.log(self.first), self.second))))
