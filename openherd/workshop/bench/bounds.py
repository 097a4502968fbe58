"""What bounds each measurement, by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from openherd.options import EngineOptions
from openherd.workshop.bench.roofline import ModelCost, Rates
from openherd.workshop.bench.workloads import BATCH_TOKENS, CHAT_CONTEXT, DECODE_TOKENS, LONG, LONG_TOKENS

LIMITS = ("read_", "int8_")
"""How the names of the machine's own limits begin; nothing bounds them."""

READ, INT8 = "read rate", "int8 products"


class Bound(NamedTuple):
    """A measurement's unit, and the best it could be; `less`: a least, because less is better."""

    unit: str
    limit: float | None = None
    by: str = ""
    less: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """`interpreter_s`: the start of a bare interpreter, 0 if it was not measured."""

    cost: ModelCost
    rates: Rates
    file_bytes: int
    interpreter_s: float

    def of(self, name: str) -> Bound:
        kind, _, number = name.rpartition("_")
        cost, rates = self.cost, self.rates
        match kind:
            case "prefill":
                limit = cost.prefill_limit(rates, int(number), EngineOptions().max_batch_tokens)
                return Bound("tok/s", limit, INT8 if limit is not None else "")
            case "decode_batch":
                return Bound("tok/s", cost.decode_limit(rates, int(number), BATCH_TOKENS / 2), f"{READ}, {INT8}")
            case "decode_at":
                return Bound("tok/s", cost.decode_limit(rates, 1, LONG + LONG_TOKENS / 2), READ)
        match name:
            case "decode":
                return Bound("tok/s", cost.decode_limit(rates, 1, DECODE_TOKENS / 2), READ)
            case "long_context_slowdown":
                empty = cost.decode_bytes(1, DECODE_TOKENS / 2)
                return Bound("x", cost.decode_bytes(1, LONG + LONG_TOKENS / 2) / empty, "bytes of the KV cache", True)
            case "cold_start":
                least = self.interpreter_s + self.file_bytes / rates.read
                return Bound("s", least, "bare Python, one read of the file", True)
            case "peak_memory":
                return Bound("MB", (self.file_bytes + CHAT_CONTEXT * cost.kv_bytes) / 1e6, "file, KV cache", True)
            case "interpreter_start":
                return Bound("s")
        if name.startswith("read_"):
            return Bound("GB/s")
        return Bound("T/s" if name.startswith("int8_") else "%")
