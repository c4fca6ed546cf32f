"""Draw line charts as SVG, with logarithmic axes."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH: Final = 740
_HEIGHT: Final = 400
_LEFT: Final = 92
_RIGHT: Final = 190
_TOP: Final = 46
_BOTTOM: Final = 56
_COLORS: Final = ("#0969da", "#cf222e", "#1a7f37", "#8250df")
_HEAD: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"
  aria-label="{title}">
<style>
  text {{ font: 13px system-ui, sans-serif; fill: #1f2328 }}
  .t {{ font: bold 15px system-ui, sans-serif }}
  .g {{ stroke: #d0d7de }}
  .l {{ fill: none; stroke-width: 2 }}
</style>
<rect width="{width}" height="{height}" fill="#fff"/>"""


class Chart(NamedTuple):
    """A line chart with logarithmic axes. Each series has the points (x, y) of a line."""

    title: str
    across: str
    up: str
    series: Mapping[str, Sequence[tuple[float, float]]]


def draw(chart: Chart) -> str:
    """Return the chart as SVG."""
    points = [point for line in chart.series.values() for point in line]
    left, right = _decades([x for x, _ in points])
    low, high = _decades([y for _, y in points])

    def to_pixels(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - left) / max(1, right - left)
        up = (math.log10(y) - low) / max(1, high - low)
        return (
            round(_LEFT + across * (_WIDTH - _LEFT - _RIGHT), 1),
            round(_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM), 1),
        )

    middle, centre = (_LEFT + _WIDTH - _RIGHT) / 2, (_TOP + _HEIGHT - _BOTTOM) / 2
    parts = [
        _HEAD.format(width=_WIDTH, height=_HEIGHT, title=escape(chart.title)),
        f'<text class="t" x="{_LEFT}" y="24">{escape(chart.title)}</text>',
        f'<text x="{middle}" y="{_HEIGHT - 14}" text-anchor="middle">{escape(chart.across)}</text>',
        f'<text x="16" y="{centre}" text-anchor="middle" transform="rotate(-90 16 {centre})">{escape(chart.up)}</text>',
    ]
    for power in range(left, right + 1):
        x, _ = to_pixels(10.0**power, 10.0**low)
        parts.append(f'<path class="g" d="M{x} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{_format(10.0**power)}</text>')
    for power in range(low, high + 1):
        _, y = to_pixels(10.0**left, 10.0**power)
        parts.append(f'<path class="g" d="M{_LEFT} {y}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{_format(10.0**power)}</text>')
    heights = _spread([to_pixels(*line[-1])[1] for line in chart.series.values()])
    for (name, line), color, height in zip(chart.series.items(), _COLORS, heights, strict=False):
        placed = [to_pixels(x, y) for x, y in line]
        path = " ".join(f"{x},{y}" for x, y in placed)
        parts.append(f'<polyline class="l" stroke="{color}" points="{path}"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{color}"/>' for x, y in placed]
        parts.append(f'<text x="{_WIDTH - _RIGHT + 8}" y="{height + 4}" style="fill:{color}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Return the exponents of the powers of ten around some values."""
    low, high = math.floor(math.log10(min(values)) + 1e-9), math.ceil(math.log10(max(values)) - 1e-9)
    return low, max(high, low + 1)


def _spread(heights: Sequence[float]) -> list[float]:
    """Return heights for labels, moved so labels don't overlap."""
    placed: list[float] = [0.0] * len(heights)
    last = -math.inf
    for at in sorted(range(len(heights)), key=heights.__getitem__):
        last = placed[at] = max(heights[at], last + 17)
    return placed


def _format(number: float) -> str:
    return f"{number:,.0f}" if number >= 1 else f"{number:g}"
