"""`coda registry verify` and `gc`: whether the registry holds what was recorded, and what nothing needs any more."""

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from coda.cli.rows import AsJson, Column, Wide, print_json, print_rows
from coda.errors import IntegrityError, raise_if_any
from coda.registry import ConflictError
from coda.registry.garbage import Garbage, collect, find_garbage
from coda.registry.mirror import repair as repair_aliases
from coda.registry.verification import verify_registry
from coda.settings import read_settings

_UNITS = ("B", "kB", "MB", "GB", "TB")


def verify(
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Every version and past release, not only what serves.")
    ] = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Put MLflow aliases back to what the release log says.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check bytes, pairs, gate reports and signatures of what serves, and MLflow's aliases against the log.

    Exit code 4: something is not what was recorded. Exit code 1: only an alias was moved by hand.
    """
    settings = read_settings()
    found = verify_registry(settings=settings, everything=everything)
    left = repair_aliases(settings=settings) if repair and found.aliases else list(found.aliases)
    repaired = [item for item in found.aliases if item not in left]
    if as_json:
        facts = {
            "serving": found.serving,
            "versions_fetched": found.versions,
            "problems": [str(item) for item in found.problems],
            "aliases": [str(item) for item in left],
            "repaired": [item.where for item in repaired],
        }
        print_json(facts)
    else:
        typer.echo(f"{len(found.serving)} pointer(s) read; what they name was fetched and verified.")
        if everything:
            typer.echo(f"{found.versions} registered version(s) fetched whole and verified.")
        for item in repaired:
            typer.echo(f"Put back: {item.where}, {item.expected} (was {item.found}).")
    if found.problems:
        raise IntegrityError("The registry does not hold what was recorded.", [*found.problems, *left])
    raise_if_any(ConflictError, "MLflow's aliases do not say what serves: somebody moved them by hand.", left)


def gc(
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only the list is printed.")] = False,
    older_than: Annotated[
        int, typer.Option("--older-than", min=1, help="Days: what is younger stays; a run may be making it.")
    ] = 7,
    held: Annotated[bool, typer.Option("--held", help="Also drafts of that age that still wait for a person.")] = False,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """List what nothing refers to any more, with sizes and reasons; with --yes, delete it.

    What any entry of the release log names, past ones too, and all it descends from, is never listed.
    """
    settings = read_settings()
    before = _now() - timedelta(days=older_than)
    found = find_garbage(settings=settings, before=before, held=held)
    problems = collect(found, settings=settings, before=before, held=held) if yes else []
    if as_json:
        items = [{**asdict(item), "modified": item.modified.isoformat()} for item in found]
        print_json({"deleted": yes, "bytes": sum(item.size for item in found), "items": items})
    else:
        _print(found, deleted=yes, older_than=older_than, wide=wide)
    raise_if_any(IntegrityError, "A batch was versioned while its old objects were deleted.", problems)


def _print(found: list[Garbage], *, deleted: bool, older_than: int, wide: bool) -> None:
    columns = (
        Column("kind", lambda item: item.kind),
        Column("what", lambda item: item.name),
        Column("size", lambda item: _bytes(item.size), right=True),
        Column("why", lambda item: item.reason, yields=1),
    )
    print_rows(found, columns, wide=wide, empty=f"Nothing older than {older_than} day(s) is without a reference.")
    if not found:
        return
    total = f"{len(found)} item(s), {_bytes(sum(item.size for item in found))}"
    typer.echo(f"{total}: deleted." if deleted else f"{total}: nothing was deleted; add --yes to do so.")


def _bytes(size: int) -> str:
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def _now() -> datetime:
    return datetime.now(UTC)
