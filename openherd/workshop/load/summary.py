"""What a load's records come to: percentiles, throughput, goodput.

    TTFT   from the moment a request was due to its first text
    ITL    between two pieces of text of one answer; a piece may have several tokens
    TPOT   mean of an answer's tokens after the first: (last text - first text) / (tokens - 1)
    e2e    from the moment a request was due to the end of its answer

Only whole answers count in these and in the throughput; failures are counted by their kind. Percentiles are by nearest
rank: each is a value that occurred.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from openherd.workshop.bench.bounds import Bound
from openherd.workshop.bench.report import Measurement
from openherd.workshop.load.exchange import Record
from openherd.workshop.load.options import LoadOptions

PERCENTILES = (50, 90, 99)
# The client's own share that shows in the figures, and how late it may send.
BUSY_CLIENT_CORES = 0.7
LATE_S = 0.02


@dataclass(frozen=True, slots=True)
class Run:
    """A load that is over."""

    model: str
    records: list[Record]
    started: float
    seconds: float
    client_cores: float  # that the client kept busy
    num_held: int  # requests that waited for a connection of the client's

    @property
    def good(self) -> list[Record]:
        return [record for record in self.records if record.failure is None]

    @property
    def errors(self) -> dict[str, tuple[int, str]]:
        """How often each kind of failure came, and what the server said the first time."""
        said: dict[str, str] = {}
        for record in self.records:
            if record.failure is not None:
                said.setdefault(record.failure, record.said)
        counts = Counter(record.failure for record in self.records if record.failure is not None)
        return {kind: (number, said[kind]) for kind, number in counts.most_common()}

    @property
    def reports_usage(self) -> bool:
        return all(record.completion_tokens is not None for record in self.good)


def percentile(values: Sequence[float], share: int) -> float:
    """By nearest rank; `values` sorted and not empty."""
    return values[max(0, math.ceil(share / 100 * len(values)) - 1)]


def ttft(record: Record) -> float | None:
    """Seconds; None for an answer without any text."""
    return record.pieces[0] - record.due if record.pieces else None


def tpot(record: Record) -> float | None:
    """Seconds; None for an answer of one token."""
    if len(record.pieces) < 2 or (tokens := num_tokens(record)) < 2:
        return None
    return (record.pieces[-1] - record.pieces[0]) / (tokens - 1)


def num_tokens(record: Record) -> int:
    """As the server reports; else its pieces of text, for want of better."""
    return len(record.pieces) if record.completion_tokens is None else record.completion_tokens


def measurements(run: Run, options: LoadOptions) -> Iterator[Measurement]:
    """In milliseconds, tokens and requests a second. A limit is one that the options state."""
    good = run.good
    latencies = {
        "ttft": [seconds for record in good if (seconds := ttft(record)) is not None],
        "itl": [after - before for record in good for before, after in pairwise(record.pieces)],
        "tpot": [seconds for record in good if (seconds := tpot(record)) is not None],
        "e2e": [record.ended - record.due for record in good],
    }
    limits = {"ttft": options.slo_ttft, "tpot": options.slo_tpot}
    for name, values in latencies.items():
        values.sort()
        limit = limits.get(name)
        bound = Bound("ms", limit, f"--slo-{name}" if limit is not None else "", less=True)
        for share in PERCENTILES if values else ():
            yield Measurement.of(f"{name}_p{share}", (1000 * percentile(values, share),), bound)
    rates = {
        "output_throughput": (sum(map(num_tokens, good)), "tok/s"),
        "request_throughput": (len(good), "req/s"),
        "offered_rate": (len(run.records), "req/s"),
    }
    if options.slo_ttft is not None or options.slo_tpot is not None:
        rates["goodput"] = (sum(is_within(record, options) for record in good), "req/s")
    for name, (number, unit) in rates.items():
        yield Measurement.of(name, (number / run.seconds,), Bound(unit))
    delays = sorted(record.sent - record.due for record in run.records if record.sent is not None)
    if delays:
        yield Measurement.of("send_delay_p99", (1000 * percentile(delays, 99),), Bound("ms"))
    yield Measurement.of("client_cores", (run.client_cores,), Bound("cores"))


def is_within(record: Record, options: LoadOptions) -> bool:
    """Whether a whole answer kept the stated limits; one without text has no first token, and did not."""
    first, each = ttft(record), tpot(record)
    if first is None or (options.slo_ttft is not None and 1000 * first > options.slo_ttft):
        return False
    return options.slo_tpot is None or each is None or 1000 * each <= options.slo_tpot


def warnings(run: Run) -> Iterator[str]:
    """Why these figures may be other than they seem."""
    if not run.reports_usage:
        yield "the server does not report usage, so tokens are counted as pieces of text, which may be several tokens"
    if run.client_cores > BUSY_CLIENT_CORES:
        yield f"this client took {run.client_cores:.1f} cores itself, so the server's latencies are lower than these"
    if run.num_held:
        yield f"{run.num_held} requests waited for a connection of this client's; their waiting counts as latency"
    delays = sorted(record.sent - record.due for record in run.records if record.sent is not None)
    if delays and (late := percentile(delays, 50)) > LATE_S:
        yield f"half the requests were sent more than {1000 * late:.0f} ms late; that counts as latency"
    if len(run.good) < 100:
        yield f"p99 of {len(run.good)} answers is the slowest one of them"
