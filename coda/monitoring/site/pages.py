"""Pages from lines: what stands in them, and the data that the script of a page reads."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from coda.contracts import PointerEntry
from coda.monitoring.rules import ARL0, MEANINGS, WARNING, Chart
from coda.monitoring.site.intervals import share_rows, share_sentence
from coda.monitoring.site.lines import Line, Source
from coda.monitoring.site.svg_lines import LEGEND, SYMBOLS, Move, bounds, draw

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'"
)
"""Content security policy of every page: its own script and style sheet, and nothing from anywhere else."""

MOST_POINTS, FEWEST = 36_000, 200
"""Points of all pictures of a page, which so stays below 2 MB; batches that are shown all the same."""

NEWEST_EVENTS = 60
"""Broken rules and batches that a list shows."""

MOST_CHANGED = 50
"""Compounds that changed class in a list."""

_SHOWN = ("batch", "when", "state", "page")

STATES = {
    "released": "released", "incumbent_kept": "earlier release kept", "held": "held for a person",
    "refused": "refused", "failed": "run failed", "landed": "waits", "claimed": "starts", "running": "runs",
}  # fmt: skip
TABS = (
    ("source", "Batches"), ("controls", "Controls"), ("predictions", "Predictions"), ("changed", "What changed"),
)  # fmt: skip
"""Folder of a kind of page about a source -> its name."""

LEVELS = {"steady": "steady", "watch": "look closer", "drift": "drift", "unknown": "too few batches"}


def source_page(source: Source, moves: Sequence[PointerEntry]) -> str:
    """Return the page of a source: acquisition, quality, embedding and gate over its batches."""
    about = "Every number of every batch against what earlier accepted batches of the same microscope make likely."
    return _source_page(source, moves, source.lines, "source", f"{source.name}: its batches", about)


def controls_page(source: Source, moves: Sequence[PointerEntry]) -> str:
    """Return the page of a source's controls: Levey-Jennings charts with Westgard rules and a CUSUM."""
    about = (
        "Levey-Jennings charts: standard deviations from accepted history, with lines at 2 and 3. Westgard rules 1-3s, "
        "2-2s, R-4s, 4-1s and 10-x reject, 1-2s warns; the second line is the CUSUM, drawn so that its limits are the "
        f"lines at 3, with a false alarm of any of them every {ARL0:.0f} batches."
    )
    return _source_page(
        source, moves, source.controls, "controls", f"{source.name}: its controls", about, deviations=True
    )


def predictions_page(source: Source, moves: Sequence[PointerEntry]) -> str:
    """Return the page of a source's predictions: class shares, certainty, and compounds that changed class."""
    about = "How answers are shared among the classes, how sure they are, and known compounds that changed class."
    return _source_page(
        source, moves, source.answers, "predictions", f"{source.name}: predictions", about,
        changed=source.changed[:MOST_CHANGED], more_changed=max(0, len(source.changed) - MOST_CHANGED),
        shares=share_rows(source.shares) if source.shares else (),
        shares_say=share_sentence(source.shares) if source.shares else "",
    )  # fmt: skip


def _source_page(
    source: Source,
    entries: Sequence[PointerEntry],
    lines: Sequence[Line],
    kind: str,
    title: str,
    about: str,
    *,
    deviations: bool = False,
    **extra: Any,
) -> str:
    total, kept = len(source.batches), max(FEWEST, MOST_POINTS // max(len(lines), 1))
    first_shown = max(0, total - kept)
    batches = source.batches.iloc[first_shown:].reset_index(drop=True)
    lines = [line.since(first_shown) for line in lines]
    lines = [line for line in lines if np.isfinite(line.values).any()]
    moves = [replace(move, place=move.place - first_shown) for move in _moves(source, entries)]
    moves = [move for move in moves if move.place >= 0]
    groups: dict[str, list[dict[str, Any]]] = {}
    for number, line in enumerate(lines):
        first, last = bounds(line, deviations=deviations)
        groups.setdefault(line.group, []).append(
            {
                "id": number,
                "name": line.name,
                "said": _said(line, batches, deviations=deviations),
                "top": short(last),
                "bottom": short(first),
                "svg": Markup(draw(line, batches, moves, deviations=deviations)),  # noqa: S704  numbers of our own
            }
        )
    shown: list[Any] = list(batches[list(_SHOWN)].itertuples(index=False, name=None))
    data = {
        "batches": [
            [name, f"{when:%Y-%m-%d}", STATES.get(state, state), f"../../{page}" if page else ""]
            for name, when, state, page in shown
        ],
        "charts": [_data(line) for line in lines],
        "rules": MEANINGS,
    }
    context = {
        "title": title, "about": about, "kind": kind, "source": source, "groups": groups, "legend": LEGEND,
        "symbols": Markup(SYMBOLS),  # noqa: S704  a constant
        "events": _events(lines, batches), "level": LEVELS[source.level], "deviations": deviations,
        "data": Markup(json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")),  # noqa: S704
        "first": f"{batches['when'].iloc[0]:%Y-%m-%d}", "last": f"{batches['when'].iloc[-1]:%Y-%m-%d}",
        "changed": (), "more_changed": 0, "shares": (), "shares_say": "", "batches": _batch_rows(batches),
        "total": total, "shown": len(batches), **extra,
    }  # fmt: skip
    return render("source.html.j2", context, depth=1)


def fleet_page(
    sources: Sequence[Mapping[str, Any]], waiting: Sequence[Mapping[str, str]], running: Sequence[Mapping[str, str]]
) -> str:
    """Return the first page.

    Args:
        sources: Of each source: `fleet_row`.
        waiting: Of what waits for a person: `what`, `why`, `todo`, `page`.
        running: Of each run under way: `batch`, `state`, `since`.
    """
    context = {"title": "Fleet", "sources": sources, "waiting": waiting, "running": running, "levels": LEVELS}
    return render("fleet.html.j2", context, depth=0)


def fleet_row(source: Source, release: str) -> dict[str, Any]:
    """Return what the first page says of a source: what serves it, and of each microscope newest batch and drift."""
    told = {name: (level, sentence) for name, level, sentence in source.microscopes}
    newest = source.batches.sort_values("processed_at").groupby("instrument", sort=False).tail(1).iloc[::-1]
    rows = [
        {
            "microscope": row["instrument"], "count": int((source.batches["instrument"] == row["instrument"]).sum()),
            "batch": row["batch"], "when": f"{row['processed_at']:%Y-%m-%d %H:%M}",
            "state": row["state"], "said": STATES.get(row["state"], row["state"]),
            "page": f"../{row['page']}" if row["page"] else "",
            "level": told.get(row["instrument"], ("unknown", ""))[0],
            "sentence": told.get(row["instrument"], ("", "No batch of it was accepted."))[1],
        }
        for row in newest.to_dict("records")
    ]  # fmt: skip
    return {"name": source.name, "release": release, "microscopes": rows}


def models_page(entries: Sequence[PointerEntry], batches: pd.DataFrame) -> str:
    """Return the page of the models: every move of every pointer, what it changed, and the batches it served."""
    served = list(batches[batches["release_id"] != ""].groupby("release_id"))
    by_release = {str(name): mine[["source", "batch", "page"]].tail(12).to_dict("records") for name, mine in served}
    counts = {str(name): len(mine) for name, mine in served}
    before: dict[str, PointerEntry] = {}
    rows: list[dict[str, Any]] = []
    for entry in sorted(entries, key=lambda item: (item.scope, item.sequence)):
        rows.append({"entry": entry, "changed": _changed(before.get(entry.scope), entry)})
        before[entry.scope] = entry
    rows.sort(key=lambda row: row["entry"].at, reverse=True)
    shown = rows[:400]
    context = {
        "title": "Models", "rows": shown, "more": len(rows) - len(shown), "served": by_release, "counts": counts,
        "serving": {scope: entry.sequence for scope, entry in before.items()},
    }  # fmt: skip
    return render("models.html.j2", context, depth=0)


def numbers_csv(source: Source) -> str:
    """Return every number that the pages of a source show, one column each, one row a batch."""
    table = source.batches[["batch", "when", "state", "release_id"]].copy()
    columns = {line.name: line.values for line in (*source.lines, *source.controls, *source.answers)}
    return pd.concat([table, pd.DataFrame(columns, index=table.index)], axis=1).to_csv(index=False)


def _changed(before: PointerEntry | None, entry: PointerEntry) -> str:
    if before is None:
        return "first release"
    old, new = before.release, entry.release
    parts = [
        name
        for name, a, b in (
            ("extractor", old.extractor.digest, new.extractor.digest), ("head", old.head.digest, new.head.digest),
            ("alignment", old.alignment, new.alignment), ("way", old.method, new.method),
        )
        if a != b
    ]  # fmt: skip
    return ", ".join(parts) or "nothing"


def _moves(source: Source, entries: Sequence[PointerEntry]) -> list[Move]:
    ended = source.batches["processed_at"]
    found = []
    for entry in entries:
        after = np.flatnonzero((ended >= entry.at).to_numpy())
        place = int(after[0]) if len(after) else len(ended)
        found.append(Move(place, entry.action, entry.release.release_id))
    return found


def _data(line: Line) -> dict[str, Any]:
    """Return a line for the script: four digits of each number, and only what is not empty."""
    told: Chart = line.chart
    rules = {str(k): list(broken) for k, broken in enumerate(told.broken) if broken}
    apart = {str(k): [[plate, _round(value)] for plate, value in plates] for k, plates in line.apart.items()}
    return {
        "n": line.name, "v": _numbers(line.values), "l": _numbers(told.low), "h": _numbers(told.high), "r": rules,
        "p": apart,
    }  # fmt: skip


def _numbers(values: Any) -> list[float | None]:
    return [_round(value) for value in values]


def _round(value: float) -> float | None:
    if not np.isfinite(value):
        return None
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded == int(rounded) else rounded


def short(value: float) -> str:
    """Return a number as it stands beside a picture: three digits, and none of a thousand lost."""
    if not np.isfinite(value):
        return "–"
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}").replace("-", "−")


def _said(line: Line, batches: pd.DataFrame, *, deviations: bool) -> str:
    """Return the newest value as text, for people who see no picture."""
    known = np.flatnonzero(np.isfinite(line.values))
    place = int(known[-1])
    told = f"{batches['batch'].iloc[place]}: {short(line.values[place])}"
    if np.isfinite(line.chart.low[place]):
        told += f", usual {short(line.chart.low[place])} to {short(line.chart.high[place])}"
    if deviations and np.isfinite(line.chart.q[place]):
        told += f", {short(line.chart.q[place])} SD"
    broken = [rule for rule in line.chart.broken[place] if rule != WARNING]
    return f"{told}; breaks {', '.join(broken)}" if broken else told


def _events(lines: Sequence[Line], batches: pd.DataFrame) -> list[dict[str, str]]:
    """Return the newest broken rules: in which batch, of what, and what the rule says."""
    found = [
        (k, line.name, rule)
        for line in lines
        for k, broken in enumerate(line.chart.broken)
        for rule in broken
        if rule != WARNING and k >= len(batches) - NEWEST_EVENTS
    ]
    found.sort(key=lambda item: -item[0])
    return [
        {"batch": batches["batch"].iloc[k], "name": name, "rule": rule, "says": MEANINGS[rule]}
        for k, name, rule in found[:NEWEST_EVENTS]
    ]


def _batch_rows(batches: pd.DataFrame) -> list[dict[str, Any]]:
    rows = batches.tail(NEWEST_EVENTS).iloc[::-1].to_dict("records")
    return [
        {
            "batch": row["batch"], "when": f"{row['when']:%Y-%m-%d}", "state": row["state"],
            "said": STATES.get(row["state"], row["state"]), "reason": row["reason"], "release": row["release_id"],
            "page": f"../../{row['page']}" if row["page"] else "",
        }
        for row in rows
    ]  # fmt: skip


def render(name: str, context: Mapping[str, Any], *, depth: int) -> str:
    """Return a page from its template, so many folders below the first page."""
    up = "../" * depth
    written = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    page = _environment().get_template(name)
    return str(page.render({**context, "up": up, "policy": POLICY, "written": written, "tabs": TABS}))


@cache
def _environment() -> Environment:
    from jinja2 import FunctionLoader

    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=FunctionLoader(resource),
    )  # fmt: skip


def resource(name: str) -> str:
    """Return a file of this package as text."""
    return files("coda.monitoring.site").joinpath(name).read_text(encoding="utf-8")
