"""A run on one page of HTML: what came of it, its curve, samples along the way, and the recipe.

The page is made of the run's folder alone, asks nothing of the network, runs no script and escapes every text that
came from data or model.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from openherd.train.loss_plot import Point, loss_svg
from openherd.train.progress import duration
from openherd.train.run_log import read_log

REPORT_FILE, LOSS_FILE = "report.html", "loss.svg"
_MAX_SAMPLES = 24
_MAX_SAMPLE_CHARACTERS = 4000

Entry = Mapping[str, Any]


def write_report(folder: Path, recipe_toml: str) -> None:
    """Write RUN/loss.svg and RUN/report.html from the run's log, in place of those that are there."""
    entries = latest(read_log(folder))
    svg = loss_svg(_points(entries, None), _points(entries, "evaluation"))
    _replace(folder / LOSS_FILE, svg)
    _replace(folder / REPORT_FILE, page(folder.name, entries, svg, recipe_toml))


def latest(entries: Iterable[Entry]) -> list[Entry]:
    """In the order of steps. A run that was killed does some steps again: of each the last line counts, as of each
    evaluation and sample."""
    kept: dict[object, Entry] = {}
    for entry in entries:
        kept[entry.get("event"), entry.get("step"), entry.get("prompt")] = entry
    return sorted(kept.values(), key=lambda entry: entry["step"] if _is_number(entry.get("step")) else 0)


def page(name: str, entries: Sequence[Entry], svg: str, recipe_toml: str) -> str:
    samples = [entry for entry in entries if entry.get("event") == "sample"]
    rows = "".join(
        f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>" for key, value in _figures(entries)
    )
    events = [entry for entry in entries if entry.get("event") in ("skip", "rollback", "resume")]
    return _PAGE.format(
        name=html.escape(name),
        figures=f"<table>{rows}</table>" if rows else "<p>Nothing has been logged.</p>",
        svg=svg,
        samples="\n".join(map(_sample, _spread(samples, _MAX_SAMPLES))) or "<p>None were taken.</p>",
        events="".join(map(_event, events[-50:])) or "<li>Nothing out of the ordinary.</li>",
        recipe=html.escape(recipe_toml),
    )


def _figures(entries: Sequence[Entry]) -> Iterable[tuple[str, str]]:
    """What came of it: the last step and evaluation, the best, and how fast it went."""
    steps = [entry for entry in entries if "event" not in entry and _is_number(entry.get("loss"))]
    evaluations = [e for e in entries if e.get("event") == "evaluation" and _is_number(e.get("loss"))]
    if steps:
        tail = steps[-max(1, len(steps) // 50) :]
        yield "steps", f"{steps[-1].get('step', 0):,}"
        yield "training loss", f"{sum(entry['loss'] for entry in tail) / len(tail):.4f} (mean of the last {len(tail)})"
    if evaluations:
        best = min(evaluations, key=lambda entry: entry["loss"])
        yield (
            "evaluation loss",
            f"{evaluations[-1]['loss']:.4f}, best {best['loss']:.4f} at step {best.get('step', 0):,}",
        )
        for key, value in evaluations[-1].items():
            if key not in ("step", "time", "loss", "event") and _is_number(value):
                yield f"evaluation {key.replace('_', ' ')}", f"{value:.4f}"
    tokens = [entry["tokens"] for entry in steps if _is_number(entry.get("tokens"))]
    seconds = [entry["seconds"] for entry in steps if _is_number(entry.get("seconds"))]
    if tokens:
        yield "tokens read", f"{sum(tokens):,.0f}"
    if seconds:
        yield "time in steps", duration(sum(seconds))
    if tokens and sum(seconds):
        yield "tokens/s", f"{sum(tokens) / sum(seconds):,.0f}"


def _points(entries: Iterable[Entry], event: str | None) -> list[Point]:
    chosen = (entry for entry in entries if entry.get("event") == event)
    return [(e["step"], e["loss"]) for e in chosen if _is_number(e.get("step")) and _is_number(e.get("loss"))]


def _sample(entry: Entry) -> str:
    prompt, text = (str(entry.get(key, ""))[:_MAX_SAMPLE_CHARACTERS] for key in ("prompt", "text"))
    where = f"step {entry.get('step', 0)}"
    return f"<h3>{html.escape(where)}</h3><pre><b>{html.escape(prompt)}</b>{html.escape(text)}</pre>"


def _event(entry: Entry) -> str:
    facts = {key: value for key, value in entry.items() if key not in ("event", "step", "time")}
    shown = f"step {entry.get('step', 0)}: {entry.get('event')} {json.dumps(facts) if facts else ''}"
    return f"<li>{html.escape(shown[:500])}</li>"


def _spread(samples: Sequence[Entry], count: int) -> list[Entry]:
    """At most `count` of them, the first and the last among these."""
    if len(samples) <= count:
        return list(samples)
    return [samples[round(n * (len(samples) - 1) / (count - 1))] for n in range(count)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _replace(file: Path, text: str) -> None:
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(text, encoding="utf-8", errors="replace")
    partial.replace(file)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{name}: a training run</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }}
svg {{ width: 100%; height: auto; }}
table {{ border-collapse: collapse; }}
th {{ text-align: left; font-weight: 400; opacity: .75; padding-right: 2rem; }}
td {{ font-variant-numeric: tabular-nums; }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; padding: 1rem; border: 1px solid #8886; border-radius: 6px; }}
h3 {{ margin-bottom: 0; font-size: 1rem; }}
h3 + pre {{ margin-top: .25rem; }}
</style></head><body>
<h1>{name}</h1>
{figures}
<h2>Loss</h2>
{svg}
<h2>Samples</h2>
{samples}
<h2>Events</h2>
<ul>{events}</ul>
<h2>Recipe</h2>
<details><summary>All keys</summary><pre>{recipe}</pre></details>
</body></html>
"""
