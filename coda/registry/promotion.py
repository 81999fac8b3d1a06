"""Moving the pointer: promote a release for a scope, or go back to an earlier one."""

from coda.contracts import PointerEntry, ReleaseRecord
from coda.errors import ConfigError, Problem
from coda.registry.mirror import mirror
from coda.registry.pair import verify_release
from coda.registry.releases import ReleaseLog
from coda.settings import Settings
from coda.storage.records import UnreadableRecordError

GATE = "gate"
"""Who moves a pointer without a person."""


def promote(
    record: ReleaseRecord,
    scope: str,
    *,
    by: str,
    reason: str,
    settings: Settings,
    expected_sequence: int | None = None,
) -> PointerEntry:
    """Let a release serve a scope; one that serves already stays as it is.

    Both models are fetched and verified, and must belong together, before anything moves. The release log is written
    first and is the truth; MLflow's aliases follow, and a call that failed in between can simply be repeated.

    Args:
        record: The release.
        scope: Source, or 'default'.
        by: Who promotes it: 'gate', or a person.
        reason: Why.
        settings: Where the services are.
        expected_sequence: Number of the newest entry the decision was based on; what is newest now when not given.

    Raises:
        ConflictError: Somebody else moved the pointer since; nothing was changed.
        IntegrityError: A model is not the recorded one.
        ConfigError: A model does not exist, or the two do not belong together.
    """
    _require_reason(by, reason)
    log = ReleaseLog(settings)
    try:
        newest = log.entry(scope)
    except UnreadableRecordError:
        if by == GATE:  # what would be replaced is not known: a person says what is to serve
            raise
        newest = None
    after = newest.sequence if newest is not None else log.newest_number(scope)
    if newest is not None and newest.release.release_id == record.release_id:
        mirror(newest.release, scope, settings=settings)
        return newest
    if expected_sequence is not None and expected_sequence != after:
        raise log.conflict(scope, expected_sequence)
    verify_release(record, settings=settings)
    entry = log.append(record, scope, action="promote", by=by, reason=reason, after=after)
    mirror(record, scope, settings=settings)
    log.index()
    return entry


def rollback(scope: str, *, by: str, reason: str, settings: Settings, steps: int = 1) -> PointerEntry:
    """Let the release serve again that served before the present one.

    Rolling back twice goes back two releases: an entry that a rollback already undid is not returned to.

    Args:
        scope: Source, or 'default'.
        by: Who rolls back.
        reason: Why.
        settings: Where the services are.
        steps: Releases to go back, at least 1.

    Raises:
        ConfigError: There are not so many earlier releases.
        ConflictError: Somebody else moved the pointer at the same moment; nothing was changed.
        IntegrityError: The earlier release's models are not the recorded ones.
    """
    _require_reason(by, reason)
    log = ReleaseLog(settings)
    entries = log.readable(scope)
    standing = standing_releases(entries)
    if steps < 1 or len(standing) <= steps:
        found = f"{max(0, len(standing) - 1)} earlier release(s)"
        remedy = "See `coda registry history`; use `coda registry promote` for any other release."
        problem = Problem(f"release log of {scope!r}", found, f"at least {max(1, steps)}", remedy)
        raise ConfigError(f"{scope!r} cannot be rolled back by {steps}.", [problem])
    record = standing[-1 - steps]
    verify_release(record, settings=settings)
    entry = log.append(record, scope, action="rollback", by=by, reason=reason, after=entries[-1].sequence)
    mirror(record, scope, settings=settings)
    log.index()
    return entry


def standing_releases(entries: list[PointerEntry]) -> list[ReleaseRecord]:
    """Return the promotions that no rollback undid, the serving one last."""
    standing: list[ReleaseRecord] = []
    for entry in entries:
        if entry.action == "promote":
            standing.append(entry.release)
            continue
        places = [i for i, record in enumerate(standing) if record.release_id == entry.release.release_id]
        standing = standing[: places[-1] + 1] if places else [*standing, entry.release]
    return standing


def _require_reason(by: str, reason: str) -> None:
    if not by.strip() or not reason.strip():
        problem = Problem("promotion", f"by {by!r}, reason {reason!r}", "a name and a reason", "Give both.")
        raise ConfigError("The release log records who moved the pointer, and why.", [problem])
