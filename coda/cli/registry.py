"""`coda registry`: which models there are, what serves which source, and moving the pointer."""

import getpass
import json
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from coda.contracts import ModelRef, PointerEntry, ReleaseRecord
from coda.errors import ConfigError, IntegrityError, Problem, raise_if_any
from coda.registry import EXTRACTOR, HEAD, ReleaseLog, Version, find, list_versions, verify_release
from coda.registry import promote as promote_release
from coda.registry import rollback as roll_back
from coda.registry.approval import require_approver
from coda.settings import Settings, read_settings

app = typer.Typer(no_args_is_help=True, help="Extractors, heads and releases: list, show, promote, roll back.")

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
    model, slash, number = name.partition("/")
    if slash and number.isdigit():
        found = _version(model, int(number), settings)
        facts: dict[str, Any] = _plain(found)
    else:
        facts = _release(name, settings).model_dump(mode="json")
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
    at: Annotated[str, typer.Option("--at", help="What served at this time, as 2026-03-03 or 2026-03-03T14:00.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Every move of a pointer: who, when, why. With --at, what served at that time."""
    log = ReleaseLog(read_settings())
    entries = log.history(scope)
    if at:
        entry = log.at(scope, _time(at))
        entries = [] if entry is None else [entry]
    if as_json:
        _print_json([entry.model_dump(mode="json") for entry in entries])
        return
    if not entries:
        Console().print(f"Nothing of its own served {scope!r}{f' at {at}' if at else ''}.", markup=False)
        return
    table = Table(title=f"Release log of {scope}", title_justify="left")
    for column in ("no.", "when (UTC)", "what", "release", "method", "by", "why"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        release = entry.release
        when = entry.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(
            str(entry.sequence), when, entry.action, release.release_id, release.method, entry.by, entry.reason
        )
    Console().print(table)


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
    who = by or getpass.getuser()
    found = _release(release, settings)
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
    entry = roll_back(scope, by=by or getpass.getuser(), reason=reason, steps=steps, settings=read_settings())
    _moved(entry, as_json=as_json)


@app.command()
def verify(*, as_json: AsJson = False) -> None:
    """Fetch all that serves, check every byte and every pair, and compare MLflow's aliases with the log."""
    from coda.registry.mirror import drift

    settings = read_settings()
    log = ReleaseLog(settings)
    problems: list[Problem] = []
    checked = []
    for scope in log.scopes():
        record = log.history(scope)[-1].release
        try:
            verify_release(record, settings=settings)
        except (IntegrityError, ConfigError) as error:
            problems += error.problems
        checked.append({"scope": scope, "release": record.release_id})
    moved = drift(settings=settings)
    if as_json:
        _print_json({"checked": checked, "problems": [str(item) for item in problems], "aliases": [*map(str, moved)]})
    else:
        console = Console()
        console.print(f"{len(checked)} serving release(s) fetched and verified.")
        for item in moved:
            console.print(f"An MLflow alias was moved by hand: {item}", markup=False, soft_wrap=True)
    raise_if_any(IntegrityError, "What serves is not what was recorded.", problems)


def _serving_table(entries: list[PointerEntry]) -> Table:
    table = Table(title="What serves", title_justify="left")
    for column in ("source", "release", "method", "extractor", "head", "alignment", "since (UTC)", "by"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        release = entry.release
        table.add_row(
            entry.scope, release.release_id, release.method, str(release.extractor.version), str(release.head.version),
            release.alignment, entry.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M"), entry.by,
        )  # fmt: skip
    return table


def _version_table(versions: list[Version]) -> Table:
    table = Table(title="Registered versions", title_justify="left")
    for column in ("model", "version", "source", "method", "alignment", "line", "digest", "registered (UTC)", "serves"):
        table.add_column(column, overflow="fold")
    for item in versions:
        tags = item.tags
        serves = ", ".join(alias.removeprefix("serving-") for alias in item.aliases)
        table.add_row(
            item.name, str(item.ref.version), tags.get("source", ""), tags.get("method", ""), tags.get("alignment", ""),
            tags.get("line", "")[:8], item.ref.digest[:8], item.created.strftime("%Y-%m-%d %H:%M"), serves,
        )  # fmt: skip
    return table


def _release(name: str, settings: Settings) -> ReleaseRecord:
    from coda.registry.drafts import find_release

    record = ReleaseLog(settings).current(name) or find_release(name, settings=settings)
    if record is None:
        problem = Problem("release", name, "a release id, a source or 'default'", "See `coda registry list`.")
        raise ConfigError("There is no such release.", [problem])
    return record


def _version(model: str, number: int, settings: Settings) -> Version:
    full = {"extractor": EXTRACTOR, "head": HEAD}.get(model, model)
    for item in find(full, settings=settings):
        if item.ref.version == number:
            return item
    problem = Problem("version", f"{full}/{number}", "a registered version", "See `coda registry list`.")
    raise ConfigError("There is no such version.", [problem])


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


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        problem = Problem("--at", text, "a date, or date and time, as 2026-03-03T14:00", "Correct it.")
        raise ConfigError("The time cannot be read.", [problem]) from error
    if len(text) == len("2026-03-03"):
        time = time.replace(hour=23, minute=59, second=59)  # a day means its end
    return time if time.tzinfo else time.replace(tzinfo=UTC)


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
