"""The page that says which stains, plates and wells of a source's newest batches changed, with pictures of fields."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from coda.contracts.changed import WhatChanged
from coda.monitoring.change_tables import (
    LEGEND,
    MOST_MAPS,
    level,
    pair_words,
    part_rows,
    picture_name,
    plate_rows,
    said,
    well_rows,
)
from coda.monitoring.site.lines import Source
from coda.monitoring.site.pages import LEVELS, render
from coda.storage.objects import ObjectStore
from coda.storage.records import UnreadableRecordError, find_record

NEWEST = 6
"""Batches that the page is about."""

MAPS_OF_EARLIER = 8
"""Plates whose maps are drawn of batches that are not the newest, so that a page stays below 2 MB."""

WORDS = {"steady": "as usual", "watch": "look closer", "drift": "unusual"}

Found = tuple[dict[str, Any], WhatChanged]


def read_changes(store: ObjectStore, source: Source, rows: pd.DataFrame) -> list[Found]:
    """Return what the reports of the newest compared batches keep, the newest first."""
    compared = set(rows.loc[rows["measure"] == "two_sample/against", "manifest_digest"])
    mine = source.batches[source.batches["manifest_digest"].isin(compared) & (source.batches["page"] != "")]
    found: list[Found] = []
    for facts in mine.tail(NEWEST).iloc[::-1].to_dict("records"):
        key = f"{facts['page'].rpartition('/')[0]}/{WhatChanged.NAME}"
        try:
            changed = find_record(store, key, WhatChanged)
        except UnreadableRecordError:
            continue  # of a later release of this program, say: the report has it
        if changed is not None:
            found.append(({str(name): value for name, value in facts.items()}, changed))
    return found


def changed_page(source: Source, found: Sequence[Found]) -> str:
    """Return the page of what changed."""
    context = {
        "title": f"{source.name}: what changed", "kind": "changed", "source": source, "level": LEVELS[source.level],
        "told": [_told(*one, newest=k == 0) for k, one in enumerate(found)], "legend": LEGEND,
    }  # fmt: skip
    return render("changed.html.j2", context, depth=1)


def _told(facts: dict[str, Any], changed: WhatChanged, *, newest: bool) -> dict[str, Any]:
    page = f"../../{facts['page']}"
    folder = page.rpartition("/")[0]
    how = level(changed.whole) if changed.whole is not None else "unknown"
    return {
        "batch": changed.batch, "page": page, "when": f"{facts['when']:%Y-%m-%d}", "instrument": changed.instrument,
        "level": how, "word": WORDS.get(how, ""), "says": said(changed), "parts": part_rows(changed),
        "pairs": [(pair_words(pair), f"{folder}/{picture_name(k)}") for k, pair in enumerate(changed.pairs)],
        "plates": plate_rows(changed, MOST_MAPS if newest else MAPS_OF_EARLIER), "wells": well_rows(changed),
    }  # fmt: skip
