"""`coda registry`: which models there are, what serves which source, and moving the pointer."""

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from coda.cli.registry_compare import card, diff
from coda.cli.registry_upkeep import gc, verify
from coda.cli.rows import AsJson, Column, Wide, print_fields, print_json, print_rows
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
from coda.storage.records import UnreadableRecordError

app = typer.Typer(
    no_args_is_help=True,
    help="Extractors, heads and releases: list, show, compare, promote, roll back, verify, collect.",
)

Scope = Annotated[str, typer.Argument(help="A source, or 'default'.")]
By = Annotated[str, typer.Option("--by", help="Who decides; this login's name when not given.")]
Reason = Annotated[str, typer.Option("--reason", help="The reason; kept in the release log.")]


@app.command("list")
def list_(
    *,
    versions: Annotated[
        bool, typer.Option("--versions", help="Also every registered extractor and head, from MLflow.")
    ] = False,
    as_json: AsJson = False,
    wide: Wide = False,
) -> None:
    """What serves each source; with --versions or --json, every registered version too.

    A source whose newest entry cannot be read is listed after the others, and the command fails.
    """
    settings = read_settings()
    entries = []
    problems: list[Problem] = []
    for entry in ReleaseLog(settings).pointers().values():
        if isinstance(entry, UnreadableRecordError):
            problems += entry.problems
        else:
            entries.append(entry)
    registered = list_versions(settings) if versions or as_json else []
    if as_json:
        serving = {entry.scope: entry for entry in entries}
        print_json({"serving": serving, "versions": [_plain(version) for version in registered]})
    elif entries or not problems:
        nothing = "Nothing serves yet. The training pipeline registers the first extractor and its heads."
        print_rows(entries, SERVING, wide=wide, title="What serves", empty=nothing)
    if versions and not as_json:
        typer.echo()
        print_rows(registered, VERSIONS, wide=wide, title="Registered versions", empty="Nothing is registered yet.")
    if problems:
        raise UnreadableRecordError("What serves is not known everywhere.", problems)


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
        print_json(facts)
    else:
        print_fields(name, ((key, _cell(value)) for key, value in facts.items()))


@app.command()
def history(
    scope: Scope,
    at: Annotated[
        str, typer.Option("--at", help="What served then: 2026-03-03 (the whole day, UTC) or 2026-03-03T14:00+01:00.")
    ] = "",
    *,
    as_json: AsJson = False,
    wide: Wide = False,
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
        print_json(entries)
        return
    title = f"What served {scope} at {at}" if at else f"Release log of {scope}"
    number = Column("no.", lambda item: str(item.sequence) if item.scope == scope else f"{item.scope} {item.sequence}")
    empty = f"Nothing served {scope!r}{f' at {at}' if at else ''}."
    print_rows(entries, (number, *MOVES), wide=wide, title=title, empty=empty)


@app.command()
def promote(
    release: Annotated[str, typer.Argument(help="Release id: from the log, or of a draft that waits for a person.")],
    reason: Reason,
    scope: Annotated[str, typer.Option("--scope", help="Source, or 'default'; the release's own if not given.")] = "",
    by: By = "",
    expected: Annotated[
        int | None, typer.Option("--expected", help="Newest entry that you saw; refused if there is a newer one.")
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


def _line_of(item: "Version") -> str:
    tags = item.tags
    return f"alignment {tags.get('alignment', '?')}" if tags.get("kind") == "head" else tags.get("method", "")


SERVING = (
    Column("source", lambda entry: entry.scope),
    Column("release", lambda entry: entry.release.release_id),
    Column("extractor", lambda entry: str(entry.release.extractor.version), right=True),
    Column("head", lambda entry: str(entry.release.head.version), right=True),
    Column("method", lambda entry: entry.release.method, yields=2),
    Column("since (UTC)", lambda entry: entry.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M"), yields=1, least=11),
    Column("by", lambda entry: entry.by, yields=3),
)
MOVES = (
    Column("since (UTC)", lambda entry: entry.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S"), yields=1, least=11),
    Column("what", lambda entry: entry.action),
    Column("release", lambda entry: entry.release.release_id),
    Column("by", lambda entry: entry.by, yields=2),
    Column("why", lambda entry: entry.reason, yields=3),
)
VERSIONS = (
    Column("version", lambda item: f"{item.name.removeprefix('coda-')}/{item.ref.version}"),
    Column("source", lambda item: item.tags.get("source", "")),
    Column("method", _line_of, yields=2),
    Column("line", lambda item: item.tags.get("line", "")[:8], yields=3),
    Column("registered (UTC)", lambda item: item.created.strftime("%Y-%m-%d %H:%M"), yields=1, least=11),
    Column("serves", lambda item: ", ".join(alias.removeprefix("serving-") for alias in item.aliases), yields=4),
)


def _plain(version: Version) -> dict[str, Any]:
    ref: ModelRef = version.ref
    facts = {**ref.model_dump(), "registered": version.created.isoformat(), "aliases": list(version.aliases)}
    return {**facts, **{key: value for key, value in version.tags.items() if key not in facts}}


def _moved(entry: PointerEntry, *, as_json: bool) -> None:
    if as_json:
        print_json(entry)
        return
    release = entry.release
    text = (
        f"{entry.scope!r} is now served by release {release.release_id} ({release.method}: extractor "
        f"{release.extractor.version}, head {release.head.version}); entry {entry.sequence} of its log."
    )
    typer.echo(text)


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
