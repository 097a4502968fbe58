"""Figures and their limits, as a table for a person and as a document for a program."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from openherd.workshop.bench.bounds import Bound


@dataclass(frozen=True, slots=True)
class Measurement:
    """The median of its runs, and the limit it is held against where one is known."""

    name: str
    value: float
    unit: str
    limit: float | None  # in the same unit
    of_limit: float | None  # share that was reached: 1 is all there is, whether more or less of the unit is better
    low: float
    high: float
    runs: tuple[float, ...]
    bound: str = ""  # what sets the limit

    @classmethod
    def of(cls, name: str, runs: Iterable[float], bound: Bound) -> Measurement:
        runs = tuple(runs)
        value, limit = statistics.median(runs), bound.limit
        reached = None
        if limit and value:
            reached = limit / value if bound.less else value / limit
        return cls(name, value, bound.unit, limit, reached, min(runs), max(runs), runs, bound.by)

    @property
    def spread(self) -> float:
        """Half the distance from the least to the greatest run, relative to the median."""
        return (self.high - self.low) / 2 / self.value if self.value else 0.0


@dataclass(slots=True)
class Report:
    """What a bench found. `skipped` and `warnings` are sentences."""

    machine: dict[str, Any]
    model: dict[str, Any]
    measurements: list[Measurement]
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Stable keys; what `herd bench --json` prints."""
        return {
            "machine": self.machine,
            "model": self.model,
            "measurements": [asdict(measurement) | {"spread": measurement.spread} for measurement in self.measurements],
            "skipped": self.skipped,
            "warnings": self.warnings,
        }

    def table(self) -> list[str]:
        """Lines of a table with a heading of machine and model."""
        m = self.machine
        rows = [_row(measurement) for measurement in self.measurements]
        widths = [max(len(row[i]) for row in (_HEADING, *rows)) for i in range(len(_HEADING))]
        return [
            f"{m['cpu'] or 'unknown processor'}, {m['threads']} of {m['cores']} cores, {m['isa']}",
            f"{self.model['name']}, {self.model['file_bytes'] / 1e6:,.0f} MB, {self.model['numerics_id']}",
            "",
            _line(_HEADING, widths),
            *(_line(row, widths) for row in rows),
        ]


_HEADING = ("measurement", "median", "", "spread", "limit", "reached", "bound by")


def _row(m: Measurement) -> tuple[str, ...]:
    return (
        m.name,
        number(m.value),
        m.unit,
        f"±{100 * m.spread:.0f} %" if len(m.runs) > 1 else "",
        "" if m.limit is None else number(m.limit),
        "" if m.of_limit is None else f"{100 * m.of_limit:.0f} %",
        m.bound,
    )


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    name, value, unit, spread, limit, reached, bound = row
    w = widths
    cells = (
        f"{name:<{w[0]}}  {value:>{w[1]}} {unit:<{w[2]}}  {spread:>{w[3]}}  {limit:>{w[4]}}  {reached:>{w[5]}}  {bound}"
    )
    return cells.rstrip()


def number(value: float) -> str:
    """At least three figures, as many as the runs bear out."""
    places = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:,.{places}f}"
