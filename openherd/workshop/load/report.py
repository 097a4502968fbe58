"""What a load found, as a table for a person and as a document for a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from openherd.errors import HerdError
from openherd.kernels.cores import usable_cores
from openherd.workshop.bench.machine import machine_facts
from openherd.workshop.bench.report import Measurement, number
from openherd.workshop.load.options import LoadOptions
from openherd.workshop.load.run import run
from openherd.workshop.load.summary import measurements, num_tokens, warnings


@dataclass(slots=True)
class LoadReport:
    """The same keys as a bench of this machine where they mean the same."""

    machine: dict[str, Any]  # the client's
    server: dict[str, Any]
    load: dict[str, Any]
    measurements: list[Measurement]
    requests: dict[str, int]
    tokens: dict[str, int]
    errors: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """Stable keys; what `herd bench --server --json` prints."""
        return asdict(self)

    def table(self) -> list[str]:
        r = self.requests
        width = max(len(m.name) for m in self.measurements)
        return [
            f"{self.server['url']}, {self.server['model']}: {r['answered']} of {r['sent']} requests answered, "
            f"{self.tokens['prompt']:,} prompt and {self.tokens['completion']:,} answer tokens",
            *(f"  failed: {e['count']} x {kind} ({e['said']})" for kind, e in self.errors.items()),
            "",
            *(_row(m, width) for m in self.measurements),
        ]


def run_load(model: str | None, options: LoadOptions, *, say: Callable[[str], None]) -> LoadReport:
    """Load the server and report. Raises `HerdError` when not one request was answered."""
    done = run(model, options, say)
    if not done.good:
        kind, (count, said) = next(iter(done.errors.items()), ("no request", (0, "")))
        raise HerdError(f"none of {len(done.records)} requests was answered; {count} x {kind}: {said}")
    machine = machine_facts(usable_cores())
    return LoadReport(
        machine={name: machine[name] for name in ("cpu", "cores", "memory_bytes", "system", "python", "openherd")},
        server={"url": options.server, "model": done.model, "reports_usage": done.reports_usage},
        load={name: value for name, value in asdict(options).items() if value is not None and name != "server"},
        measurements=list(measurements(done, options)),
        requests={"sent": len(done.records), "answered": len(done.good), "failed": len(done.records) - len(done.good)},
        tokens={
            "prompt": sum(record.prompt_tokens or 0 for record in done.good),
            "completion": sum(map(num_tokens, done.good)),
        },
        errors={kind: {"count": count, "said": said} for kind, (count, said) in done.errors.items()},
        warnings=list(warnings(done)),
    )


def _row(m: Measurement, width: int) -> str:
    limit = "" if m.limit is None else f"   {'within' if m.value <= m.limit else 'over'} {number(m.limit)} {m.unit}"
    return f"{m.name:<{width}}  {number(m.value):>9} {m.unit}{limit}"
