"""`coda registry diff` and `card`: two releases or versions side by side, and the model card of one."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from coda.cli.rows import AsJson, print_json
from coda.contracts import PointerEntry, ReleaseRecord
from coda.registry import ReleaseLog
from coda.registry.cards import release_card, version_card
from coda.registry.comparison import Comparison, Side, compare, provenance_of, release_side, version_side
from coda.registry.drafts import GATE, PARAMS, named_release, read_kept
from coda.registry.versions import Version, fetched_config, named_version
from coda.settings import Settings, read_settings

Name = Annotated[str, typer.Argument(help="A release id, a source, 'default', or a version such as head/2.")]

_SECTIONS = {
    "model": "Models",
    "fact": "What else differs",
    "data": "Data that differs",
    "parameter": "Parameters that differ",
    "gate": "What the gate measured of the chosen candidate",
}


def diff(a: Name, b: Name, *, as_json: AsJson = False) -> None:
    """Two releases or two versions side by side: models, data, parameters, code, gate, and distance of weights."""
    settings = read_settings()
    found = compare(_side(a, settings), _side(b, settings), settings=settings)
    if as_json:
        print_json(asdict(found))
        return
    _print(found)


def card(name: Name, *, as_json: AsJson = False) -> None:
    """The model card of a version or a release, generated from the records, as Markdown."""
    settings = read_settings()
    version = named_version(name, settings=settings)
    text = _version_card(version, settings) if version is not None else _release_card(name, settings)
    if as_json:
        print_json({"name": name, "card": text})
    else:
        typer.echo(text, nl=False)


def _side(name: str, settings: Settings) -> Side:
    version = named_version(name, settings=settings)
    if version is not None:
        return version_side(version, settings=settings)
    return release_side(named_release(name, settings=settings), settings=settings)


def _version_card(version: Version, settings: Settings) -> str:
    moves = [
        f"{entry.scope} since {entry.at:%Y-%m-%d %H:%M} UTC (release {entry.release.release_id}, by {entry.by})"
        for entry in _entries(settings)
        if version.ref in (entry.release.extractor, entry.release.head)
    ]
    origin = provenance_of(version, settings=settings)
    config = fetched_config(version.ref, settings=settings)
    return version_card(version.name, version.tags, origin, config, version.ref.version, moves)


def _release_card(name: str, settings: Settings) -> str:
    record: ReleaseRecord = named_release(name, settings=settings)
    report = read_kept(record.run_id, GATE, settings=settings) if record.gate_digest else None
    moves = [entry for entry in _entries(settings) if entry.release.release_id == record.release_id]
    return release_card(record, report, moves, read_kept(record.run_id, PARAMS, settings=settings))


def _entries(settings: Settings) -> list[PointerEntry]:
    log = ReleaseLog(settings)
    return list(log.entries())


def _print(found: Comparison) -> None:
    console = Console()
    for section, title in _SECTIONS.items():
        rows = [row for row in found.rows if row.section == section]
        if not rows:
            continue
        table = Table(title=title, title_justify="left")
        for column in ("", found.left, found.right):
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(row.name, row.left, row.right)
        console.print(table)
    for kind, blocks in sorted(found.weights.items()):
        table = Table(title=f"Weights of the {kind}: distance relative to {found.left}", title_justify="left")
        table.add_column("block")
        table.add_column("distance", justify="right")
        for block, distance in blocks.items():
            table.add_row(block, _distance(distance))
        console.print(table)
    if not found.weights:
        console.print("The weights are the same.")


def _distance(value: float | None) -> str:
    if value is None:
        return "other shape"
    # a token that begins near zero may move many times its own length
    return f"{value:.2%}" if value < 10 else f"{value:.0f} times"
