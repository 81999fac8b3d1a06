"""What changed, as text, tables and plate maps: the same in the report of a batch and on the pages about drift."""

from typing import Any

import numpy as np
from markupsafe import Markup

from coda.contracts.changed import Pair, PlateTold, ToldApart, WhatChanged
from coda.plates.layout import FORMATS, parse_well, row_name

RARE, SELDOM = 0.01, 0.05
"""A batch that one steady batch in a hundred, or in twenty, is as far away as."""

MOST_MAPS = 32
"""Plates of a batch whose maps are drawn, at most: the most different ones."""

MOST_WELLS = 40
"""Wells in a list: the most different ones."""

LEVELS = (0.2, 0.4, 0.6, 0.8)
"""Ends of the five colours of a plate map, in mean probability."""

LEGEND = ("as before", "rather as before", "either", "rather as now", "as now")
"""What the colours mean."""

CELL, EDGE = 9, 15
"""Sides of a well and of the margin with names, in pixels of a plate map."""


def said(changed: WhatChanged) -> str:
    """Return in sentences whether and how far a batch differs from earlier ones."""
    whole = changed.whole
    if whole is None:
        return changed.why_not
    many = f"{len(changed.against)} earlier batch{'es' if len(changed.against) != 1 else ''}"
    start = (
        f"A classifier tells {whole.accuracy:.0%} of fields it has not seen rightly as of {changed.batch} or of {many} "
        f"of this microscope ({', '.join(changed.against)}); 50% is guessing."
    )
    return f"{start} {_verdict(whole)}{_of_what(changed)}"


def _verdict(whole: ToldApart) -> str:
    if whole.p_value is None:
        return "Whether that is unusual cannot be said before there are three earlier batches to compare."
    usual = f"separation {_short(whole.separation)}; earlier batches from each other {_range(whole)}"
    if whole.p_value >= 0.5:
        return f"Earlier batches are separated from each other as well ({usual})."
    rare = (
        f"one steady batch in {1 / whole.p_value:,.0f} is" if whole.p_value > 1e-4 else "no steady batch in 10,000 is"
    )
    often = f"{rare} as far away"
    how = "farther than" if whole.p_value < SELDOM else "about as far as"
    return f"It is {how} earlier batches are from each other ({usual}; {often})."


def _of_what(changed: WhatChanged) -> str:
    if changed.treatments is None:
        return " Wells of all treatments are compared: too few have a treatment that both sides have."
    return f" Compared are {changed.wells} wells of the {changed.treatments} treatments that both sides have."


def level(told: ToldApart) -> str:
    """Return 'drift', 'watch', 'steady' or 'unknown', as signs of the pages are called."""
    if told.p_value is None:
        return "unknown"
    return "drift" if told.p_value < RARE else "watch" if told.p_value < SELDOM else "steady"


def carries(changed: WhatChanged, part: ToldApart) -> bool:
    """Return whether a stain or the embedding is farther away than chance makes likely in any of all of them."""
    return part.p_value is not None and part.p_value * len(changed.parts) < SELDOM


def part_rows(changed: WhatChanged) -> list[dict[str, Any]]:
    """Return stains and embedding, the most unusual first, each with its picture."""
    parts = sorted(changed.parts, key=lambda part: (1.0 if part.p_value is None else part.p_value, -part.separation))
    widest = max((value for part in parts for value in (part.separation, *part.earlier)), default=1.0)
    return [
        {
            "by": part.by if part.by != "embedding" else "what the model sees (embedding)",
            "accuracy": f"{part.accuracy:.0%}",
            "separation": _short(part.separation),
            "earlier": _range(part) if part.earlier else "",
            "p": "" if part.p_value is None else f"{part.p_value:.3f}" if part.p_value >= 0.001 else "below 0.001",
            "carries": carries(changed, part),
            "svg": _interval(part, widest),
        }
        for part in parts
    ]


def _range(told: ToldApart) -> str:
    return f"{_short(min(told.earlier))} to {_short(max(told.earlier))}"


def _short(value: float) -> str:
    """Return a separation with one digit, and none below 0 that is nothing."""
    return f"{round(value, 1) + 0.0:.1f}".replace("-", "−")


def _interval(told: ToldApart, widest: float) -> Markup:
    """Draw how far the batch is (dot) and how far earlier batches are from each other (line), from 0 on."""

    def x(value: float) -> str:
        return f"{2 + 95 * min(max(value, 0.0) / max(widest, 1e-9), 1.0):.1f}%"

    ends = (min(told.earlier), max(told.earlier)) if told.earlier else (0.0, 0.0)
    return Markup(  # noqa: S704  numbers of our own
        '<svg class="interval" height="18" width="100%" aria-hidden="true">'
        f'<line class="zero" x1="2%" x2="2%" y1="0" y2="18"/>'
        f'<line x1="{x(ends[0])}" x2="{x(ends[1])}" y1="9" y2="9"/>'
        f'<circle cx="{x(told.separation)}" cy="9" r="4"/></svg>'
    )


def plate_rows(changed: WhatChanged, maps: int = MOST_MAPS) -> list[dict[str, Any]]:
    """Return the plates, the most different first, so many of them with their map."""
    return [
        {
            "plate": plate.plate, "told": f"{plate.told:.0%}", "score": f"{plate.score:.2f}", "fields": plate.fields,
            "svg": plate_map(plate) if number < maps else None,
        }
        for number, plate in enumerate(changed.plates)
    ]  # fmt: skip


def well_rows(changed: WhatChanged) -> list[tuple[str, str, str]]:
    """Return plate, well and score of the wells that are most typical of the batch."""
    found = [(score, plate.plate, well) for plate in changed.plates for well, score in plate.wells.items()]
    found.sort(key=lambda item: (-item[0], item[1:]))
    return [(plate, well, f"{score:.2f}") for score, plate, well in found[:MOST_WELLS]]


def plate_map(plate: PlateTold) -> Markup:
    """Draw a plate: one square a well, in five colours from typical of before to typical of now."""
    places = {place: score for well, score in plate.wells.items() if (place := parse_well(well)) is not None}
    deep = max((row for row, _ in places), default=0) + 1
    wide = max((column for _, column in places), default=0) + 1
    rows, columns = next(
        (size for _, size in sorted(FORMATS.items()) if size[0] >= deep and size[1] >= wide), (deep, wide)
    )
    paths = [""] * (len(LEVELS) + 1)
    for (row, column), score in sorted(places.items()):
        at = (EDGE + CELL * column + CELL // 2, EDGE + CELL * row + CELL // 2)
        paths[int(np.searchsorted(LEVELS, score, side="right"))] += f"M{at[0]} {at[1]}h0"
    width, height = EDGE + CELL * columns + 2, EDGE + CELL * rows + 2
    names = "".join(
        f'<text x="{EDGE - 3}" y="{EDGE + CELL * row + CELL - 1}" text-anchor="end">{row_name(row)}</text>'
        for row in (0, rows - 1)
    ) + "".join(
        f'<text x="{EDGE + CELL * column + CELL // 2}" y="{EDGE - 3}" text-anchor="middle">{column + 1}</text>'
        for column in (0, columns - 1)
    )
    most = max(plate.wells, key=lambda well: plate.wells[well])
    label = (
        f"Plate {plate.plate}: mean {plate.score:.2f}, most typical of now is well {most} with {plate.wells[most]:.2f}"
    )
    drawn = "".join(f'<path class="w{k}" d="{path}"/>' for k, path in enumerate(paths) if path)
    return Markup(
        '<svg class="wells" width="{}" height="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '<rect class="ground" x="{}" y="{}" width="{}" height="{}"/>{}{}</svg>'
    ).format(
        width, height, width, height, label, EDGE - 1, EDGE - 1, CELL * columns + 2, CELL * rows + 2,
        Markup(names), Markup(drawn),  # noqa: S704
    )  # fmt: skip


def pair_words(pair: Pair) -> str:
    """Return what a pair of pictures shows: before on the left, now on the right."""
    places = [
        f"{place.batch}, plate {place.plate}, {place.well}, site {place.site}" for place in (pair.before, pair.now)
    ]
    return f"{pair.treatment}: {places[0]} ({pair.before.score:.2f}) and {places[1]} ({pair.now.score:.2f})"


def picture_name(number: int) -> str:
    """Return the name of the picture of a pair, beside the report."""
    return f"changed-{number}.png"
