"""The class shares of a batch against history, as a table whose rows each have their picture."""

from typing import Any

import numpy as np
from markupsafe import Markup

from coda.monitoring.site.prediction_pages import Shares

CENTRE = 50.0
"""Where no difference lies, in percent of the picture's width."""


def share_rows(shares: Shares) -> list[dict[str, Any]]:
    """Return class, share, history, difference with interval and picture of each class; the farthest first."""
    told = shares.told
    difference = told.share - told.centre
    widest = float(np.max(np.abs([told.low, told.high])))
    rows = []
    for k in np.argsort(-np.abs(difference), kind="stable"):
        low, high, moved = float(told.low[k]), float(told.high[k]), bool(told.moved[k])
        rows.append(
            {
                "name": shares.classes[k],
                "share": f"{told.share[k]:.1%}",
                "usual": f"{told.centre[k]:.1%}",
                "difference": f"{_points(difference[k])} ({_points(low)} to {_points(high)})",
                "moved": moved,
                "svg": _picture(low / widest, float(difference[k]) / widest, high / widest, moved=moved),
            }
        )
    return rows


def share_sentence(shares: Shares) -> str:
    """Return the comparison as text."""
    told = shares.told
    often = f"one steady batch in {1 / max(told.p_value, 1e-6):,.0f}" if told.p_value < 0.5 else "most steady batches"
    far = "farther than history makes likely" if told.distance > told.limit else "as history makes likely"
    return (
        f"{shares.batch}: {told.distance:.1%} of {told.wells} answered wells would need another class to be as "
        f"{told.batches} accepted batches were; {far} (limit {told.limit:.1%}; as far is {often})."
    )


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _picture(low: float, middle: float, high: float, *, moved: bool) -> Markup:
    def x(value: float) -> str:
        return f"{CENTRE + 46 * value:.1f}%"

    kind = "moved" if moved else "usual"
    return Markup(  # noqa: S704  numbers of our own
        f'<svg class="interval {kind}" height="18" width="100%" aria-hidden="true">'
        f'<line class="zero" x1="{CENTRE:.0f}%" x2="{CENTRE:.0f}%" y1="0" y2="18"/>'
        f'<line x1="{x(low)}" x2="{x(high)}" y1="9" y2="9"/><circle cx="{x(middle)}" cy="9" r="4"/></svg>'
    )
