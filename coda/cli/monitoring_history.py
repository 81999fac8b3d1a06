"""`coda monitoring history`: the table of batches, read, written to a file, put together, made again."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coda.cli.rows import AsJson, Column, Wide, print_json, print_rows
from coda.errors import ConfigError, Problem

if TYPE_CHECKING:
    import pandas as pd


def history(
    source: Annotated[str | None, typer.Option("--source", help="Only batches of this source.")] = None,
    instrument: Annotated[str | None, typer.Option("--instrument", help="Only batches of this microscope.")] = None,
    since: Annotated[
        str,
        typer.Option("--since", help="Only batches that ended then or later: 2026-03-03 or 2026-03-03T14:00+01:00."),
    ] = "",
    csv: Annotated[Path | None, typer.Option("--csv", help="Write every number of these batches to this file.")] = None,
    parquet: Annotated[Path | None, typer.Option("--parquet", help="The same as parquet, with types.")] = None,
    *,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="First make all rows again from reports, run records and the ledger.")
    ] = False,
    compact: Annotated[
        bool, typer.Option("--compact", help="First put each month together in one object; deletes nothing.")
    ] = False,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """Every batch that ever ended, newest first: when, how, what serves. --csv and --parquet have every number."""
    from coda.monitoring import history as read_table
    from coda.settings import read_settings

    settings, start = read_settings(), _time(since) if since else None
    if rebuild or compact:
        _maintain(settings, rebuild=rebuild, compact=compact)
    frame = read_table(settings, source=source, instrument=instrument, since=start)
    for path, write in ((csv, lambda to: frame.to_csv(to, index=False)), (parquet, frame.to_parquet)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
            typer.echo(f"wrote {len(frame)} numbers to {path}")
    if as_json:
        print_json(_rows(frame))
    elif csv is None and parquet is None:
        empty = "No batch has ended yet. After an upgrade: coda monitoring history --rebuild"
        print_rows(_rows(frame), COLUMNS, wide=wide, title="Batches, newest first", empty=empty)


def _maintain(settings: Any, *, rebuild: bool, compact: bool) -> None:
    from coda.monitoring.batch_table import compact as put_together
    from coda.storage.objects import store_for
    from coda.trigger.ledger import Ledger
    from coda.trigger.rows_without_report import rebuild as make_again

    platform = store_for(settings.platform, settings)
    if rebuild:
        count = make_again(Ledger(platform), store_for(settings.landing, settings))
        typer.echo(f"made the rows of {count} batch version(s) again", err=True)
    if compact:
        done = put_together(platform)
        typer.echo(f"put {done.batches} batch version(s) together in {done.months} object(s)", err=True)


def _rows(frame: "pd.DataFrame") -> list[dict[str, Any]]:
    from coda.monitoring.frames import batches_of

    table = batches_of(frame).sort_values("processed_at", ascending=False)
    return [{str(name): _plain(value) for name, value in row.items()} for row in table.to_dict("records")]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return None if value != value else value.astimezone(UTC).isoformat(timespec="seconds")  # NaT is not itself  # noqa: PLR0124
    return None if value is None or value != value else value  # noqa: PLR0124  NaN is not itself


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        problem = Problem("--since", text, "a date, or date and time, as 2026-03-03T14:00+01:00", "Correct it.")
        raise ConfigError("The time cannot be read.", [problem]) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


COLUMNS = (
    Column("ended (UTC)", lambda row: row["processed_at"][:16].replace("T", " "), yields=1, least=10),
    Column("batch", lambda row: f"{row['source']}/{row['batch']}"),
    Column("end", lambda row: row["state"].replace("_", " ")),
    Column(
        "plates", lambda row: "" if row["plates"] is None else f"{row['plates']:.0f}", yields=3, least=6, right=True
    ),
    Column("gain", lambda row: _short(row["gain"]), yields=2, least=6, right=True),
    Column("release", lambda row: row["release_id"], yields=4),
    Column("why", lambda row: row["reason"], yields=5),
)
