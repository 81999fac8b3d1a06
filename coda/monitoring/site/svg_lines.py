"""A line over batches as SVG, drawn here and not in the browser: so it is there without a script, and on paper.

Positions along the line are percentages, so a picture is as wide as its place; what must keep its shape (signs, words)
lies in the outer picture, and lines and dots in an inner one that is stretched, with strokes that are not.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from coda.monitoring.site.lines import Line

Array = NDArray[np.float64]

HEIGHT, WIDE = 132, 2000
"""Height of a picture in pixels; units of its inner width."""

TOP, BOTTOM = 8, 112
"""Where values are drawn; signs of releases stand below."""

SIGNS = {"refused": "refused", "failed": "failed", "held": "held"}
"""End of a batch -> its sign; every other end is a dot."""


@dataclass(frozen=True)
class Move:
    """A release or rollback on the line.

    Attributes:
        place: First batch that ended after it.
        kind: 'promote' or 'rollback'.
        release: What serves since.
    """

    place: int
    kind: str
    release: str


def draw(line: Line, batches: pd.DataFrame, moves: Sequence[Move], *, deviations: bool = False) -> str:
    """Return the picture of a line.

    Args:
        line: What is drawn.
        batches: The batches of the source, in order.
        moves: Releases and rollbacks.
        deviations: Draw deviations from history (Levey-Jennings) in place of the values, with the CUSUM so that its
            limits are the lines at 3.
    """
    values = line.chart.q if deviations else line.values
    low, high = (
        (np.full(len(values), -3.0), np.full(len(values), 3.0)) if deviations else (line.chart.low, line.chart.high)
    )
    y = _scale(values, low, high, deviations=deviations)
    step = WIDE / max(len(values), 1)
    inner = "".join(
        [
            _band(low, high, y, step),
            *(f'<path class="limit" d="M0 {y(v):.0f}H{WIDE}"/>' for v in ((-2, 0, 2) if deviations else ())),
            f'<path class="line" d="{_path(values, y, step)}"/>',
            f'<path class="cusum" d="{_path(3 * line.chart.cusum / line.chart.limit, y, step)}"/>'
            if deviations
            else "",
            f'<path class="dots" d="{_dots(values, y, step)}"/>',
        ]
    )
    signs = "".join(_signs(line, values, batches, moves, y))
    return (
        f'<svg class="chart" height="{HEIGHT}" width="100%" aria-hidden="true"><svg viewBox="0 0 {WIDE} {HEIGHT}" '
        f'preserveAspectRatio="none" width="100%" height="{HEIGHT}">{inner}</svg>{signs}'
        f'<line class="cursor" x1="0" x2="0" y1="0" y2="{BOTTOM + 4}" visibility="hidden"/></svg>'
    )


def bounds(line: Line, *, deviations: bool = False) -> tuple[float, float]:
    """Return the smallest and the largest value that a picture shows, for the text beside it."""
    values = line.chart.q if deviations else line.values
    low, high = (np.array([-3.0]), np.array([3.0])) if deviations else (line.chart.low, line.chart.high)
    return _ends(values, low, high)


class _Scale:
    def __init__(self, low: float, high: float) -> None:
        self._low, self._per = low, (BOTTOM - TOP) / (high - low)

    def __call__(self, value: float) -> float:
        return float(np.clip(BOTTOM - (value - self._low) * self._per, TOP, BOTTOM))


def _ends(values: Array, low: Array, high: Array) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if len(known) > 30:
        # one far value must not press all others into a line; it is drawn at the edge, and the table has its number
        middle, reach = np.median(known), 6 * np.median(np.abs(known - np.median(known))) * 1.4826
        known = np.clip(known, middle - reach, middle + reach) if reach > 0 else known
    shown = (
        np.concatenate([known, np.nanpercentile(np.stack([low, high]), [2, 98])]) if np.isfinite(low).any() else known
    )
    first, last = float(shown.min(initial=np.inf)), float(shown.max(initial=-np.inf))
    return (first, last) if last > first else (first - max(abs(first) * 0.1, 1e-6), last + max(abs(last) * 0.1, 1e-6))


def _scale(values: Array, low: Array, high: Array, *, deviations: bool) -> _Scale:
    first, last = _ends(values, low, high)
    margin = 0.0 if deviations else 0.04 * (last - first)
    return _Scale(first - margin, last + margin)


def _path(values: Array, y: _Scale, step: float) -> str:
    """Return a line that is broken where a batch has no value."""
    parts, pen = [], False
    for k, value in enumerate(values):
        if not np.isfinite(value):
            pen = False
            continue
        parts.append(f"{'L' if pen else 'M'}{(k + 0.5) * step:.0f} {y(value):.0f}")
        pen = True
    return "".join(parts)


def _dots(values: Array, y: _Scale, step: float) -> str:
    return "".join(f"M{(k + 0.5) * step:.0f} {y(values[k]):.0f}h0" for k in np.flatnonzero(np.isfinite(values)))


def _band(low: Array, high: Array, y: _Scale, step: float) -> str:
    """Return the band of accepted history, with a corner only where an end of it moved by a pixel."""
    known = np.flatnonzero(np.isfinite(low))
    if not len(known):
        return ""
    edges = []
    for ends in (high, low):
        edge, last = [], None
        for k in known:
            now = round(y(ends[k]))
            if now != last or k == known[-1]:
                edge.append((round(k * step), now))
                last = now
        edges.append([*edge, (round((known[-1] + 1) * step), last or 0)])
    points = [*edges[0], *reversed(edges[1])]
    return '<path class="band" d="M' + "L".join(f"{x} {at}" for x, at in points) + 'Z"/>'


def _signs(line: Line, values: Array, batches: pd.DataFrame, moves: Sequence[Move], y: _Scale) -> Iterator[str]:
    count = max(len(values), 1)

    def use(sign: str, place: float, at: float) -> str:
        return f'<use href="#s-{sign}" x="{100 * (place + 0.5) / count:.2f}%" y="{at:.0f}"/>'

    for k, state in enumerate(batches["state"]):
        out = np.isfinite(values[k]) and line.chart.out(k)
        at = y(values[k]) if np.isfinite(values[k]) else float(BOTTOM)
        if state in SIGNS:
            yield use(SIGNS[state], k, at)
        elif out:
            yield use("out", k, at)
    if values is line.values:
        for place, plates in line.apart.items():
            yield from (use("plate", place, y(value)) for _, value in plates)
    for move in moves:
        yield use(move.kind, move.place - 0.5, HEIGHT - 9)


LEGEND = (
    ("band", "usual: three standard deviations of the accepted batches before"),
    ("dot", "a batch"),
    ("out", "breaks a drift rule"),
    ("plate", "a plate that stands apart"),
    ("held", "held for a person"),
    ("refused", "refused"),
    ("failed", "the run failed"),
    ("promote", "release"),
    ("rollback", "rollback"),
)
"""Sign -> what it means."""

SYMBOLS = (
    '<svg class="symbols" aria-hidden="true"><defs>'
    '<g id="s-dot"><circle r="2.5" class="fill"/></g>'
    '<g id="s-band"><rect x="-8" y="-5" width="16" height="10" class="band"/></g>'
    '<g id="s-out"><circle r="6" class="ring out"/></g>'
    '<g id="s-plate"><path d="M0 -4L4 3H-4Z" class="ring plate"/></g>'
    '<g id="s-held"><path d="M0 -6L6 0L0 6L-6 0Z" class="solid held"/></g>'
    '<g id="s-refused"><path d="M-5 -5L5 5M5 -5L-5 5" class="stroke refused"/></g>'
    '<g id="s-failed"><path d="M-5 -5H5V5H-5Z" class="ring refused"/></g>'
    '<g id="s-promote"><path d="M0 -5L5 5H-5Z" class="solid move"/></g>'
    '<g id="s-rollback"><path d="M0 5L5 -5H-5Z" class="solid move"/></g>'
    "</defs></svg>"
)
