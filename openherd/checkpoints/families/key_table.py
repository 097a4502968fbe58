"""Which keys of a file may be read past: none that could change an answer.

Every key of a file is in one of three sets: it is read, it says nothing about the mathematics, or it must have a value
that changes nothing. Any other is refused, because ignoring it could change every answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from openherd.checkpoints.gguf_keys import Keys
from openherd.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class KeyTable:
    """`neutral` has the values at which a key changes nothing (none: any value does). Families join tables with `|`."""

    read: frozenset[str]
    harmless: frozenset[str] = frozenset()
    neutral: Mapping[str, tuple[object, ...]] = field(default_factory=dict)

    def __or__(self, other: KeyTable) -> KeyTable:
        """Keys of both; what either reads need not be neutral."""
        read = self.read | other.read
        neutral = {key: values for key, values in {**self.neutral, **other.neutral}.items() if key not in read}
        return KeyTable(read, (self.harmless | other.harmless) - read, neutral)

    def refuse_unknown(self, keys: Keys, prefix: str = "") -> None:
        """Raise UnsupportedError for the first key under `prefix` that is in no set, or not neutral."""
        for key in keys:
            name = key.removeprefix(prefix)
            if (prefix and name == key) or name in self.read or name in self.harmless:
                continue
            if name not in self.neutral:
                raise UnsupportedError(
                    f"{keys.path}: openherd does not know the key {key[:80]}, which may change the model"
                )
            allowed = self.neutral[name]
            if not any(_same(keys[key], value) for value in allowed):
                shown = f"only {' or '.join(map(repr, allowed))}" if allowed else "models without it"
                raise UnsupportedError(f"{keys.path}: {key} is {keys.shown(key)}; openherd supports {shown}")


def _same(value: object, allowed: object) -> bool:
    """Equality of plain values: 0 is 0.0 and False here, and an array is nothing of the kind."""
    return isinstance(value, bool | int | float | str | list | dict) and value == allowed
