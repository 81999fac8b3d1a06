"""`coda ledger`: what became of every batch that landed."""

from dataclasses import asdict
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated

import typer

from coda.cli.rows import AsJson, Column, Wide, print_json, print_rows
from coda.errors import ConfigError, Problem
from coda.login import login_name

if TYPE_CHECKING:
    from coda.trigger.ledger import Ledger, LedgerState, Unreadable

app = typer.Typer(no_args_is_help=True, help="What became of every batch that landed.")

ForPerson = Annotated[bool, typer.Option("--waiting-for-person", help="Only batches whose run failed for good.")]
Name = Annotated[str, typer.Argument(help="source/batch, or source/batch/digest for one version of it.")]

LISTED = (
    Column("batch", itemgetter(0)),
    Column("version", itemgetter(1), yields=2),
    Column("state", itemgetter(2)),
    Column("since (UTC)", itemgetter(3), yields=1, least=11),
    Column("tries", itemgetter(4)),
    Column("why", itemgetter(5), yields=3),
)


def row_of(item: "LedgerState") -> tuple[str, ...]:
    """Return what a list tells of a batch version, in the order of `LISTED`."""
    why = item.reasons[0] if item.reasons else ""
    since = f"{item.at:%Y-%m-%d %H:%M:%S}"
    return f"{item.source}/{item.batch}", item.manifest_digest[:16], item.state, since, str(item.attempt), why


def _unreadable_row(item: "Unreadable") -> tuple[str, ...]:
    return f"{item.source}/{item.batch}", item.digest16, "unreadable", "", "", str(item.problem)


@app.command("list")
def list_(
    source: Annotated[str, typer.Argument(help="Only this source.")] = "",
    state: Annotated[str, typer.Option(help="Only batches in this state.")] = "",
    waiting_for_person: ForPerson = False,  # noqa: FBT002
    as_json: AsJson = False,  # noqa: FBT002
    wide: Wide = False,  # noqa: FBT002
) -> None:
    """Every batch version with its newest state, one line each; `coda ledger show` has the reasons in full."""
    survey = _ledger().survey(source)
    unreadable = [] if state or waiting_for_person else survey.unreadable
    states = [
        item for item in survey.states
        if (not state or item.state == state) and (item.waits_for_person or not waiting_for_person)
    ]  # fmt: skip
    if as_json:
        broken = [{**asdict(item), "state": "unreadable", "reasons": [str(item.problem)]} for item in unreadable]
        print_json([*states, *broken])
    else:
        rows = [*map(row_of, states), *map(_unreadable_row, unreadable)]
        print_rows(rows, LISTED, wide=wide, empty="The ledger is empty.")


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:  # noqa: FBT002
    """All states of a batch's versions, with times and reasons."""
    ledger = _ledger()
    entries = [ledger.entry(item.version.folder) for item in _found(ledger, name)]
    histories = [entry.states for entry in entries]
    if as_json:
        print_json(histories)
        return
    for broken in (item for entry in entries for item in entry.unreadable):
        typer.echo(f"cannot be read: {broken.problem}")
    for states in histories:
        typer.echo(f"{states[0].source}/{states[0].batch}, manifest {states[0].manifest_digest}")
        typer.echo(f"  run {states[0].run_id}")
        for item in states:
            typer.echo(f"  {item.at:%Y-%m-%d %H:%M:%S}  {item.state}  ({item.owner})")
            for reason in item.reasons:
                typer.echo(f"      {reason}")


@app.command()
def retry(name: Name, as_json: AsJson = False) -> None:  # noqa: FBT002
    """Open the newest version that failed again; the trigger's next poll runs it under its name."""
    from coda.settings import read_settings
    from coda.storage.objects import store_for
    from coda.trigger.interventions import mend
    from coda.trigger.interventions import retry as reopen

    ledger = _ledger()
    source, batch, digest = _parts(name)
    broken = [item for item in ledger.survey(f"{source}/{batch}").unreadable if item.digest16.startswith(digest[:16])]
    settings = read_settings()
    for item in broken:
        new = mend(ledger, item, store_for(settings.landing, settings), "landed", login_name())
        if new is not None:
            _tell(new, new, "is open again", as_json)
            return
    if broken:
        raise ConfigError("Nothing says which version this was; deliver the batch again.", [broken[0].problem])
    failed = [item for item in _found(ledger, name) if item.state == "failed"]
    if not failed:
        problem = Problem(name, "no version that failed", "one", "See `coda ledger show`.")
        raise ConfigError("There is nothing to try again.", [problem])
    newest = max(failed, key=ledger.order)
    _tell(reopen(ledger, newest, login_name()), newest, "is open again", as_json)


@app.command("release-claim")
def release_claim(
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="Why, for those who read the ledger later.")],
    as_json: AsJson = False,  # noqa: FBT002
) -> None:
    """Free a version that a trigger holds and does not move; its run is left alone and found again by its name."""
    from coda.trigger.interventions import release_claim as release
    from coda.trigger.ledger import TAKEN

    ledger = _ledger()
    taken = [item for item in _found(ledger, name) if item.state in TAKEN]
    if not taken or not reason.strip():
        found = "no version that is claimed or running" if not taken else "no reason"
        remedy = "See `coda ledger show`." if not taken else "Give --reason."
        raise ConfigError("There is no claim to release.", [Problem(name, found, "a taken version and why", remedy)])
    newest = max(taken, key=ledger.order)
    _tell(release(ledger, newest, login_name(), reason.strip()), newest, "is free again", as_json)


def _tell(new: "LedgerState | None", old: "LedgerState", done: str, as_json: bool) -> None:  # noqa: FBT001
    if as_json:
        print_json(new)
    else:
        typer.echo(f"{old.run_id} {done}." if new else f"{old.run_id} was moved on by somebody else.")


def _ledger() -> "Ledger":
    from coda.settings import read_settings
    from coda.storage.objects import store_for
    from coda.trigger.ledger import Ledger

    settings = read_settings()
    return Ledger(store_for(settings.platform, settings))


def _parts(name: str) -> tuple[str, str, str]:
    source, _, rest = name.partition("/")
    batch, _, digest = rest.partition("/")
    return source, batch, digest


def _found(ledger: "Ledger", name: str) -> "list[LedgerState]":
    source, batch, digest = _parts(name)
    found = [item for item in ledger.newest(f"{source}/{batch}") if item.manifest_digest.startswith(digest)]
    if not batch or not found:
        problem = Problem(name, "nothing", "source/batch of a batch in the ledger", "See `coda ledger list`.")
        raise ConfigError("The ledger has no such batch.", [problem])
    return found
