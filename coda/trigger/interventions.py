"""What is done to a batch version in the ledger from outside of its run; who did it, and why, stays written there."""

import hashlib

from coda.contracts import Contract, FailureRecord, GateReport, QualityReport, ReleaseRecord, RunRecord
from coda.contracts.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, BatchManifest
from coda.errors import ContractError
from coda.storage.failures import ObjectTooLargeError
from coda.storage.objects import ObjectStore
from coda.storage.records import UnreadableRecordError, find_record
from coda.trigger.batch_versions import BatchVersion
from coda.trigger.ledger import TAKEN, Ledger, LedgerState, State, Unreadable

RECORDS: dict[str, type[Contract]] = {
    "run.json": RunRecord,
    "failure.json": FailureRecord,
    "release.json": ReleaseRecord,
    "gate.json": GateReport,
    "quality.json": QualityReport,
}
"""Records of a run that a further try of it reads: one that cannot be read would end that try in the same way."""


def set_aside(store: ObjectStore, run_id: str) -> tuple[str, ...]:
    """Move a run's records that cannot be read to ``runs/<run_id>/unreadable/``, where they stay for whoever asks.

    Returns:
        Names of what was moved.

    Raises:
        TransientError: The store is away.
    """
    moved = []
    for name, kind in RECORDS.items():
        key = f"runs/{run_id}/{name}"
        try:
            find_record(store, key, kind)
        except UnreadableRecordError:
            try:
                body = store.find(key, at_most=MAX_MANIFEST_BYTES) or b""
            except ObjectTooLargeError:
                body = b"larger than any record; it was not kept"
            store.put(f"runs/{run_id}/unreadable/{hashlib.sha256(body).hexdigest()[:12]}-{name}", body)
            store.delete(key)
            moved.append(name)
    return tuple(moved)


def mend(
    ledger: Ledger, broken: Unreadable, landing: ObjectStore, state: State = "failed", who: str = ""
) -> LedgerState | None:
    """Write the next state of a version whose newest state cannot be read: it failed, and a person may retry it.

    Which version it is, is known from an earlier state, from its claim, or from the manifest that still lies in the
    landing prefix. A state that a newer program wrote is that program's.

    Args:
        ledger: The ledger.
        broken: The newest state.
        landing: Store at the landing prefix.
        state: The state to write.
        who: Person who asks; nobody when the trigger does it by itself.

    Returns:
        The new state; None when nothing says which version it is, or somebody else was faster.
    """
    if broken.newer:
        return None
    known = ledger.entry(broken.folder).states
    version = known[-1].version if known else _claimed(ledger, broken) or _landed(landing, broken)
    if version is None or version.folder != broken.folder:
        return None
    by = (
        f"opened again by {who}" if who else f"When this is put right: coda ledger retry {broken.source}/{broken.batch}"
    )
    return ledger.append(
        version, state, after=known[-1] if known else None, sequence=broken.sequence + 1, cause="record",
        attempt=0 if who else None,
        reasons=(f"state {broken.sequence} of this version cannot be read ({broken.why})", by),
    )  # fmt: skip


def _claimed(ledger: Ledger, broken: Unreadable) -> BatchVersion | None:
    version = BatchVersion(broken.source, broken.batch, broken.digest16, "")
    try:
        claim = ledger.claim_of(version)
    except UnreadableRecordError:
        return None
    return BatchVersion(claim.source, claim.batch, claim.manifest_digest, claim.manifest_key) if claim else None


def _landed(landing: ObjectStore, broken: Unreadable) -> BatchVersion | None:
    key = f"{broken.source}/{broken.batch}/{MANIFEST_NAME}"
    try:
        body = landing.find(key, at_most=MAX_MANIFEST_BYTES)
        digest = BatchManifest.parse(body, key).digest() if body is not None else ""
    except (ContractError, ObjectTooLargeError):
        return None
    return BatchVersion(broken.source, broken.batch, digest, key) if digest.startswith(broken.digest16) else None


def retry(ledger: Ledger, failed: LedgerState, who: str) -> LedgerState | None:
    """Open a failed batch version again; the next poll runs it under its name.

    Records of its run that cannot be read are set aside first: with them it would end in the same way.

    Args:
        ledger: The ledger.
        failed: Newest state of the version.
        who: Person who asks.

    Returns:
        The new state; None when the version did not fail, or somebody else was faster.
    """
    if failed.state != "failed":
        return None
    moved = set_aside(ledger.store, failed.run_id)
    reasons = (f"opened again by {who}", *(f"{name} of its run cannot be read and was set aside" for name in moved))
    return ledger.append(failed.version, "landed", after=failed, reasons=reasons, attempt=0, lost=0, reopened=0)


def release_claim(ledger: Ledger, taken: LedgerState, who: str, why: str) -> LedgerState | None:
    """Take a batch version from the trigger that holds it, without waiting for its lease to run out.

    The run itself is left alone. The next trigger that looks finds it by its name: one that is alive is looked after
    again, one that ended is concluded, one that is gone is started again.

    Args:
        ledger: The ledger.
        taken: Newest state of the version: 'claimed' or 'running'.
        who: Person who asks.
        why: Reason, for those who read the ledger later.

    Returns:
        The new state; None when nobody holds the version, or somebody else was faster.
    """
    if taken.state not in TAKEN:
        return None
    reason = f"claim of {taken.owner} released by {who}: {why}"
    # being submitted once more by the next trigger is no attempt of its own
    attempt = max(taken.attempt - 1, 0) if taken.state == "running" else taken.attempt
    return ledger.append(taken.version, "landed", after=taken, reasons=(reason,), attempt=attempt)
