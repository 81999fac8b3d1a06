"""Builds the pages that changed, and puts them where they are opened from: the platform bucket, or a folder.

What a source's pages depend on (its batches by entity tag, its releases, this program) is kept as a fingerprint beside
them; a page is written when that is another one. Pages of two builders at once are the same pages.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from coda.contracts import PointerEntry
from coda.monitoring.batch_table import fingerprint, read, sources
from coda.monitoring.frames import batches_of
from coda.monitoring.site import pages
from coda.monitoring.site.changes import changed_page, read_changes
from coda.monitoring.site.lines import source_of
from coda.monitoring.standing import Standing, standing_of
from coda.storage.objects import ObjectStore

log = logging.getLogger(__name__)

PREFIX = "site/"
"""Where the pages lie, in the platform bucket and on a disk: links to reports lead out of it and back."""

KNOWN = f"{PREFIX}known.json"
"""What the pages were made from."""

TYPES = {
    "html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8",
    "csv": "text/csv; charset=utf-8", "json": "application/json", "png": "image/png",
}  # fmt: skip

Put = Callable[[str, bytes], None]


@dataclass(frozen=True)
class Now:
    """What is not in the table of batches: what serves, what runs, what waits.

    Attributes:
        entries: The release log, all scopes.
        running: `batch`, `state` and `since` of what is under way.
        waiting: `what`, `why` and `todo` of what waits for a person.
    """

    entries: Sequence[PointerEntry] = ()
    running: Sequence[Mapping[str, str]] = ()
    waiting: Sequence[Mapping[str, str]] = ()


def build_site(store: ObjectStore, now: Now, put: Put | None = None, *, everything: bool = False) -> list[str]:
    """Build the pages whose contents changed, and return their keys.

    Args:
        store: The platform bucket, with the table of batches.
        now: What else the pages tell.
        put: Takes key and bytes of each file; the platform bucket does when not given.
        everything: Build all pages again.
    """
    write = put or (lambda key, body: store.put(key, body, content_type=TYPES[key.rpartition(".")[2]]))
    known = {} if everything else _known(store)
    program = _program()
    rows: dict[str, Any] = {}
    facts: dict[str, list[Any]] = {}
    stands: dict[str, Any] = {}
    marks: dict[str, str] = {}
    written: list[str] = []

    def keep(key: str, text: str) -> None:
        write(f"{PREFIX}{key}", text.encode())
        written.append(f"{PREFIX}{key}")

    if known.get("program") != program:
        for name in ("site.css", "site.js"):  # before the pages that show by them
            keep(name, pages.resource(name))
    for name in sources(store):
        moves = [entry for entry in now.entries if entry.scope == name]
        marks[name] = _digest([program, fingerprint(store, name), [entry.to_json() for entry in moves]])
        before = known.get("sources", {}).get(name, {})
        if before.get("mark") == marks[name]:
            rows[name], facts[name], stands[name] = before["row"], before["facts"], before["standing"]
            continue
        frame = read(store, source=name)
        if frame.empty:
            continue
        source = source_of(name, frame)
        serving = moves[-1].release.release_id if moves else ""
        rows[name] = pages.fleet_row(source, serving)
        stands[name] = standing_of(source).model_dump(mode="json")
        facts[name] = batches_of(frame)[["source", "batch", "page", "release_id"]].to_dict("records")
        keep(f"source/{name}.html", pages.source_page(source, moves))
        keep(f"controls/{name}.html", pages.controls_page(source, moves))
        keep(f"predictions/{name}.html", pages.predictions_page(source, moves))
        keep(f"changed/{name}.html", changed_page(source, read_changes(store, source, frame)))
        keep(f"source/{name}.csv", pages.numbers_csv(source))
    top = _digest([program, marks, [entry.to_json() for entry in now.entries], list(now.running), list(now.waiting)])
    if known.get("top") != top:
        keep("index.html", pages.fleet_page(list(rows.values()), now.waiting, now.running))
        served = [row for found in facts.values() for row in found]
        keep(
            "models.html",
            pages.models_page(now.entries, pd.DataFrame(served, columns=["source", "batch", "page", "release_id"])),
        )
    if written:
        told = {
            name: {"mark": marks[name], "row": rows[name], "facts": facts[name], "standing": stands[name]}
            for name in rows
        }
        keep("known.json", json.dumps({"program": program, "top": top, "sources": told}))
    return written


def standings(store: ObjectStore) -> dict[str, Standing]:
    """Return how each source stands, as whoever built the pages last found it."""
    found = _known(store).get("sources", {})
    try:
        # as JSON: strict models take its lists for tuples
        return {name: Standing.model_validate_json(json.dumps(known["standing"])) for name, known in found.items()}
    except (KeyError, TypeError, ValueError) as error:
        # another release of this program built them, and will not for long
        log.warning("How the sources stand cannot be read from %s (%s).", store.url(KNOWN), error)
        return {}


def _known(store: ObjectStore) -> dict[str, Any]:
    body = store.find(KNOWN, at_most=256 * 1024 * 1024)
    try:
        raw = json.loads(body) if body is not None else {}
    except ValueError:
        return {}  # cut short: all pages are built again
    return raw if isinstance(raw, dict) else {}


def _program() -> str:
    """Return what the pages are made by: other code, rules or templates make other pages of the same batches."""
    made_by = Path(__file__).resolve().parent.parent
    files = sorted(path for path in made_by.rglob("*") if path.suffix in {".py", ".j2", ".css", ".js"})
    return _digest([path.read_text(encoding="utf-8") for path in files])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
