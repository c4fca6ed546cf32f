"""Where the points of a chart are: pure geometry, which a template draws as SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH: Final = 360
HEIGHT: Final = 120
_LEFT: Final = 8
_RIGHT: Final = 8
_TOP: Final = 8
_BOTTOM: Final = 8


@attrs.frozen
class Dot:
    """A version in a chart."""

    x: float
    y: float
    version: str
    value: float
    stage: str


@attrs.frozen
class Chart:
    """A metric over versions.

    Attributes:
        line: The corners of the line, as SVG has them.
        dots: The versions.
        low: The lowest value.
        high: The highest value.
    """

    line: str
    dots: tuple[Dot, ...]
    low: float
    high: float


def lay_out(points: Sequence[dict[str, Any]]) -> Chart | None:
    """Return where each point is, or None if there's nothing to draw."""
    if not points:
        return None
    values = [float(point["value"]) for point in points]
    numbers = [int(point["version"]) for point in points]
    low, high = min(values), max(values)

    def place(value: float, least: float, most: float) -> float:
        # Halves, because the difference of two large numbers may be infinite.
        span = most / 2 - least / 2
        return 0.5 if span == 0 else (value / 2 - least / 2) / span

    dots = tuple(
        Dot(
            x=round(_LEFT + place(number, numbers[0], numbers[-1]) * (WIDTH - _LEFT - _RIGHT), 1),
            y=round(_TOP + (1 - place(value, low, high)) * (HEIGHT - _TOP - _BOTTOM), 1),
            version=point["version"],
            value=point["value"],
            stage=point["stage"],
        )
        for point, value, number in zip(points, values, numbers, strict=True)
    )
    return Chart(line=" ".join(f"{dot.x},{dot.y}" for dot in dots), dots=dots, low=low, high=high)
