"""The study's figures as tables of text and as JSON values."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.drift.drift_runs import BEFORE, Matched, Rate, Seen, Study
from benchmarks.drift.odd_plates import PlateRates

Table = tuple[str, list[str], list[list[str]]]
"""Title, columns, rows."""


def tables(study: Study, plates: Sequence[PlateRates]) -> list[Table]:
    """Return all tables, in the order of decision 0042."""
    found = [_customary(study.customary)]
    for arl0, rows in study.matched.items():
        found += [_matched(f"a false alarm every {arl0} batches, {BEFORE[source]} steady batches before", rows, source)
                  for source in BEFORE]  # fmt: skip
    return [*found, _plates(plates)]


def as_json(study: Study, plates: Sequence[PlateRates]) -> dict[str, Any]:
    """Return everything for programs."""
    matched = {
        arl0: [
            {
                "detector": row.detector.name, "threshold": row.threshold, "false_alarms": asdict(row.false_alarms),
                "changes": [
                    {"source": source, "change": change, **asdict(seen)}
                    for (source, change), seen in row.seen.items()
                ],
            }
            for row in rows
        ]
        for arl0, rows in study.matched.items()
    }  # fmt: skip
    customary = {name: {noise: asdict(one) for noise, one in row.items()} for name, row in study.customary.items()}
    return {
        "settings": dict(study.settings), "customary": customary, "matched": matched,
        "plates": [asdict(row) for row in plates],
    }  # fmt: skip


def _customary(rows: Mapping[str, Mapping[Any, Rate]]) -> Table:
    noises = list(next(iter(rows.values())))
    cells = [[name, *(_percent(row[noise]) for noise in noises)] for name, row in rows.items()]
    return "Steady histories with a false alarm within 56 batches, as usually set, %", ["detector", *noises], cells


def _matched(words: str, rows: Sequence[Matched], source: str) -> Table:
    changes = [change for of, change in rows[0].seen if of == source]
    cells = [
        [row.detector.name, _percent(row.false_alarms), *(_seen(row.seen[source, change]) for change in changes)]
        for row in rows
    ]
    title = f"Share seen within 20 batches (%), mean batches until seen: {words}"
    return title, ["detector", "false", *changes], cells


def _plates(rows: Sequence[PlateRates]) -> Table:
    cases = list(rows[0].rates)
    cells = [[row.rule, str(row.plates), *(_percent(row.rates[case]) for case in cases)] for row in rows]
    return "How often a rule flags the newest batch, %", ["rule", "plates", *cases], cells


def _percent(one: Rate) -> str:
    digits = 2 if one.value < 0.01 else 1
    return f"{100 * one.value:.{digits}f} [{100 * one.low:.{digits}f}, {100 * one.high:.{digits}f}]"


def _seen(one: Seen) -> str:
    delay = f"{one.delay:.1f}" if one.seen.value > 0 else "-"
    return f"{100 * one.seen.value:.0f}, {delay}"
