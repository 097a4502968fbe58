"""Showing activations to hidden taps: which rows a step must keep, and what each tap then sees of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from openherd.engine.protocols import F32, HiddenTap, TapRows, TapSite, Verdict
from openherd.engine.scheduler import Chunk


def observations(chunk: Chunk) -> Iterator[tuple[HiddenTap, int]]:
    """Each tap that sees rows of this chunk, with the position from which on it sees them.

    No position is shown twice, even when it is computed again after a preemption.
    """
    first_new = max(chunk.start, chunk.seq.num_observed)
    if first_new >= chunk.end:
        return
    for tap in chunk.seq.request.taps:
        if tap.rows != "last":
            yield tap, first_new
        elif chunk.completes:
            yield tap, chunk.end - 1


def tap_rows(chunks: list[Chunk]) -> tuple[TapRows, ...]:
    """For each tapped site, ascending, the batch rows that some tap wants to see."""
    rows: dict[TapSite, list[int]] = {}
    for chunk in [chunk for chunk in chunks if chunk.seq.request.taps]:
        starts: dict[TapSite, int] = {}
        for tap, start in observations(chunk):
            for site in tap.sites:
                starts[site] = min(start, starts.get(site, start))
        for site, start in starts.items():
            rows.setdefault(site, []).extend(
                range(chunk.first_row + start - chunk.start, chunk.first_row + chunk.end - chunk.start)
            )
    return tuple(TapRows(site, np.array(rows[site], np.int32)) for site in sorted(rows))


def show(chunk: Chunk, taps: tuple[TapRows, ...], hidden: Sequence[F32]) -> Verdict | None:
    """Let the taps of one sequence observe; the first verdict counts. `hidden[i]` are the rows of `taps[i]`.

    The arrays are views, valid during the call. Raises whatever a tap raises.
    """
    at = {kept.site: i for i, kept in enumerate(taps)}
    for tap, start in observations(chunk):
        first_row, num_rows = chunk.first_row + start - chunk.start, chunk.end - start
        seen: dict[TapSite, F32] = {}
        for site in tap.sites:
            first = int(np.searchsorted(taps[at[site]].rows, first_row))
            seen[site] = hidden[at[site]][first : first + num_rows]
        verdict = tap.observe(chunk.seq.id, np.arange(start, chunk.end, dtype=np.int32), seen)
        if verdict is not None:
            return verdict
    chunk.seq.num_observed = max(chunk.seq.num_observed, chunk.end)
    return None
