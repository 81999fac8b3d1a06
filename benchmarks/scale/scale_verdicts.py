"""What the figures of growing batches say against the targets of the data plane."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.scale.growth import each_more, exponent, last_doubling

MOVED = 3.2
"""Most bytes that may move for one batch, in stored bytes of the batch: object storage but for the raw images, and what
steps hand over, read and written."""

LEFT = 0.5
"""Most bytes that may stay in a run's folder, in stored bytes of the batch: tables may, pixels may not."""

EXPONENT = 1.1
"""Largest exponent of the last doubling: a little above in step with the plates, for what is measured unevenly."""

PEAK_BYTES = 1.5 * 2**30
PEAK_GROWS = 0.2
"""Most memory of a step's process, and most that it may have more than at the smallest batch, of what it had there; of
every step but `NOT_BOUND`. What the warm worker imported meanwhile is no growth."""

NOT_BOUND = ("adapt",)

TELLING_CPU_S = 5.0
"""A step with less processor time at the largest batch is not judged by its exponent: that would be noise."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One target and what was found.

    Attributes:
        target: What is asked for, in words.
        found: What was found, in words.
        met: Whether it is; none where too few sizes were measured to say.
    """

    target: str
    found: str
    met: bool | None


def stored(row: Figures, value: float) -> float:
    """Return bytes in stored bytes of the row's batch, D."""
    return float(value) / float(row["stored_bytes"])


def growth_of(rows: Sequence[Figures]) -> dict[str, Any]:
    """Return how the totals and every step grow, over sizes of one archive, smallest first.

    Returns:
        Figure -> ``last_doubling``, ``exponent`` (over all sizes) and ``a_plate`` (what one more plate costs); the
        steps' under ``steps``.
    """
    plates = [row["plates"] for row in rows]

    def fitted(value: Callable[[Figures], float]) -> dict[str, float | None]:
        values = [value(row) for row in rows]
        return {
            "last_doubling": last_doubling(plates, values),
            "exponent": exponent(plates, values),
            "a_plate": each_more(plates, values),
        }

    names = ("seconds", "cpu_s", "requests", "moved_bytes", "moved_stores_bytes", "left_bytes", "stored_bytes")
    found: dict[str, Any] = {name: fitted(lambda row, name=name: row[name]) for name in names}  # type: ignore[misc]
    found["peak_bytes"] = fitted(lambda row: max(step["peak_bytes"] for step in row["steps"].values()))
    found["steps"] = {
        step: {
            name: fitted(lambda row, step=step, name=name: row["steps"][step][name])  # type: ignore[misc]
            for name in ("seconds", "cpu_s", "peak_bytes", "peak_all_bytes", "handed_bytes", "output_bytes")
        }
        for step in rows[-1]["steps"]
        if all(step in row["steps"] for row in rows)
    }
    return found


def verdicts_of(rows: Sequence[Figures]) -> list[Verdict]:
    """Return every target with what was found at the largest size; rows as for `growth_of`."""
    last, growth = rows[-1], growth_of(rows)
    moved, left = stored(last, last["moved_bytes"]), stored(last, last["left_bytes"])
    return [
        Verdict(f"bytes moved at most {MOVED:g} D", f"{moved:.2f} D at {last['plates']} plates", moved <= MOVED),
        _further(rows, "moved_bytes", MOVED, f"one more plate: at most {MOVED:g} of its D"),
        Verdict("nothing of size D left in the run's folder", f"{left:.2f} D", left <= LEFT),
        _further(rows, "left_bytes", LEFT, f"one more plate: at most {LEFT:g} of its D"),
        *(_grows(name, growth[name]["last_doubling"]) for name in ("seconds", "requests", "moved_bytes", "cpu_s")),
        _steps_grow(rows, growth),
        _peak(last),
        _steady(rows),
    ]


def as_rows(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """Return verdicts for JSON."""
    return [asdict(verdict) for verdict in verdicts]


def _grows(name: str, found: float | None) -> Verdict:
    words = {"seconds": "seconds", "cpu_s": "processor time", "requests": "requests", "moved_bytes": "bytes moved"}
    target = f"{words[name]}: exponent {EXPONENT:g} at most"
    return Verdict(target, "one size only", None) if found is None else Verdict(target, f"{found:.2f}", _within(found))


def _further(rows: Sequence[Figures], name: str, most: float, target: str) -> Verdict:
    """Judge what one more plate adds: without what every run moves, models above all, however small its plates are."""
    found = each_more([row["stored_bytes"] for row in rows], [row[name] for row in rows])
    return Verdict(target, "one size only", None) if found is None else Verdict(target, f"{found:.2f} D", found <= most)


def _within(found: float) -> bool:
    return found <= EXPONENT


def _steps_grow(rows: Sequence[Figures], growth: dict[str, Any]) -> Verdict:
    target = f"every step above {TELLING_CPU_S:g} s of it grows so"
    found = {
        step: fits["cpu_s"]["last_doubling"]
        for step, fits in growth["steps"].items()
        if rows[-1]["steps"][step]["cpu_s"] >= TELLING_CPU_S and fits["cpu_s"]["last_doubling"] is not None
    }
    if not found:
        return Verdict(target, "one size only", None)
    worst = max(found, key=lambda step: found[step])
    return Verdict(target, f"{worst} {found[worst]:.2f}", _within(found[worst]))


def _bound(row: Figures) -> dict[str, Figures]:
    return {
        step: used
        for step, used in row["steps"].items()
        if not set(step.split("+")) & set(NOT_BOUND) and used["peak_bytes"]
    }


def _peak(last: Figures) -> Verdict:
    peaks = {step: used["peak_bytes"] for step, used in _bound(last).items()}
    worst = max(peaks, key=lambda step: peaks[step], default="")
    target = f"memory of every step but {', '.join(NOT_BOUND)} below {PEAK_BYTES / 2**30:g} GiB"
    if not worst:
        return Verdict(target, "no step was seen", None)
    return Verdict(target, f"{worst} {peaks[worst] / 2**20:,.0f} MiB", peaks[worst] < PEAK_BYTES)


def _steady(rows: Sequence[Figures]) -> Verdict:
    target = f"it grows by {PEAK_GROWS:.0%} at most from {rows[0]['plates']} plates on"
    first, last = _bound(rows[0]), _bound(rows[-1])
    shares = {
        step: (_own(last[step]) - _own(first[step])) / first[step]["peak_bytes"] for step in first if step in last
    }
    if len(rows) < 2 or not shares:
        return Verdict(target, "one size only", None)
    worst = max(shares, key=lambda step: shares[step])
    return Verdict(target, f"{worst} {shares[worst]:+.0%}", shares[worst] <= PEAK_GROWS)


def _own(used: Figures) -> float:
    return float(used["peak_bytes"]) - float(used["inherited_bytes"])
