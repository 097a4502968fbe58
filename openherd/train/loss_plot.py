"""The loss over a run as an SVG picture: training and evaluation, axes with ticks, for light and dark pages.

Training loss is drawn twice: faintly each point, and strongly its moving average. The picture needs nothing from
outside and runs no script, so it can stand in a page, a README or alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

Point = tuple[float, float]  # step, loss

WIDTH, HEIGHT = 760, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 32, 36, 48
_MAX_POINTS = 800
_SMOOTHED_SHARE = 50  # the moving average spans a fiftieth of the run


@dataclass(frozen=True, slots=True)
class Axes:
    """From steps and losses to pixels."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, step: float) -> float:
        return _LEFT + (step - self.x_low) / (self.x_high - self.x_low) * (WIDTH - _LEFT - _RIGHT)

    def y(self, loss: float) -> float:
        return HEIGHT - _BOTTOM - (loss - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - _TOP - _BOTTOM)


def loss_svg(training: Iterable[Point], evaluation: Iterable[Point] = ()) -> str:
    """The picture; points that are not finite are left out, and without any it says that there are none."""
    trained, evaluated = _finite(training), _finite(evaluation)
    if not trained and not evaluated:
        return _svg('<text x="50%" y="50%" text-anchor="middle">no loss has been logged</text>')
    axes = _axes([*trained, *evaluated])
    parts = [_grid(axes), _labels()]
    if trained:
        smooth = thinned(moving_average(trained, max(1, len(trained) // _SMOOTHED_SHARE)))
        parts += [_line(axes, thinned(trained), "each"), _line(axes, smooth, "train"), _legend(0, "training", "train")]
    if evaluated:
        dots = "".join(f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="3"/>' for x, y in evaluated)
        parts += [_line(axes, evaluated, "eval"), f'<g class="dots">{dots}</g>', _legend(1, "evaluation", "eval")]
    return _svg("\n".join(parts))


def nice_ticks(low: float, high: float, count: int = 6) -> list[float]:
    """About `count` round numbers from `low` to `high`, each 1, 2 or 5 times a power of ten from the next."""
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def moving_average(points: Sequence[Point], span: int) -> list[Point]:
    """At each point the mean of the losses up to `span` / 2 before and behind it, of fewer at both ends alike."""
    sums = [0.0, *accumulate(loss for _, loss in points)]
    averaged = []
    for index, (step, _) in enumerate(points):
        reach = min(span // 2, index, len(points) - 1 - index)
        averaged.append((step, (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)))
    return averaged


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most about `_MAX_POINTS`: of each run of neighbours its lowest and its highest, in their order."""
    each = math.ceil(2 * len(points) / _MAX_POINTS)
    if each <= 2:
        return list(points)
    kept: list[Point] = []
    for start in range(0, len(points), each):
        run = points[start : start + each]
        kept += sorted({min(run, key=lambda p: p[1]), max(run, key=lambda p: p[1])})
    return kept


def _finite(points: Iterable[Point]) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _axes(points: Sequence[Point]) -> Axes:
    steps, losses = [x for x, _ in points], [y for _, y in points]
    low, high = min(losses), max(losses)
    margin = 0.05 * (high - low) or 0.5
    first, last = min(steps), max(steps)
    return Axes(min(first, 0.0), last if last > first else first + 1, low - margin, high + margin)


def _grid(axes: Axes) -> str:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    lines = []
    for loss in nice_ticks(axes.y_low, axes.y_high):
        y = axes.y(loss)
        lines.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{loss:.4g}</text>')
    for step in nice_ticks(axes.x_low, axes.x_high):
        x = axes.x(step)
        lines.append(f'<path class="axis" d="M{x:.1f} {bottom}v5"/>')
        lines.append(f'<text x="{x:.1f}" y="{bottom + 19}" text-anchor="middle">{_thousands(step)}</text>')
    return "\n".join([*lines, f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>'])


def _labels() -> str:
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return (
        f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">step</text>'
        f'<text x="{_LEFT - 8}" y="{_TOP - 14}" text-anchor="end">loss</text>'
    )


def _legend(place: int, text: str, kind: str) -> str:
    x, y = WIDTH - _RIGHT - 230 + 115 * place, _TOP - 18
    return f'<path class="{kind}" d="M{x} {y}h24"/><text x="{x + 30}" y="{y + 4}">{text}</text>'


def _line(axes: Axes, points: Sequence[Point], kind: str) -> str:
    path = "L".join(f"{axes.x(step):.1f} {axes.y(loss):.1f}" for step, loss in points)
    return f'<path class="{kind}" d="M{path}"/>'


def _thousands(step: float) -> str:
    return f"{step:,.0f}" if step == round(step) else f"{step:g}"


def _svg(body: str) -> str:
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">
<title>Loss over the steps of the run</title>
<style>
.loss {{ --ink: #333; --grid: #ddd; --train: #1667c0; --eval: #c2500a; font: 13px system-ui, sans-serif; }}
@media (prefers-color-scheme: dark) {{
.loss {{ --ink: #ccc; --grid: #444; --train: #6db3ff; --eval: #ffa057; }}
}}
.loss text {{ fill: var(--ink); }}
.loss path {{ fill: none; stroke-linejoin: round; }}
.loss .axis {{ stroke: var(--ink); }}
.loss .grid {{ stroke: var(--grid); }}
.loss .each {{ stroke: var(--train); stroke-opacity: .3; }}
.loss .train {{ stroke: var(--train); stroke-width: 2; }}
.loss .eval {{ stroke: var(--eval); stroke-width: 2; stroke-dasharray: 6 3; }}
.loss .dots {{ fill: var(--eval); }}
</style>
<g class="loss">
{body}
</g>
</svg>
"""
