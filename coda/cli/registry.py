"""`coda registry`: which models there are, what serves which source, and moving the pointer."""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from coda.cli.registry_compare import card, diff
from coda.cli.registry_upkeep import gc, verify
from coda.contracts import ModelRef, PointerEntry
from coda.errors import ConfigError, Problem
from coda.login import login_name
from coda.registry import DEFAULT_SCOPE, ReleaseLog, Version, list_versions
from coda.registry import promote as promote_release
from coda.registry import rollback as roll_back
from coda.registry.approval import require_approver
from coda.registry.drafts import named_release
from coda.registry.versions import named_version
from coda.settings import read_settings

app = typer.Typer(
    no_args_is_help=True,
    help="Extractors, heads and releases: list, show, compare, promote, roll back, verify, collect.",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
Scope = Annotated[str, typer.Argument(help="A source, or 'default'.")]
By = Annotated[str, typer.Option("--by", help="Who decides; this login's name when not given.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, in words; kept in the release log.")]


@app.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """What serves each source, and every registered version."""
    settings = read_settings()
    log = ReleaseLog(settings)
    entries = [entry for scope in log.scopes() if (entry := log.entry(scope)) is not None]
    versions = list_versions(settings)
    if as_json:
        _print_json(
            {
                "serving": {entry.scope: entry.model_dump(mode="json") for entry in entries},
                "versions": [_plain(version) for version in versions],
            }
        )
        return
    console = Console()
    if not versions:
        console.print("Nothing is registered yet. The training pipeline registers the first extractor and its heads.")
        return
    console.print(_serving_table(entries))
    console.print(_version_table(versions))


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A release id, a source, 'default', or a version such as coda-head/2.")],
    *,
    as_json: AsJson = False,
) -> None:
    """All that is known of one release or one version."""
    settings = read_settings()
    version = named_version(name, settings=settings)
    facts = _plain(version) if version is not None else named_release(name, settings=settings).model_dump(mode="json")
    if as_json:
        _print_json(facts)
        return
    table = Table(title=name, show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for key, value in facts.items():
        table.add_row(key, _cell(value))
    Console().print(table)


@app.command()
def history(
    scope: Scope,
    at: Annotated[
        str, typer.Option("--at", help="What served then: 2026-03-03 (the whole day, UTC) or 2026-03-03T14:00+01:00.")
    ] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Every move of a pointer: who, when, why. With --at, what served then, the default's release included."""
    log = ReleaseLog(read_settings())
    if at:
        start, end = _times(at)
        entries = log.during(scope, start, end)
        if (not entries or entries[0].at > start) and scope != DEFAULT_SCOPE:
            # until a source has a release of its own, the default's serves it
            until = entries[0].at if entries else end
            entries = [*(entry for entry in log.during(DEFAULT_SCOPE, start, until) if entry.at <= until), *entries]
    else:
        entries = log.history(scope)
    if as_json:
        _print_json([entry.model_dump(mode="json") for entry in entries])
        return
    if not entries:
        Console().print(f"Nothing served {scope!r}{f' at {at}' if at else ''}.", markup=False)
        return
    title = f"What served {scope} at {at}" if at else f"Release log of {scope}"
    Console().print(_history_table(title, scope, entries))


@app.command()
def promote(
    release: Annotated[str, typer.Argument(help="Release id: from the log, or of a draft that waits for a person.")],
    reason: Reason,
    scope: Annotated[str, typer.Option("--scope", help="Source, or 'default'; the release's own if not given.")] = "",
    by: By = "",
    expected: Annotated[
        int | None, typer.Option("--expected", help="Number of the entry you looked at; refused if it moved on.")
    ] = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Let a release serve a source. Both models are verified first, and must belong together."""
    settings = read_settings()
    who = by or login_name()
    found = named_release(release, settings=settings)
    require_approver(found, who, settings=settings)
    record = found.model_copy(update={"approver": who})
    entry = promote_release(
        record, scope or record.source, by=who, reason=reason, settings=settings, expected_sequence=expected
    )
    _moved(entry, as_json=as_json)


@app.command()
def rollback(
    scope: Scope,
    reason: Reason,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Releases to go back.")] = 1,
    by: By = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Let the release serve again that served before."""
    entry = roll_back(scope, by=by or login_name(), reason=reason, steps=steps, settings=read_settings())
    _moved(entry, as_json=as_json)


app.command()(diff)
app.command()(card)
app.command()(verify)
app.command()(gc)


def _serving_table(entries: list[PointerEntry]) -> Table:
    table = Table(title="What serves", title_justify="left")
    for column in ("source", "release", "pair", "method", "since (UTC)", "by"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        release = entry.release
        pair = f"extractor/{release.extractor.version} head/{release.head.version}"
        since = entry.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
        table.add_row(entry.scope, release.release_id, pair, release.method, since, entry.by)
    return table


def _history_table(title: str, scope: str, entries: list[PointerEntry]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("no.", "since (UTC)", "what", "release", "by", "why"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        number = str(entry.sequence) if entry.scope == scope else f"{entry.scope} {entry.sequence}"
        since = entry.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(number, since, entry.action, entry.release.release_id, entry.by, entry.reason)
    return table


def _version_table(versions: list[Version]) -> Table:
    table = Table(title="Registered versions", title_justify="left")
    for column in ("version", "source", "method", "line", "registered (UTC)", "serves"):
        table.add_column(column, overflow="fold")
    for item in versions:
        tags = item.tags
        method = tags.get("method", "")
        if tags.get("kind") == "head":
            method = f"alignment {tags.get('alignment', '?')}"
        serves = ", ".join(alias.removeprefix("serving-") for alias in item.aliases)
        name = f"{item.name.removeprefix('coda-')}/{item.ref.version}"
        registered = item.created.strftime("%Y-%m-%d %H:%M")
        table.add_row(name, tags.get("source", ""), method, tags.get("line", "")[:8], registered, serves)
    return table


def _plain(version: Version) -> dict[str, Any]:
    ref: ModelRef = version.ref
    facts = {**ref.model_dump(), "registered": version.created.isoformat(), "aliases": list(version.aliases)}
    return {**facts, **{key: value for key, value in version.tags.items() if key not in facts}}


def _moved(entry: PointerEntry, *, as_json: bool) -> None:
    if as_json:
        _print_json(entry.model_dump(mode="json"))
        return
    release = entry.release
    text = (
        f"{entry.scope!r} is now served by release {release.release_id} ({release.method}: extractor "
        f"{release.extractor.version}, head {release.head.version}); entry {entry.sequence} of its log."
    )
    Console().print(text, markup=False, soft_wrap=True)


def _times(text: str) -> tuple[datetime, datetime]:
    """Return start and end of what a person means: a whole day, or one moment; UTC where no zone is given."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        problem = Problem("--at", text, "a date, or date and time, as 2026-03-03T14:00+01:00", "Correct it.")
        raise ConfigError("The time cannot be read.", [problem]) from error
    time = time if time.tzinfo else time.replace(tzinfo=UTC)
    return time, time + timedelta(days=1) if len(text) == len("2026-03-03") else time


def _cell(value: Any) -> str:
    if value is None or value in ("", [], ()):
        return "-"
    if isinstance(value, list):
        return "\n".join(_cell(item) for item in value)
    if isinstance(value, dict) and {"name", "version", "digest"} <= set(value):
        return f"{value['name']}/{value['version']}  (digest {value['digest'][:12]})"
    if isinstance(value, dict) and {"source", "batch", "revision"} <= set(value):
        return f"{value['source']}/{value['batch']}  (revision {value['revision'][:12]})"
    return value if isinstance(value, str) else json.dumps(value)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2))
